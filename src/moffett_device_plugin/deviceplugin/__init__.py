"""The device plugin API: one plugin for each resource name, registered with the kubelet.

manager            the plugins that the node calls for: one loop compares, and starts or stops them
plugin             the life of one plugin: serve, register, register again
registration       when to register: a pure state machine
kubelet_client     the Register call
service            the five calls of the device plugin API
context            what plugins read and use of the daemon
sockets            the plugin's sockets, one for each registration
listener           one listening socket
socket_names       how sockets are named
peers              other instances of this plugin on the node
kubelet_directory  what is in the kubelet's plugin directory, as it changes
"""
