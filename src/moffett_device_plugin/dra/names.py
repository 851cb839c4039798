"""The names by which Kubernetes knows the driver and its devices. Pure.

They are public for ever: in slices, classes, claims and taints.
"""

from __future__ import annotations

import re
from binascii import crc32

DRIVER = "spu.moffett.ai"
#: The kind of the CDI devices that claims have.
CLAIM_KIND = f"{DRIVER}/claim"
#: The key of a taint is this and the code of the reason.
TAINT_PREFIX = f"{DRIVER}/"
PARAMETERS_API = f"{DRIVER}/v1alpha1"
PARAMETERS_KIND = "SpuConfig"

_LABEL = re.compile(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?")
_LONGEST = 63
_BUS_ID = re.compile(r"([0-9a-f]+):([0-9a-f]{2}):([0-9a-f]{2})\.([0-7])")


def device_name(device_id: str) -> str:
    """The name of a chip or card in a slice, which is a DNS label.

    A bus id, or the id of a card, has the one that reads like it; any other id gets a
    checksum, so that no two ids have one name.

    >>> device_name("0000:36:00.0"), device_name("card-0000:34:00.0")
    ('0000-36-00-0', 'card-0000-34-00-0')
    """
    plain = re.sub(r"[^a-z0-9]+", "-", device_id.lower()).strip("-")
    if _BUS_ID.fullmatch(device_id.removeprefix("card-")) and len(plain) <= _LONGEST:
        return plain
    checksum = f"x{crc32(device_id.encode(errors='surrogateescape')):08x}"
    kept = plain[: _LONGEST - len(checksum) - 1].rstrip("-")
    return f"{kept}-{checksum}" if _LABEL.fullmatch(kept) else checksum


def pool_name(node: str) -> str:
    """Each node is a pool of its own."""
    return node


def taint_key(code: str) -> str:
    """The key of the taint for a reason of the health rules.

    >>> taint_key("bus-gone")
    'spu.moffett.ai/bus-gone'
    """
    return TAINT_PREFIX + code
