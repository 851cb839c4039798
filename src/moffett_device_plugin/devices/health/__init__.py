"""The health of devices, with reasons. Pure: snapshots and a clock's reading in.

reasons   the values: a reason, a health status
rules     one function for each rule
policy    which rules apply, and their limits
evaluate  rules over a whole snapshot, and the history that flapping needs
"""
