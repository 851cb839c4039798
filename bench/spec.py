"""What is to be measured: plugins as command lines with placeholders."""

from __future__ import annotations

import shlex
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Plugin:
    """A plugin as it was given on the command line.

    `fault` is a command that makes the device `{id}` fail, for a plugin that does not
    read the fake host root; `directory` is a kubelet directory that the plugin
    has built in; `image_bytes` is the size of its image, if known.
    """

    name: str
    command: str
    fault: str | None = None
    directory: Path | None = None
    image_bytes: int | None = None

    @property
    def reads_host(self) -> bool:
        return "{host}" in self.command


@dataclass(frozen=True, slots=True)
class Plan:
    """How often and how long everything is measured. Times are in seconds."""

    rounds: int = 5
    allocates: int = 2000
    warm_up: int = 200
    idle: float = 60.0
    settle: float = 5.0
    timeout: float = 30.0


@dataclass(frozen=True, slots=True)
class Environment:
    """What the placeholders stand for in one run of one plugin."""

    devices: int
    directory: Path
    host: Path
    scratch: Path

    def values(self) -> Mapping[str, str]:
        return {
            "{dir}": str(self.directory),
            "{devices}": str(self.devices),
            "{spec}": simulated(self.devices),
            "{host}": str(self.host),
            "{scratch}": str(self.scratch),
        }


@dataclass(frozen=True, slots=True)
class Request:
    """Everything that one call of the benchmark does."""

    plugins: tuple[Plugin, ...]
    counts: tuple[int, ...]
    plan: Plan
    baseline: str
    work: Path
    labels: Mapping[str, str] = field(default_factory=dict)


def simulated(devices: int) -> str:
    """The layout of `devices` devices as a value of --simulate: S30 cards if they fit.

    >>> simulated(24), simulated(1000)
    ('8xS30', '1000xS4')
    """
    return f"{devices // 3}xS30" if devices % 3 == 0 else f"{devices}xS4"


def arguments(command: str, environment: Environment, **more: str) -> list[str]:
    """The argument vector of `command`, with the placeholders filled in.

    They are filled in after the words are split, so no value is split again; other
    braces (of YAML or JSON, say) stay as they are.
    """
    values = {**environment.values(), **{f"{{{key}}}": value for key, value in more.items()}}
    return [_filled(word, values) for word in shlex.split(command)]


def _filled(word: str, values: Mapping[str, str]) -> str:
    for key, value in values.items():
        word = word.replace(key, value)
    return word


def named(options: Iterable[str], what: str) -> dict[str, str]:
    """`NAME=VALUE` options as a dictionary. Raises ValueError with a readable text."""
    found: dict[str, str] = {}
    for option in options:
        name, equals, value = option.partition("=")
        if not equals or not name or not value:
            raise ValueError(f"{what} {option!r}: use NAME=VALUE")
        if name in found:
            raise ValueError(f"{what} {name!r} is given twice")
        found[name] = value
    return found
