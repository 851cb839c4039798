"""The kinds of machine an image can be for, and what Debian, PyPI and ELF call them.

An image for another machine than this one is made of that machine's packages, and none of
its programs is run for it.
"""

from __future__ import annotations

import platform
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Architecture:
    """One kind of machine.

    `name` is what Debian, Docker and OCI say; `machine` what the kernel and wheels say;
    `elf` is the e_machine of its programs; `loader` is the dynamic loader's place below
    the image's root.
    """

    name: str
    machine: str
    elf: int
    loader: str

    @property
    def triplet(self) -> str:
        """Return the name of Debian's folder of shared libraries."""
        return f"{self.machine}-linux-gnu"

    @property
    def is_native(self) -> bool:
        """Return whether this machine runs its programs."""
        return self.machine == platform.machine()

    @property
    def emulator(self) -> str:
        """Return the program that runs its programs on other machines (qemu-user-static)."""
        return f"qemu-{self.machine}-static"


AMD64 = Architecture("amd64", "x86_64", 62, "usr/lib64/ld-linux-x86-64.so.2")
ARM64 = Architecture("arm64", "aarch64", 183, "usr/lib/ld-linux-aarch64.so.1")

ARCHITECTURES = {each.name: each for each in (AMD64, ARM64)}


def native() -> Architecture:
    """Return this machine's kind."""
    for each in ARCHITECTURES.values():
        if each.is_native:
            return each
    raise SystemExit(f"build: there is no image for {platform.machine()} machines")
