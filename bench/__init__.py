"""Measures device plugins from where the kubelet stands. See README.md."""
