"""Errors that end a command with one line and a remedy."""

from .sanitize import sanitize

_MAX_SHOWN = 1000


class ConfigurationError(Exception):
    """An invalid setting. The text has the key, the value and the remedy.

    >>> str(ConfigurationError("--log-level", "loud", "use one of debug, info"))
    "--log-level: 'loud' is not valid: use one of debug, info"
    """

    def __init__(self, key: str, value: object, remedy: str) -> None:
        text = f"{_clipped(key)}: {_clipped(repr(value))} is not valid: {remedy}"
        super().__init__(sanitize(text))
        self.key = key
        self.value = value
        self.remedy = remedy


def _clipped(text: str) -> str:
    return text if len(text) <= _MAX_SHOWN else f"{text[:_MAX_SHOWN]}..."
