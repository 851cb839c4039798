"""One file a command. Each imports what it needs itself."""
