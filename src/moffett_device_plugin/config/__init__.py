"""The configuration file: read (`document`), checked and resolved for a node
(`sections`), described for editors (`schema`), and followed as it changes (`reload`).

Imported only where a file is given: YAML costs 1.3 MiB."""
