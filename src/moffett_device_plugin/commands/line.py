"""The command line: reads it, and runs the command with only what that one imports."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from contextlib import nullcontext, suppress
from dataclasses import dataclass
from importlib import import_module
from typing import Any

from ..runtime.errors import ConfigurationError
from ..settings.options import OPTIONS, Values, check_variables
from .output import discard_output, exits_on_sigterm, prepare_streams
from .parser import Parser, flags_of, unknown_command, unknown_option

PROGRAM = "moffett-device-plugin"


@dataclass(frozen=True, slots=True)
class Command:
    """`settings`: whether it takes those of `serve`. `page` is of the manual."""

    help: str
    usage: str
    examples: tuple[str, ...]
    page: str
    settings: bool = True


COMMANDS = {
    "serve": Command(
        "run the plugin (the DaemonSet's entry point)",
        "[options]",
        ("serve --simulate 2xS30", "serve --config /etc/moffett-device-plugin/config.yaml"),
        "configuration.md",
    ),
    "devices": Command(
        "print the devices of the node",
        "[options]",
        ("devices", "devices --simulate 2xS30 -o json"),
        "use.md",
    ),
    "explain": Command(
        "show which devices a pod would get, and why",
        "--size N [options]",
        ("explain --size 2", "explain --size 3 --simulate 4xS30 --placement spread"),
        "placement.md",
    ),
    "config": Command(
        "check a configuration file, or show what it means on a node",
        "ACTION ...",
        ("config check config.yaml", "config show --config config.yaml --node-name train-1"),
        "configuration.md",
        settings=False,  # those of its actions
    ),
    "cordon": Command(
        "take devices or cards out of service; pods that have one keep it",
        "ID... [--reason TEXT] [options]",
        ("cordon 0000:36:00.0 --reason 'memory errors'", "cordon card-0000:34:00.0"),
        "health.md",
    ),
    "uncordon": Command(
        "put cordoned devices or cards back into service",
        "ID... [options]",
        ("uncordon 0000:36:00.0", "uncordon all"),
        "health.md",
    ),
    "doctor": Command(
        "check the node from the bottom up",
        "[options]",
        ("doctor", "doctor --bundle report.tgz"),
        "doctor.md",
    ),
    "top": Command(
        "show devices and the pods that hold them, live",
        "[options]",
        ("top --sort temp", "top --once -o json"),
        "use.md",
    ),
    "demo": Command(
        "show what the plugin does, on a simulated node, in seconds",
        "[options]",
        ("demo", "demo --json"),
        "quickstart.md",
        settings=False,
    ),
    "simulate": Command(
        "inject faults into a simulated node, and clear them",
        "ACTION [BUS_ID [FAULT]] [options]",
        (
            "simulate inject 0000:36:00.0 ecc --simulate 2xS30",
            "simulate status --simulate 2xS30",
        ),
        "quickstart.md",
    ),
    "completion": Command(
        "print a script by which a shell completes commands, options and values",
        "SHELL",
        (
            "completion bash > /etc/bash_completion.d/moffett-device-plugin",
            "completion fish > ~/.config/fish/completions/moffett-device-plugin.fish",
        ),
        "install.md",
        settings=False,
    ),
    "telemetry": Command(
        "run mx-smi for the plugin, in a container that has the monitoring resource",
        "[options]",
        ("telemetry", "telemetry --host-root /host"),
        "telemetry.md",
    ),
}


def build_parser(chosen: str | None = None) -> Parser:
    """With `chosen`, only that command's options are there: the daemon's start need
    not pay for those of the others."""
    parser = Parser(prog=PROGRAM, description="Kubernetes Device Plugin for Moffett SPU cards.")
    parser.add_argument(
        "--version",
        action=_Version,
        nargs=0,
        default=argparse.SUPPRESS,
        help="print version, commit and its date",
    )
    # With `prog` argparse need not format a usage line for it (and import shutil).
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", required=True, prog=PROGRAM)
    for name, command in COMMANDS.items():
        added = parser.commands[name] = commands.add_parser(
            name,
            help=command.help,
            description=command.help,
            usage=f"{PROGRAM} {name} {command.usage}",
            examples=command.examples,
            page=command.page,
        )
        if chosen in (None, name):
            if hasattr(module := _module(name), "add_arguments"):
                module.add_arguments(added)
            if command.settings:
                added.add_settings(explained=name == "serve")
    return parser


def _module(command: str) -> Any:
    return import_module(f".{command}", __package__)


class _Version(argparse.Action):
    """Looks the build up when it is asked for, which a node never does."""

    def __call__(self, parser: argparse.ArgumentParser, *_: object) -> None:
        from ..runtime.version import build

        print(f"{PROGRAM} {build()}")
        parser.exit()


def parse(words: Sequence[str]) -> argparse.Namespace:
    """Exits with 2 and one line for a wrong command line."""
    first = next((word for word in words if not word.startswith("-")), None)
    chosen = first if first in COMMANDS else None
    parser = build_parser(chosen)
    if words and words[0].startswith("-") and first is not None:
        parser.error(f"{words[0]}: a command comes first, its options after it")
    if first is not None and chosen is None:
        parser.error(unknown_command(first, list(COMMANDS)))
    arguments, rest = parser.parse_known_args(words)
    if rest:
        command = parser.commands[chosen] if chosen else parser
        known = flags_of(command) + (list(OPTIONS) if chosen == "config" else [])
        command.error(unknown_option(rest[0], known))
    return arguments


def run(words: Sequence[str]) -> int:
    """The code to exit with; what is wrong is one line on standard error."""
    prepare_streams()
    try:
        try:
            return _run(words)
        finally:
            sys.stdout.flush()
    except ConfigurationError as error:
        _complain(str(error))
        return 2
    except BrokenPipeError:  # whoever read the output has seen enough
        discard_output()
        return 141
    except OSError as error:
        discard_output()
        _complain(f"{error.filename or 'standard output'}: {error.strerror or error}")
        return 1


def _run(words: Sequence[str]) -> int:
    arguments = parse(words)
    command = arguments.command
    if command != "doctor":  # which reports a wrong variable as a finding
        check_variables(os.environ)
    values = Values(arguments, os.environ)
    # These have handlers of their own.
    with nullcontext() if command in ("serve", "telemetry") else exits_on_sigterm():
        code: int = _module(command).run(values, arguments)
    return code


def _complain(text: str) -> None:
    with suppress(OSError):
        print(f"{PROGRAM}: {text}", file=sys.stderr, flush=True)
