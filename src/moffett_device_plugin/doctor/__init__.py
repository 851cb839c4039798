"""Whether this node can run SPU pods, and if not, why: checks from the bus up.

findings       the values: a level, a finding, a check
context        what the checks look at: settings, the node's state, this process's environment
run            every check in a thread of its own, each with a deadline
hardware, nodes, kubelet, plugin, pods, container, system, configuration
               one file a layer, one small function a check
checks         all of them, from the bottom up
report         findings as lines, for a terminal, or as JSON
bundle         what a bug report needs, in one file; `facts` collects it, `redact` keeps
               secrets out of it

Nothing here changes anything on the node.
"""
