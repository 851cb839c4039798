"""A kubelet's device manager without the rest, for `demo`, tests and the conformance suite.

It behaves as real kubelets were observed to (docs/kubelets.md), also where that is
inconvenient; the end-to-end tests run against real ones.
"""
