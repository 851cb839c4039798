"""Checks of any device plugin against the device plugin API and what kubelets do.

A check is one async function that is given the `Rig` and returns an `Outcome`; its
docstring says which rule it holds the plugin to, and whose rule that is. The files are
grouped by subject, `checks.py` lists them in the order they run in.

What the API leaves open is reported (`info`), never failed.
"""
