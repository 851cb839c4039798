"""A stand-in for the kubelet, for `demo`, tests and newcomers.

It behaves as a real kubelet 1.20 was observed to (docs/kubelets.md), also where
that is inconvenient; the end-to-end tests are against the real thing.
"""
