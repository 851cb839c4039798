"""The command line: chooses a command, and imports only what that one needs."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable

from .runtime.errors import ConfigurationError
from .settings.options import (
    CONFIG_OPTION,
    FILE_OPTIONS,
    HARDWARE_OPTIONS,
    HEALTH_OPTIONS,
    RESOURCE_OPTIONS,
    Parser,
    Values,
    add_options,
)

PROGRAM = "moffett-device-plugin"
CONFORM = "device-plugin-conform, of the distribution device-plugin-conformance"


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
    for name, (help_text, add_arguments) in COMMANDS.items():
        command = commands.add_parser(name, help=help_text)
        if chosen in (None, name):
            add_arguments(command)
    return parser


class _Version(argparse.Action):
    """Looks the build up when it is asked for, which a node never does."""

    def __call__(self, parser: argparse.ArgumentParser, *_: object) -> None:
        from .runtime.version import build

        print(f"{PROGRAM} {build()}")
        parser.exit()


def _add_serve(parser: argparse.ArgumentParser) -> None:
    add_options(parser, (CONFIG_OPTION, *RESOURCE_OPTIONS, *FILE_OPTIONS))


def _add_devices(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "-o", "--output", choices=("table", "json"), default="table", help="(default: table)"
    )
    add_options(parser, HARDWARE_OPTIONS + HEALTH_OPTIONS)


def _add_explain(parser: argparse.ArgumentParser) -> None:
    from .commands.explain import add_arguments

    add_arguments(parser)


def _add_config(parser: argparse.ArgumentParser) -> None:
    from .commands.config import add_arguments

    add_arguments(parser)


def _add_doctor(parser: argparse.ArgumentParser) -> None:
    from .commands.doctor import add_arguments

    add_arguments(parser)


def _add_top(parser: argparse.ArgumentParser) -> None:
    from .commands.top import add_arguments

    add_arguments(parser)


def _add_demo(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--json", action="store_true", help="print the events, one object a line")


def _add_simulate(parser: argparse.ArgumentParser) -> None:
    from .commands.simulate import add_arguments

    add_arguments(parser)


COMMANDS: dict[str, tuple[str, Callable[[argparse.ArgumentParser], None]]] = {
    "serve": ("run the plugin (the DaemonSet's entry point)", _add_serve),
    "devices": ("print what the node has", _add_devices),
    "explain": ("show which devices a pod would get, and why", _add_explain),
    "config": ("check a configuration file, or show what it comes to", _add_config),
    "doctor": ("check the node from the bottom up", _add_doctor),
    "top": ("live devices by card, and which pods hold them", _add_top),
    "demo": ("the whole story on a simulated node, in seconds", _add_demo),
    "simulate": ("break and mend the devices of a simulated node", _add_simulate),
}


def main(argv: list[str] | None = None) -> int:
    words = sys.argv[1:] if argv is None else argv
    if words[:1] == ["conform"]:
        print(f"{PROGRAM}: conform is now a program of its own: {CONFORM}", file=sys.stderr)
        return 2
    arguments = build_parser(next((w for w in words if w in COMMANDS), None)).parse_args(words)
    values = Values(arguments, os.environ)
    try:
        match arguments.command:
            case "serve":
                from .commands.serve import run as run_serve

                return run_serve(values)
            case "devices":
                from .commands.devices import run as run_devices

                return run_devices(values, arguments.output)
            case "explain":
                from .commands.explain import run as run_explain

                return run_explain(values, arguments)
            case "config":
                from .commands.config import run as run_config

                return run_config(values, arguments)
            case "doctor":
                from .commands.doctor import run as run_doctor

                return run_doctor(values, arguments)
            case "top":
                from .commands.top import run as run_top

                return run_top(values, arguments)
            case "demo":
                from .commands.demo import run as run_demo

                return run_demo(as_json=arguments.json)
            case _:
                from .commands.simulate import run as run_simulate

                return run_simulate(values, arguments)
    except ConfigurationError as error:
        print(f"{PROGRAM}: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        return 130


if __name__ == "__main__":
    sys.exit(main())
