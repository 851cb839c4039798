"""Makes text from outside safe to print. Pure."""

from __future__ import annotations


def sanitize(text: str) -> str:
    r"""The text in one line without terminal control sequences: characters that are not
    printable become escapes.

    >>> sanitize("a\x1b[2J\nb")
    'a\\x1b[2J\\nb'
    """
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else repr(c)[1:-1] for c in text)
