"""The guest's side: the kernel's devices, the plugin under test, and a kubelet for it."""
