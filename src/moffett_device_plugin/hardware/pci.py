"""PCI bus ids, in the ways that tools write them. Pure."""

from __future__ import annotations

import re

_BUS_ID = re.compile(
    r"(?:([0-9a-f]{1,8}):)?([0-9a-f]{1,2}):([0-9a-f]{1,2})\.([0-7])", re.IGNORECASE
)

VENDOR_MOFFETT = 0x1F36
BASE_CLASS_ACCELERATOR = 0x12
#: The switch on a multi-chip card: vendor and device of both its kinds of port.
ON_CARD_SWITCH = (0x11F8, 0x4068)
#: Known to carry several functions behind an on-card switch (and to be an S30).
DEVICE_S30 = 0x7030
PRODUCTS = {DEVICE_S30: "S30"}
#: Drivers that keep a function for something else than its own driver.
_PASSTHROUGH = frozenset(
    {"igb_uio", "pci-pf-stub", "pci-stub", "pciback", "uio_pci_generic", "xen-pciback"}
)


def sysfs_bus_id(text: str) -> str | None:
    """`0:3a:00.0`, `3A:00.0` and `0000:3a:00.0` are all `0000:3a:00.0`; None if none.

    >>> sysfs_bus_id("0:3a:00.0")
    '0000:3a:00.0'
    """
    match = _BUS_ID.fullmatch(text.strip())
    if match is None:
        return None
    domain, bus, device, function = match.groups()
    if int(device, 16) > 0x1F:
        return None
    return f"{int(domain or '0', 16):04x}:{int(bus, 16):02x}:{int(device, 16):02x}.{function}"


def bus_order(bus_id: str) -> tuple[int, ...]:
    """Sorts bus ids as the hardware numbers them, also beyond four-digit domains."""
    domain, bus, rest = bus_id.split(":")
    device, function = rest.split(".")
    return (int(domain, 16), int(bus, 16), int(device, 16), int(function))


def is_passthrough(driver: str | None) -> bool:
    """Whether this driver hands a function to a virtual machine or to user space."""
    return driver is not None and ("vfio" in driver or driver in _PASSTHROUGH)
