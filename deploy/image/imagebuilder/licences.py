"""Licences as SPDX expressions, as far as packages themselves tell.

What a package does not say in a way a program can read stays `NOASSERTION`; its notice is
in the image, beside its files.
"""

from __future__ import annotations

import re
from email.message import Message

UNKNOWN = "NOASSERTION"

# Short names of Debian's machine-readable copyright files, and of Python metadata.
_SPDX = {
    "3-clause bsd license": "BSD-3-Clause",
    "apache-2.0": "Apache-2.0",
    "artistic": "Artistic-1.0-Perl",
    "bsd-2-clause": "BSD-2-Clause",
    "bsd-3-clause": "BSD-3-Clause",
    "expat": "MIT",
    "gpl-1+": "GPL-1.0-or-later",
    "gpl-2": "GPL-2.0-only",
    "gpl-2+": "GPL-2.0-or-later",
    "gpl-3+": "GPL-3.0-or-later",
    "lgpl-2.1+": "LGPL-2.1-or-later",
    "mit": "MIT",
    "mit license": "MIT",
    "mpl-1.1": "MPL-1.1",
    "x11": "X11",
    "zlib": "Zlib",
}

_FORMAT = re.compile(r"\AFormat: \S*copyright-format/1\.0")
_LICENSE = re.compile(r"^License: *(\S.*)$", re.MULTILINE)
_CLASSIFIER = "License :: OSI Approved :: "


def of_debian(notice: str) -> tuple[str, tuple[str, ...]]:
    """Return the licences of a source package's files, and the names its notice has.

    They are joined by AND: which of the files end up in the binary package, the notice does
    not tell. The expression is `NOASSERTION` if the file is not machine-readable or has a
    name that is no licence of SPDX's list.
    """
    if not _FORMAT.match(notice):
        return UNKNOWN, ()
    names = tuple(sorted({name.strip() for name in _LICENSE.findall(notice)}))
    parts = []
    for name in names:
        choices = [_SPDX.get(choice.strip().lower()) for choice in name.split(" or ")]
        if None in choices:
            return UNKNOWN, names
        text = " OR ".join(str(choice) for choice in choices)
        parts.append(f"({text})" if len(choices) > 1 else text)
    return " AND ".join(dict.fromkeys(parts)) or UNKNOWN, names


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
