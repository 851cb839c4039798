"""The Kubernetes API, for what is only told there: events, a condition, labels.

Opt-in: nothing of this package, and no TLS, is imported before it is turned on.
"""
