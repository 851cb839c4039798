"""What the daemon is built on and what knows nothing of SPUs."""
