"""Metrics for Prometheus, liveness and readiness, over HTTP.

library     the parts of prometheus_client that are used
view        the input of the metrics
families    view -> metric families (pure); devices, plugin
exposition  metric families -> the two text formats (pure)
heartbeat   liveness of the daemon's loops
readiness   whether every resource is registered (pure)
address     the listen address
server      HTTP with asyncio and h11
exporter    the whole, as one task of the daemon

docs/monitoring.md lists the metrics and their cost. Nothing here is imported unless
`--metrics-address` is set.
"""
