"""`completion`: a script by which a shell completes commands, options and values."""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from typing import Any

from ..runtime.errors import ConfigurationError
from ..settings import types
from ..settings.options import OPTIONS, Option, Values

SHELLS = ("bash", "zsh", "fish")
_DIRECTORIES = (types.DIRECTORY, types.EXISTING_DIRECTORY)
_FILES = (types.PATH, types.OPTIONAL_PATH, types.SOCKET)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("shell", metavar="SHELL", help=f"one of {', '.join(SHELLS)}")


def run(_: Values, arguments: argparse.Namespace) -> int:
    if arguments.shell not in SHELLS:
        raise ConfigurationError("SHELL", arguments.shell, f"use one of {', '.join(SHELLS)}")
    try:
        import shtab
    except ImportError:
        remedy = "it needs a package: pip install 'moffett-k8s-device-plugin[completion]'"
        raise ConfigurationError("SHELL", arguments.shell, remedy) from None
    from .line import build_parser

    parser = build_parser()
    for action in _actions(parser):
        if flags := [flag for flag in action.option_strings if flag in OPTIONS]:
            _explain(action, OPTIONS[flags[0]], shtab)
    print(shtab.complete(parser, arguments.shell))
    return 0


def _actions(parser: argparse.ArgumentParser) -> Iterator[argparse.Action]:
    """All of a parser's and of those of its commands."""
    for action in parser._actions:
        yield action
        if isinstance(action, argparse._SubParsersAction):
            for command in action.choices.values():
                yield from _actions(command)


def _explain(action: argparse.Action, option: Option, shtab: Any) -> None:
    """The help of most commands leaves the settings out; a shell shows them."""
    action.help = option.help.replace("%", "%%")
    schema = option.type.schema
    if option.type is types.SWITCH:
        action.choices = ("true", "false")
    elif allowed := schema.get("enum"):
        action.choices = allowed
    elif option.type in _DIRECTORIES:
        action.complete = shtab.DIRECTORY  # type: ignore[attr-defined]
    elif option.type in _FILES:
        action.complete = shtab.FILE  # type: ignore[attr-defined]
