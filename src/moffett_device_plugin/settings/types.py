"""Types of options: how the text becomes a value, and the JSON schema of it."""

from __future__ import annotations

import math
import re
import shlex
import stat
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..runtime.errors import ConfigurationError

TRUE, FALSE = ("true", "yes", "on", "1"), ("false", "no", "off", "0")


@dataclass(frozen=True, slots=True)
class OptionType:
    """`parse` takes the key that the text came from, for its errors, and the text;
    `schema` is what a configuration file may have for it. `check` needs the machine that
    the value is for, and is left out where that is another one."""

    parse: Callable[[str, str], Any]
    schema: Mapping[str, Any]
    check: Callable[[str, Any], None] | None = None


#: The file's texts are read as they are written, also where YAML sees a number.
_TEXT = {"type": ["string", "number", "boolean"]}
#: What is written in quotes is read as well.
_QUOTED_SWITCH = "^({})$".format(
    "|".join(
        "".join(f"[{c.upper()}{c}]" for c in word) for word in (TRUE + FALSE) if word.isalpha()
    )
)


def _directory(key: str, text: str) -> Path:
    path = Path(text)
    if not path.is_absolute():
        raise ConfigurationError(key, text, "use an absolute path")
    return path


def _check_may_be_directory(key: str, path: Path) -> None:
    _check_directory(key, path, may_be_missing=True)


def _check_is_directory(key: str, path: Path) -> None:
    _check_directory(key, path, may_be_missing=False)


def _check_directory(key: str, path: Path, *, may_be_missing: bool) -> None:
    try:
        is_directory = stat.S_ISDIR(path.stat().st_mode)
    except FileNotFoundError:
        if may_be_missing:
            return
        raise ConfigurationError(key, str(path), "there is no such directory") from None
    except (OSError, ValueError) as error:  # may not be read, or is no path at all
        why = error.strerror if isinstance(error, OSError) else str(error)
        raise ConfigurationError(key, str(path), f"{why}") from None
    if not is_directory:
        raise ConfigurationError(key, str(path), "it is not a directory")


def _path(key: str, text: str) -> Path:
    return Path(text).absolute()


def _optional_path(key: str, text: str) -> Path | None:
    return Path(text).absolute() if text else None


def _socket(key: str, text: str) -> Path | None:
    if text == "none":
        return None
    if not Path(text).is_absolute():
        raise ConfigurationError(key, text, "use an absolute path, or none")
    return Path(text)


def _address(key: str, text: str) -> Any:
    from ..metrics.address import parse_address

    return parse_address(text, key)


def _command(key: str, text: str) -> str | None:
    if not text:
        return None
    try:
        words = shlex.split(text)
    except ValueError as error:
        raise ConfigurationError(key, text, f"{error}; write it as for a shell") from error
    return "" if words == ["none"] else text


def _globs(key: str, text: str) -> tuple[str, ...]:
    globs = tuple(part.strip() for part in text.split(",") if part.strip())
    for glob in globs:
        if not glob.startswith("/dev/"):
            raise ConfigurationError(key, glob, "use a pattern below /dev, such as /dev/spu-ctl*")
        _check_pattern(key, glob, glob)
    return globs


def _device_nodes(key: str, text: str) -> tuple[str, ...]:
    items = tuple(part.strip() for part in text.split(",") if part.strip())
    for item in items:
        name = item.removeprefix("!")
        if not name.startswith("/dev/") or re.search(r"[{}]", name.replace("{index}", "")):
            remedy = "use a node such as /dev/spu{index}, a glob such as /dev/spu-*, or !GLOB"
            raise ConfigurationError(key, item, remedy)
        _check_pattern(key, item, name)
    return items


def _check_pattern(key: str, text: str, pattern: str) -> None:
    from ..hardware.node_patterns import error_of

    if error := error_of(pattern):
        raise ConfigurationError(key, text, f"correct it: {error}")


def _cordon_targets(key: str, text: str) -> tuple[str, ...]:
    from ..devices.health.cordon import parse_targets

    targets, wrong = parse_targets(text)
    if wrong:
        remedy = "use the ID of a device or card as `devices` prints it, such as 0000:36:00.0"
        raise ConfigurationError(key, wrong[0], remedy)
    return targets


def _cards(key: str, text: str) -> tuple[str, ...]:
    from ..hardware.simulation import parse_spec

    return parse_spec(text, key) if text else ()


def _switch(key: str, text: str) -> bool:
    if text.lower() not in TRUE + FALSE:
        raise ConfigurationError(key, text, "use true or false")
    return text.lower() in TRUE


def _text(key: str, text: str) -> str:
    return text


DIRECTORY = OptionType(_directory, _TEXT, _check_may_be_directory)
EXISTING_DIRECTORY = OptionType(_path, _TEXT, _check_is_directory)
PATH = OptionType(_path, _TEXT)
OPTIONAL_PATH = OptionType(_optional_path, _TEXT)
SOCKET = OptionType(_socket, _TEXT)
ADDRESS = OptionType(_address, _TEXT)
COMMAND = OptionType(_command, _TEXT)
DEVICE_GLOBS = OptionType(
    _globs, {"type": "array", "items": {"type": "string", "pattern": r"^/dev/([^,]*[^,\s])?$"}}
)
_NODE_PATTERN = r"^!?/dev/[^{},\s]*({index}[^{},\s]*)*$"
DEVICE_NODES = OptionType(
    _device_nodes, {"type": "array", "items": {"type": "string", "pattern": _NODE_PATTERN}}
)
_BUS_ID_PATTERN = "([0-9a-fA-F]{1,8}:)?[0-9a-fA-F]{1,2}:[01]?[0-9a-fA-F]\\.[0-7]"
CORDON_TARGETS = OptionType(
    _cordon_targets,
    {
        "type": "array",
        "items": {"type": "string", "pattern": f"^(all|(card-)?{_BUS_ID_PATTERN})$"},
    },
)
CARDS = OptionType(_cards, _TEXT)
SWITCH = OptionType(
    _switch,
    {
        "anyOf": [
            {"type": "boolean"},
            {"enum": [0, 1, "0", "1"]},
            {"type": "string", "pattern": _QUOTED_SWITCH},
        ]
    },
)
TEXT = OptionType(_text, _TEXT)


def number_of(option_type: OptionType) -> str | None:
    """`integer` or `number`, for the types whose values are numbers."""
    first = option_type.schema.get("anyOf", [{}])[0].get("type")
    return first if first in ("integer", "number") else None


def seconds(least: float, most: float) -> OptionType:
    def parse(key: str, text: str) -> float:
        try:
            value = float(text.removesuffix("s") if text.isascii() and "_" not in text else "nan")
        except ValueError:
            value = math.nan
        if not least <= value <= most:
            remedy = f"use a number of seconds from {least:g} to {most:g}"
            raise ConfigurationError(key, text, remedy)
        return value

    number = {"type": "number", "minimum": least, "maximum": most}
    quoted = {"type": "string", "pattern": r"^[-+0-9.eE\s]+s?$"}
    return OptionType(parse, {"anyOf": [number, quoted]})


def _seconds_list(key: str, text: str) -> tuple[float, ...]:
    if text.strip() in ("", "none"):
        return ()
    times = tuple(_FLAPPING.parse(key, part.strip()) for part in text.split(","))
    if list(times) != sorted(times):
        raise ConfigurationError(key, text, "use times that do not become shorter")
    return times


_FLAPPING = seconds(0, 86_400)
_TIME = {"type": "number", "minimum": 0, "maximum": 86_400}
SECONDS_LIST = OptionType(
    _seconds_list,
    {
        "anyOf": [
            {"type": "string", "pattern": r"^(none|[-+0-9.eEs,\s]*)$"},
            _TIME,
            {"type": "array", "items": _TIME},
        ]
    },
)


def whole_number(least: int, most: int) -> OptionType:
    """None for an empty text: a limit that is not set."""

    def parse(key: str, text: str) -> int | None:
        if not text:
            return None
        plain = text.isascii() and text.isdecimal() and len(text) < 10
        if not plain or not least <= int(text) <= most:
            remedy = f"use a whole number from {least} to {most}"
            raise ConfigurationError(key, text, remedy)
        return int(text)

    number = {"type": "integer", "minimum": least, "maximum": most}
    return OptionType(parse, {"anyOf": [number, {"type": "string", "pattern": "^[0-9]+$"}]})


def one_of(allowed: tuple[str, ...]) -> OptionType:
    def parse(key: str, text: str) -> str:
        if text not in allowed:
            raise ConfigurationError(key, text, f"use one of {', '.join(allowed)}")
        return text

    return OptionType(parse, {"enum": list(allowed)})


def some_of(allowed: tuple[str, ...]) -> OptionType:
    """One or several, with commas between them, as a frozenset."""

    def parse(key: str, text: str) -> frozenset[str]:
        parts = [part.strip() for part in text.split(",") if part.strip()]
        for part in parts or [text]:
            if part not in allowed:
                raise ConfigurationError(key, part, f"use some of {', '.join(allowed)}")
        return frozenset(parts)

    each = {"enum": list(allowed)}
    return OptionType(parse, {"anyOf": [each, {"type": "array", "items": each}]})
