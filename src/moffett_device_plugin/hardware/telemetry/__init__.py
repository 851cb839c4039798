"""mx-smi in a container of its own, and its readings over a socket: nothing of the plugin
needs privileges then. `serve` imports this only where `telemetry.source` is `socket`."""
