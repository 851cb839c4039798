"""The fault campaign: the real daemon on a fake host, and everything that can go wrong."""
