"""Which devices a container is given, and what it gets with them. Pure.

topology         the node as a tree: chip, card, switch, root complex, NUMA node
placement        the best set of devices for a request, exactly
replicas         the least used replicas for a request
allocator        answers for one resource, from the node's newest state
allocate_result  device nodes and environment for the devices that were chosen
"""
