"""The host's side: building what the guest needs, and booting it."""
