"""The kernel's own news of devices, over netlink."""

from __future__ import annotations

import socket

_KOBJECT_UEVENT = 15
_KERNEL_GROUP = 1


def open_uevents() -> socket.socket:
    """A non-blocking socket that receives kernel uevents. Raises OSError where
    netlink is not to be had. Needs no capability."""
    sock = socket.socket(
        socket.AF_NETLINK,
        socket.SOCK_DGRAM | socket.SOCK_CLOEXEC | socket.SOCK_NONBLOCK,
        _KOBJECT_UEVENT,
    )
    try:
        sock.bind((0, _KERNEL_GROUP))
    except OSError:
        sock.close()
        raise
    return sock


def concerns_devices(message: bytes) -> bool:
    """Whether a uevent can have changed SPUs: something on PCI, or a char device.

    A message is `action@devpath` and then `KEY=value` fields, split by NULs.
    Block devices, network queues and the like are left out, so that a busy host
    does not make the plugin rescan.
    """
    fields = message.split(b"\0")
    if b"SUBSYSTEM=pci" in fields:
        return True
    return any(field.startswith(b"DEVNAME=") for field in fields) and (
        b"SUBSYSTEM=block" not in fields
    )
