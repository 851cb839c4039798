"""The device plugin API: one plugin for each resource name, registered with the kubelet.

manager            the plugins that the node calls for, kept in step with its state
plugin             the life of one plugin: serve, register, register again
service            the five calls of the device plugin API
registration       the Register call
sockets            the plugin's sockets, one for each registration
listener           one listening socket
socket_names       how sockets are named
peers              other instances of this plugin on the node
kubelet_directory  what is in the kubelet's plugin directory, as it changes
"""
