"""Who runs a program file: its script interpreter or its dynamic loader."""

from __future__ import annotations

import os
import struct
from dataclasses import dataclass
from pathlib import Path

_PT_INTERP = 3


@dataclass(frozen=True, slots=True)
class Interpreter:
    path: str
    is_script: bool
    arguments: tuple[str, ...] = ()


def interpreter_of(program: Path) -> Interpreter | None:
    """None for a static program, or one of no known format. Raises OSError."""
    # A pipe in its place is not waited for.
    fd = os.open(program, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    with os.fdopen(fd, "rb") as file:
        head = file.read(4096) or b""
    if head.startswith(b"#!"):
        words = head[2:].split(b"\n", 1)[0].decode(errors="replace").split(None, 1)
        arguments = tuple(word.strip() for word in words[1:])
        return Interpreter(words[0], True, arguments) if words else None
    return _elf_interpreter(head)


def _elf_interpreter(head: bytes) -> Interpreter | None:
    """The PT_INTERP segment of a 64-bit ELF file; it lies within the first page."""
    if head[:5] != b"\x7fELF\x02" or len(head) < 64:
        return None
    order = "<" if head[5] == 1 else ">"
    (offset,) = struct.unpack_from(order + "Q", head, 32)
    size, count = struct.unpack_from(order + "HH", head, 54)
    for i in range(count):
        at = offset + i * size
        if at + 56 > len(head):
            break
        (kind,) = struct.unpack_from(order + "I", head, at)
        if kind == _PT_INTERP:
            (start,) = struct.unpack_from(order + "Q", head, at + 8)
            (length,) = struct.unpack_from(order + "Q", head, at + 32)
            path = head[start : start + length].rstrip(b"\0").decode(errors="replace")
            return Interpreter(path, False) if path else None
    return None
