"""CDI's rules for names: kinds, devices, and the annotation that asks for them. Pure.

https://github.com/cncf-tags/container-device-interface/blob/main/SPEC.md; where the
specification and the library that engines use differ, a name has to satisfy both.
"""

from __future__ import annotations

import re
from binascii import crc32
from collections.abc import Sequence

from ..runtime.errors import ConfigurationError

DEFAULT_KIND = "moffett.ai/spu"
#: The device that stands for all devices of a node.
ALL = "all"
ANNOTATION_PREFIX = "cdi.k8s.io/"
MAX_ANNOTATION_NAME = 63  # Kubernetes' limit for what follows the slash

_LABEL = r"[a-z0-9]([-a-z0-9]*[a-z0-9])?"
# A DNS subdomain (the specification) that starts with a letter (the library).
_VENDOR = re.compile(rf"(?=[a-z]){_LABEL}(\.{_LABEL})*")
_CLASS = re.compile(r"[A-Za-z]([-A-Za-z0-9_.]*[A-Za-z0-9])?")
_DEVICE = re.compile(r"[A-Za-z0-9]([-A-Za-z0-9_.:]*[A-Za-z0-9])?")


class IllegalNameError(ValueError):
    """A name that CDI engines refuse; the text says which, and what is allowed."""


def check_kind(kind: str, key: str = "--cdi-kind") -> str:
    """Raises ConfigurationError unless every engine accepts `kind` (VENDOR/CLASS)."""
    try:
        split_kind(kind)
    except IllegalNameError:
        raise ConfigurationError(
            key, kind, f"use VENDOR/CLASS, a domain and a word, such as {DEFAULT_KIND}"
        ) from None
    return kind


def split_kind(kind: str) -> tuple[str, str]:
    """The vendor and the class. Raises IllegalNameError."""
    vendor, _, class_name = kind.partition("/")
    legal_vendor = len(vendor) <= 253 and _VENDOR.fullmatch(vendor)
    legal_class = len(class_name) <= 63 and _CLASS.fullmatch(class_name)
    if not (legal_vendor and legal_class):
        raise IllegalNameError(f"{kind!r} is no CDI kind: VENDOR/CLASS, such as {DEFAULT_KIND}")
    return vendor, class_name


def device_name(device_id: str) -> str:
    """The CDI name of a device or card: its id, which for a bus id is legal as it is.

    An id that CDI does not allow, or that means something else there, gets a name that
    does not move, and that no other id gets: what is illegal becomes `_`, and a
    checksum of the id follows.

    >>> device_name("0000:36:00.0"), device_name("spu/0")
    ('0000:36:00.0', 'spu_0-75906fe4')
    """
    if _DEVICE.fullmatch(device_id) and device_id != ALL:
        return device_id
    plain = re.sub(r"[^A-Za-z0-9_.:-]", "_", device_id).lstrip("_.:-")
    return f"{plain or 'device'}-{crc32(device_id.encode(errors='surrogateescape')):08x}"


def qualified(kind: str, name: str) -> str:
    """What an engine is asked for. Raises IllegalNameError.

    >>> qualified("moffett.ai/spu", "0000:36:00.0")
    'moffett.ai/spu=0000:36:00.0'
    """
    split_kind(kind)
    if not _DEVICE.fullmatch(name):
        raise IllegalNameError(f"{name!r} is no CDI device name: letters, digits and -_.: inside")
    return f"{kind}={name}"


def annotation(plugin_name: str, key: str, devices: Sequence[str]) -> tuple[str, str]:
    """The annotation by which a container asks for `devices`, which are qualified names.

    `key` distinguishes this request from others of the same plugin for the same container; the
    resource's name does, as the kubelet allocates each resource once for a container.
    Raises IllegalNameError for a device that is no qualified name, or for none at all:
    an engine refuses the container of an annotation that it cannot read.

    >>> annotation("moffett-device-plugin", "moffett.ai/spu", ["moffett.ai/spu=all"])
    ('cdi.k8s.io/moffett-device-plugin_moffett.ai_spu', 'moffett.ai/spu=all')
    """
    if not devices:
        raise IllegalNameError("an annotation has to ask for one device at least")
    for device in devices:
        kind, equals, name = device.partition("=")
        if not equals:
            raise IllegalNameError(f"{device!r} is no qualified CDI name: KIND=NAME")
        qualified(kind, name)
    return ANNOTATION_PREFIX + _annotation_name(f"{plugin_name}_{key}"), ",".join(devices)


def _annotation_name(wanted: str) -> str:
    name = re.sub(r"[^A-Za-z0-9_.-]", "_", wanted).strip("_.-")
    if name == wanted.replace("/", "_") and len(name) <= MAX_ANNOTATION_NAME:
        return name
    # Something was lost: a checksum keeps two such names apart.
    checksum = f"{crc32(wanted.encode(errors='surrogateescape')):08x}"
    kept = name[: MAX_ANNOTATION_NAME - len(checksum) - 1].rstrip("_.-")
    return f"{kept}-{checksum}" if kept else checksum
