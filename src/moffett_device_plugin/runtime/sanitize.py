"""Texts of others as people may be shown them. Pure."""

from __future__ import annotations


def sanitize(text: str) -> str:
    r"""The text in one line, and nothing in it that a terminal acts upon: what is not
    printable is written as an escape.

    >>> legible("a\x1b[2J\nb")
    'a\\x1b[2J\\nb'
    """
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else repr(c)[1:-1] for c in text)
