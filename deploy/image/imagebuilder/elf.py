"""What a program or shared library (ELF, 64 bits, little-endian) is linked with.

The tables are read as the System V ABI describes them; only the dynamic section is.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

_MAGIC = b"\x7fELF\x02\x01"
_LOAD, _DYNAMIC = 1, 2
_NEEDED, _STRING_TABLE = 1, 5
_ENTRY_BYTES = 16


@dataclass(frozen=True, slots=True)
class Linked:
    """The machine (e_machine) and the sonames of the libraries that a file asks for."""

    machine: int
    needed: tuple[str, ...]


def read(content: bytes) -> Linked | None:
    """Return what an ELF file is linked with, or None if it is another kind of file."""
    if not content.startswith(_MAGIC):
        return None
    (machine,) = struct.unpack_from("<H", content, 18)
    (headers,) = struct.unpack_from("<Q", content, 32)
    size, count = struct.unpack_from("<HH", content, 54)
    loads: list[tuple[int, int, int]] = []
    dynamic: tuple[int, int] | None = None
    for index in range(count):
        kind, _, offset, address, _, length = struct.unpack_from(
            "<IIQQQQ", content, headers + index * size
        )
        if kind == _LOAD:
            loads.append((address, offset, length))
        elif kind == _DYNAMIC:
            dynamic = (offset, length)
    if dynamic is None:
        return Linked(machine, ())
    start, length = dynamic
    entries = list(
        struct.iter_unpack("<qQ", content[start : start + length // _ENTRY_BYTES * _ENTRY_BYTES])
    )
    address = next(value for tag, value in entries if tag == _STRING_TABLE)
    strings = next(o + address - a for a, o, n in loads if a <= address < a + n)
    names = (strings + value for tag, value in entries if tag == _NEEDED)
    return Linked(machine, tuple(_string(content, place) for place in names))


def _string(content: bytes, start: int) -> str:
    return content[start : content.index(b"\0", start)].decode()


def faults(root: Path, machine: int) -> Iterator[str]:
    """Yield what would keep programs and libraries below a root from being loaded."""
    found = {}
    for path in sorted(root.rglob("*")):
        if path.is_file() and not path.is_symlink() and (linked := read(path.read_bytes())):
            found[path] = linked
    there = {path.name for path in found}
    for path, linked in found.items():
        place = path.relative_to(root)
        if linked.machine != machine:
            yield f"/{place} is for another machine (ELF machine {linked.machine})"
        for name in linked.needed:
            if name not in there:
                yield f"/{place} needs {name}, which is not in the image"
