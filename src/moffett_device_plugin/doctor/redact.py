"""Removes secrets, serial numbers and names from texts."""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Iterable
from dataclasses import dataclass, field

#: In place of a secret.
MASK = "[masked]"
_SECRETS = (
    re.compile(r"-----BEGIN [A-Z ]+-----.*?(?:-----END [A-Z ]+-----|\Z)", re.DOTALL),
    re.compile(r"\beyJ[\w-]{1,512}+\.[\w-]+(?:\.[\w-]*)?"),  # a JSON web token
    re.compile(
        r"\b(?:AKIA|ASIA)[0-9A-Z]{16}\b|\bgh[a-z]_\w{20,}|\bgithub_pat_\w+|\bxox[a-z]-[\w-]+"
    ),
    re.compile(r"(?i)(?<=\bbearer )\s*[^\s\"',]+"),
    re.compile(r"(?i)(?<=\bbasic )[a-z0-9+/=]{8,}"),
    re.compile(r"(?<=://)[^\s/@\"']+(?=@)"),  # user:password of a URL
    re.compile(  # a parameter of a URL, a variable, a field of JSON
        r"(?i)(?:(?<=token)|(?<=secret)|(?<=passwd)|(?<=password)|(?<=api[-_]key)|(?<=apikey)"
        r"|(?<=credential)|(?<=credentials)|(?<=authorization)|(?<=access[-_]key)"
        r"|(?<=private[-_]key)|(?<=signature))"
        r"(?:[\"']?\s*[=:]\s*)(?:\"[^\"]*\"|'[^']*'|[^\s&,;]+)"
    ),
    re.compile(  # long and random; matched from its beginning alone, which bounds the time
        r"(?<![A-Za-z0-9_+-])(?=[A-Za-z_+-]*[0-9])(?=[0-9_+-]*[A-Za-z])[A-Za-z0-9_+-]{40,}={0,2}"
    ),
)
_UUID = re.compile(r"\b[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9A-Za-z]{12,13}\b", re.I)
#: A flag and the word after it, also as items of a list.
_FLAG = re.compile(
    r"(?i)(?<![\w-])(--?[\w-]{0,40}?(?:token|secret|passwd|password|api-?key|credentials?"
    r"|access-key|private-key)[\"']?,?\s+)(\"[^\"\n]{0,999}\"|'[^'\n]{0,999}'|[^\s\"',]+)"
)
#: As the vendor's tools and the log write them, also of devices that are not listed.
_SERIAL = re.compile(
    r"(?im)(\b(?:serial(?:[ _-]?(?:number|no))?|s/?n)[\"']?\s*[:=]\s*[\"']?)([\w-]{6,})"
)
#: A serial in a table is a long number.
_LONG = re.compile(r"(?<![\w.])\d{12,14}(?![\w.])")


@dataclass(frozen=True, slots=True)
class Redactor:
    """`serials` and `names` are those that are known; both are replaced everywhere:
    serials by a word that is the same throughout one bundle and different in the next
    (they are numbers that could be guessed), names by numbers. Empty to keep them."""

    serials: frozenset[str] = frozenset()
    names: tuple[tuple[str, str], ...] = ()
    hide_serials: bool = True
    salt: bytes = field(default_factory=lambda: os.urandom(16))

    def __call__(self, text: str) -> str:
        for pattern in _SECRETS:
            text = pattern.sub(_masked, text)
        text = _FLAG.sub(lambda match: match[1] + MASK, text)
        if self.hide_serials:
            for serial in sorted(self.serials, key=len, reverse=True):
                text = _whole(serial).sub(self._word("serial", serial), text)
            text = _SERIAL.sub(lambda match: match[1] + self._word("serial", match[2]), text)
            text = _LONG.sub(lambda match: self._word("serial", match[0]), text)
            text = _UUID.sub(lambda match: self._word("uuid", match[0]), text)
        for name, instead in self.names:
            text = _whole(name).sub(instead, text)
        return text

    def _word(self, kind: str, value: str) -> str:
        if value.startswith(("serial-", "uuid-")):
            return value
        digest = hashlib.blake2b(value.lower().encode(), key=self.salt, digest_size=4).hexdigest()
        return f"{kind}-{digest}"


def stand_ins(kind: str, names: Iterable[str | None]) -> dict[str, str]:
    """`pod-1`, `pod-2`... for each name."""
    known = dict.fromkeys(name for name in names if name)
    return {name: f"{kind}-{number}" for number, name in enumerate(known, 1)}


def _whole(text: str) -> re.Pattern[str]:
    return re.compile(rf"(?<![A-Za-z0-9]){re.escape(text)}(?![A-Za-z0-9])")


def _masked(match: re.Match[str]) -> str:
    separator = re.match(r"[\"']?\s*[=:]\s*", match[0])
    return (separator[0] if separator else "") + MASK
