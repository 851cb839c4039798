"""Verdicts on devices, with reasons. Pure: snapshots and a clock's reading in.

reasons   the values: a reason, a verdict
rules     one function a rule: a device in, a sentence out when it applies
policy    which rules are on, and with which limits; the `--health` setting
judge     rules over a whole snapshot, and the memory that flapping needs
"""
