"""A real single-node Kubernetes cluster of plain processes, for end-to-end tests."""
