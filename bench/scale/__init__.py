"""What a fleet of nodes does to an API server: docs/scale.md."""
