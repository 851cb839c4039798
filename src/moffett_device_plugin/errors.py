"""The errors that end a command, each one line that says what to do."""


class ConfigurationError(Exception):
    """A wrong setting. The text names the key, the value and the remedy.

    >>> str(ConfigurationError("--log-level", "loud", "use one of debug, info"))
    "--log-level: 'loud' is not valid: use one of debug, info"
    """

    def __init__(self, key: str, value: object, remedy: str) -> None:
        super().__init__(_one_line(f"{key}: {value!r} is not valid: {remedy}"))
        self.key = key
        self.value = value
        self.remedy = remedy


def _one_line(text: str) -> str:
    """What a file's author wrote is shown, and not acted upon by a terminal."""
    return "".join(c if c.isprintable() else repr(c)[1:-1] for c in text)
