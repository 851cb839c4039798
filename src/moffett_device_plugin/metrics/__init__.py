"""Metrics for Prometheus, and whether the daemon is alive and ready, over HTTP.

library     what is used of prometheus_client, without the rest of it
view        everything that the metrics are made from, at one moment
families    a view -> metric families (pure): devices, plugin
exposition  metric families -> the two text formats (pure)
pulse       which of the daemon's loops still turn
readiness   whether the kubelet has what it should have (pure)
address     where to listen, as configured
server      asyncio and h11 at the edge
exporter    all of it, as a part of the daemon

docs/monitoring.md lists the metrics and what they cost. Nothing here is imported
unless `--metrics-address` is set.
"""
