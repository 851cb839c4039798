"""Builds the container image from Debian's and PyPI's packages, without a container engine."""
