"""The kernel's own events of devices, over netlink."""

from __future__ import annotations

import fcntl
import os
import socket

_KOBJECT_UEVENT = 15
_KERNEL_GROUP = 1
_NS_GET_USERNS = 0xB701
_INITIAL_USER_NAMESPACE = 0xEFFFFFFD  # its inode number, the same on every kernel


def open_uevents() -> socket.socket:
    """A non-blocking socket that receives kernel uevents. Raises OSError where netlink
    is not available. Needs no capability."""
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


def reach(namespace: str = "/proc/self/ns/net") -> bool:
    """Whether uevents reach this network namespace: the kernel sends them to those that
    the initial user namespace owns. A socket in any other can be opened and bound, and
    receives nothing. True where the owner is not known: it is one above our own."""
    try:
        fd = os.open(namespace, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return True
    try:
        owner = fcntl.ioctl(fd, _NS_GET_USERNS)
    except OSError:
        return True
    finally:
        os.close(fd)
    try:
        return os.fstat(owner).st_ino == _INITIAL_USER_NAMESPACE
    finally:
        os.close(owner)


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
