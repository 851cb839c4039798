"""Which pods hold which devices, as the kubelet reports it.

client      one List call of the pod-resources API
watcher     the newest answer, kept up to date
checkpoint  the kubelet's own record, for as long as the kubelet does not answer
"""
