"""Kubernetes Device Plugin for Moffett SPU accelerator cards."""

__version__ = "0.2.0"
