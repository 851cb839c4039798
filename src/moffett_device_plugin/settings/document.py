"""YAML text to values that know where they were written. Pure.

Scalars stay the text that was written: what it means is the setting's business, not
YAML's, for which `off` is a boolean and some bus ids are numbers to the base 60.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import yaml

from ..runtime.errors import ConfigurationError

MAX_BYTES = 1 << 20
#: A file of a few lines can mean billions of values by naming its parts over and over.
MAX_VALUES = 20_000
MAX_DEPTH = 20
_MOST = f"nest at most {MAX_DEPTH} levels and use at most {MAX_VALUES} values"


@dataclass(frozen=True, slots=True)
class Scalar:
    """`text` is empty for null and for nothing."""

    text: str
    line: int


@dataclass(frozen=True, slots=True)
class Sequence:
    items: tuple[Value, ...]
    line: int


@dataclass(frozen=True, slots=True)
class Section:
    """A mapping; `lines` has those of its keys."""

    entries: Mapping[str, Value]
    lines: Mapping[str, int]
    line: int


Value = Scalar | Sequence | Section
NOTHING = Section({}, {}, 1)


def parse(text: str, file: str) -> Section:
    """Raises ConfigurationError with file and line for whatever is no mapping in YAML."""
    if len(text.encode(errors="replace")) > MAX_BYTES:
        raise ConfigurationError(file, f"{len(text)} characters", "use at most 1 MiB")
    try:
        documents = list(yaml.compose_all(text, _Loader))
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        where = f"{file}:{mark.line + 1}" if mark else file
        line = text.splitlines()[mark.line].strip() if mark and _has(text, mark.line) else ""
        raise ConfigurationError(where, line, f"this is not YAML: {error.problem}") from None
    except yaml.YAMLError as error:
        problem = " ".join(str(error).split())
        raise ConfigurationError(file, "", f"this is not YAML: {problem}") from None
    except RecursionError:
        raise ConfigurationError(file, "", f"nest at most {MAX_DEPTH} levels") from None
    except _TooMuchError as error:
        raise ConfigurationError(f"{file}:{error}", "", _MOST) from None
    if len(documents) > 1:
        raise ConfigurationError(file, "---", "use one document")
    if not documents or documents[0] is None:
        return NOTHING
    value = _Reader(file).read(documents[0], 0)
    if isinstance(value, Section):
        return value
    if value == Scalar("", value.line):
        return NOTHING
    raise ConfigurationError(f"{file}:{value.line}", shown(value), "use a mapping: version: v1")


class _TooMuchError(Exception):
    """The text of so many values that reading it all would hold up the daemon."""


class _Loader(yaml.SafeLoader):
    """Composes only: no tag is ever acted upon."""

    def __init__(self, stream: str) -> None:
        super().__init__(stream)
        self._composed = 0

    def compose_node(self, parent: yaml.Node | None, index: int) -> yaml.Node | None:
        self._composed += 1
        if self._composed > 2 * MAX_VALUES:  # with their keys
            raise _TooMuchError(self.line + 1)
        return super().compose_node(parent, index)


def _has(text: str, line: int) -> bool:
    return line < len(text.splitlines())


def shown(value: Value) -> str:
    """For messages: the text of a scalar, else what it is."""
    match value:
        case Scalar(text=text):
            return text
        case Sequence():
            return "a list"
        case _:
            return "a mapping"


class _Reader:
    def __init__(self, file: str) -> None:
        self._file = file
        self._values = 0

    def read(self, node: yaml.Node, depth: int) -> Value:
        line = node.start_mark.line + 1
        self._values += 1
        if depth > MAX_DEPTH or self._values > MAX_VALUES:
            raise ConfigurationError(f"{self._file}:{line}", "", _MOST)
        if isinstance(node, yaml.ScalarNode):
            null = node.tag == "tag:yaml.org,2002:null"
            return Scalar("" if null else node.value, line)
        if isinstance(node, yaml.SequenceNode):
            return Sequence(tuple(self.read(item, depth + 1) for item in node.value), line)
        entries: dict[str, Value] = {}
        lines: dict[str, int] = {}
        for key, value in node.value:
            at = key.start_mark.line + 1
            where = f"{self._file}:{at}"
            if not isinstance(key, yaml.ScalarNode):
                raise ConfigurationError(where, "a list or mapping as key", "use a name")
            if key.value in entries:
                remedy = f"it is on line {lines[key.value]} already; say it once"
                raise ConfigurationError(where, key.value, remedy)
            entries[key.value] = self.read(value, depth + 1)
            lines[key.value] = at
        return Section(entries, lines, line)
