"""A stand-in for the kubelet, for `demo`, tests and newcomers.

It behaves as real kubelets were observed to (docs/kubelets.md), also where
that is inconvenient; the end-to-end tests are against the real thing.
"""
