"""The command line as argparse has it: options in groups, errors of one line."""

from __future__ import annotations

import argparse
import re
from collections.abc import Iterable, Sequence
from typing import Any, NoReturn

from ..settings.options import (
    CONFIG_OPTION,
    HARDWARE_OPTIONS,
    HEALTH_OPTIONS,
    INTEGRATION_OPTIONS,
    LOG_OPTIONS,
    MONITORING_OPTIONS,
    OPTIONS,
    RENAMED_FLAGS,
    RESOURCE_OPTIONS,
    SERVE_OPTIONS,
    Option,
)

_NODE_NAME, _KUBELET = OPTIONS["--node-name"], ("--kubelet-dir", "--pod-resources-socket")
#: The groups of the help, by title.
GROUPS: dict[str, tuple[Option, ...]] = {
    "configuration": (CONFIG_OPTION, _NODE_NAME),
    "hardware": HARDWARE_OPTIONS,
    "health": HEALTH_OPTIONS,
    "resources": (*RESOURCE_OPTIONS, *MONITORING_OPTIONS),
    "kubelet": tuple(OPTIONS[flag] for flag in _KUBELET),
    "daemon": tuple(
        option
        for option in (*SERVE_OPTIONS, *INTEGRATION_OPTIONS, *LOG_OPTIONS)
        if option is not _NODE_NAME and option.flag not in _KUBELET
    ),
}


class Parser(argparse.ArgumentParser):
    """Errors are one line, and an option is known by its whole name only."""

    def __init__(self, **settings: Any) -> None:
        super().__init__(
            formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False, **settings
        )
        #: The parser of each command.
        self.commands: dict[str, Parser] = {}

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"{self.prog}: {message}; see {self.prog} --help\n")


def add_settings(parser: argparse.ArgumentParser, shown: Iterable[str] = GROUPS) -> None:
    """Adds every setting of `serve`, so that a command can be given the daemon's own
    options. The help has the groups in `shown`."""
    shown = tuple(shown)
    for title, options in GROUPS.items():
        if title in shown:
            add_options(parser.add_argument_group(title), options)
        else:
            add_options(parser, options, hidden=True)


def add_options(
    parser: argparse._ActionsContainer, options: tuple[Option, ...], *, hidden: bool = False
) -> None:
    for option in options:
        default = f", default {option.default}" if option.default else ""
        parser.add_argument(
            option.flag,
            metavar=option.metavar,
            action="append" if option.repeatable else "store",
            help=argparse.SUPPRESS if hidden else f"{option.help} [{option.env}{default}]",
        )


def epilog(program: str, examples: Iterable[str], page: str, *, hidden: bool = False) -> str:
    """What stands below the options: examples, and where the manual is."""
    lines = ["examples:", *(f"  {program} {example}" for example in examples), ""]
    if hidden:
        lines += [f"All other settings of `{program} serve` can be given as well.", ""]
    return "\n".join([*lines, f"Each option is also a variable. Manual: docs/{page}"])


def unknown_command(word: str, commands: Sequence[str]) -> str:
    if word == "conform":
        return (
            "there is no command conform: it is a program of its own, device-plugin-conform,"
            " of the distribution device-plugin-conformance"
        )
    return f"there is no command {word}" + _hint(
        word, commands, f"; use one of {', '.join(commands)}"
    )


def unknown_option(word: str, known: Sequence[str]) -> str:
    """What to say of a word that no option has taken; `known` are the command's own."""
    flag = word.partition("=")[0]
    if flag in RENAMED_FLAGS:
        return f"there is no option {flag}: its name is now {RENAMED_FLAGS[flag]}"
    if not flag.startswith("-"):
        return f"unexpected argument {word!r}"
    return f"there is no option {flag}" + _hint(flag, known, "")


def flags_of(parser: Parser) -> list[str]:
    """The options that its help shows."""
    return re.findall(r"(?<!\S)--[a-z-]+", parser.format_help())


def _hint(word: str, known: Sequence[str], otherwise: str) -> str:
    from difflib import get_close_matches  # for errors only

    near = get_close_matches(word, known, 1)
    return f"; did you mean {near[0]}?" if near else otherwise
