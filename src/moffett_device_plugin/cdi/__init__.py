"""The Container Device Interface: SPUs by name, for engines that inject them themselves.

names      CDI's rules for names, and the annotation that asks for devices. Pure
spec       what a node's spec holds. Pure
directory  the spec as a file where engines read it
keeper     keeps that file true
"""
