"""Is this node fit for SPU pods, and if not, why not: checks from the bus up.

findings       the values: a level, a finding, a check
site           what the checks look at: settings, the node's state, this process's place
run            every check in a thread of its own, each with a deadline
bus, driver, tools, health, kubelet, plugin, pods, container, system, configuration
               one file a layer, one small function a check
checks         all of them, from the bottom up
report         findings as lines, for a terminal, or as JSON
bundle         what a bug report needs, in one file; `redact` keeps secrets out of it

Nothing here changes anything on the node.
"""
