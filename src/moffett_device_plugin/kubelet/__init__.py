"""The plugin's side of the kubelet.

directory     what is in the kubelet's plugin directory, as it changes
listener      a socket there that is ours, made again when someone deletes it
service       the five calls of the device plugin API
registration  one Register call
peers         other copies of this plugin on the node
plugin        the life of one resource: serve, register, watch, register again
"""
