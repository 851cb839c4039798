"""The driver for dynamic resource allocation (DRA). Imported only where it is on."""
