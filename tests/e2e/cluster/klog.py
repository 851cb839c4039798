"""What a component of Kubernetes wrote to its log, and when."""

from __future__ import annotations

import re
import time
from datetime import datetime

_LINE = re.compile(r"^[IWEF](\d{4} \d\d:\d\d:\d\d\.\d{6}) ")


def moments(log: str, phrase: str) -> list[float]:
    """Return the seconds since the epoch of every line that has the phrase."""
    found = []
    for line in log.splitlines():
        match = _LINE.match(line)
        if match and phrase in line:
            # The line has the local time, and no year.
            text = f"{time.localtime().tm_year}{match[1]}"
            found.append(datetime.strptime(text, "%Y%m%d %H:%M:%S.%f").astimezone().timestamp())
    return found
