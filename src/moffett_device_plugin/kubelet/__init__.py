"""The plugin's side of the kubelet.

directory     what is in the kubelet's plugin directory, as it changes
names         what sockets are called there
listener      a socket there that is ours, made again when someone deletes it
service       the five calls of the device plugin API
sockets       one for each registration, as newer kubelets want it
registration  one Register call
peers         other copies of this plugin on the node
plugin        the life of one resource: serve, register, watch, register again
holdings      which pods hold what, kept true: asked of podresources, or as long as the
              kubelet is silent, read in its checkpoint
"""
