"""What is advertised, under which resource names. Pure."""
