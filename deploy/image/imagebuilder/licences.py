"""Licences as SPDX expressions, as far as packages themselves tell.

What a package does not say in a way a program can read stays `NOASSERTION`; its notice is
in the image, beside its files.
"""

from __future__ import annotations

import re
from email.message import Message

UNKNOWN = "NOASSERTION"

# What packages without a licence expression write instead.
_SPDX = {
    "3-clause bsd license": "BSD-3-Clause",
    "apache-2.0": "Apache-2.0",
    "mit": "MIT",
    "mit license": "MIT",
}

_FORMAT = re.compile(r"\AFormat: \S*copyright-format/1\.0")
_LICENSE = re.compile(r"^License: *(\S.*)$", re.MULTILINE)
_CLASSIFIER = "License :: OSI Approved :: "


def in_notice(notice: str) -> tuple[str, ...]:
    """Return the licences that a Debian copyright file names, if a program can read it.

    They are those of all files of the source, its tests and build scripts too.
    """
    if not _FORMAT.match(notice):
        return ()
    return tuple(sorted({name.strip() for name in _LICENSE.findall(notice)}))


def of_python(metadata: Message) -> str:
    """Return the licence of a Python package by its core metadata."""
    if expression := metadata.get("License-Expression"):
        return str(expression)
    names = [str(metadata.get("License", ""))]
    names += [
        str(value).removeprefix(_CLASSIFIER)
        for value in metadata.get_all("Classifier", [])
        if str(value).startswith(_CLASSIFIER)
    ]
    return next((_SPDX[name.lower()] for name in names if name.lower() in _SPDX), UNKNOWN)
