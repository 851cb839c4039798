"""The Kubernetes API: events, a node condition and node labels.

Optional: nothing of this package, and no TLS, is imported unless one of them is on.
"""
