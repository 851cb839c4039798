"""Which devices a container is given, and what it gets with them. Pure.

topology    the node as a tree: chip, card, switch, root complex, NUMA node
placement   the best set of devices for a request, exactly
grant       device nodes and environment for the devices that were chosen
"""
