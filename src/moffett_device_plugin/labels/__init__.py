"""What the node's labels say of its SPUs, and the file that NFD reads them from."""
