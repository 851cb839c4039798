"""The command line as argparse has it: options in groups, errors of one line."""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NoReturn

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

if TYPE_CHECKING:
    from _typeshed import SupportsWrite

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
    """Errors are one line, and an option is known by its whole name only. The help ends
    with `examples`, and with the `page` of the manual."""

    def __init__(self, examples: Sequence[str] = (), page: str = "", **settings: Any) -> None:
        super().__init__(
            formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False, **settings
        )
        self._optionals.title = "this command"
        self._examples = examples
        self._page = page
        #: How the help has the settings of `serve`; None where they are not taken.
        self._explained: bool | None = None
        #: The parser of each command.
        self.commands: dict[str, Parser] = {}

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"{self.prog}: {message}; see {self.prog} --help\n")

    def format_help(self) -> str:
        return f"{super().format_help()}\n{self._below()}" if self._page else super().format_help()

    def print_help(self, file: SupportsWrite[str] | None = None) -> None:
        (file or sys.stdout).write(self.format_help())  # argparse drops what goes wrong

    def _below(self) -> str:
        """What stands below the options."""
        from textwrap import fill

        program = self.prog.partition(" ")[0]
        lines = ["examples:", *(f"  {program} {example}" for example in self._examples), ""]
        if self._explained is False:
            lines.append(f"settings, as in `{program} serve --help`, which explains them:")
            for title, options in GROUPS.items():
                flags = " ".join(option.flag for option in options)
                lines.append(
                    fill(flags, 78, initial_indent=f"  {title:<15}", subsequent_indent=" " * 17,
                         break_on_hyphens=False)
                )  # fmt: skip
            lines.append("")
        variables = "" if self._explained is None else "Each setting is also a variable. "
        return "\n".join([*lines, f"{variables}Manual: docs/{self._page}\n"])

    def add_settings(self, explained: bool) -> None:
        """Every setting of `serve`, so that a command can be given the daemon's own options;
        the help explains them, or has only their names."""
        self._explained = explained
        for title, options in GROUPS.items():
            group = self.add_argument_group(title) if explained else self
            add_options(group, options, hidden=not explained)


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


def unknown_command(word: str, commands: Sequence[str]) -> str:
    if word == "conform":
        return (
            "there is no command conform: it is a program of its own, device-plugin-conform,"
            " of the distribution device-plugin-conformance"
        )
    return f"there is no command {word!r}" + _hint(
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
