"""The command line: chooses a command, and imports only what that one needs."""

from __future__ import annotations

import os
import sys

from . import __version__
from .errors import ConfigurationError
from .settings import (
    HARDWARE_OPTIONS,
    HEALTH_OPTIONS,
    LOG_OPTIONS,
    SERVE_OPTIONS,
    Parser,
    Values,
    add_options,
)

PROGRAM = "moffett-device-plugin"


def build_parser() -> Parser:
    parser = Parser(prog=PROGRAM, description="Kubernetes Device Plugin for Moffett SPU cards.")
    parser.add_argument("--version", action="version", version=f"{PROGRAM} v{__version__}")
    # With `prog` argparse need not format a usage line for it (and import shutil).
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", required=True, prog=PROGRAM)

    serve = commands.add_parser("serve", help="run the plugin (the DaemonSet's entry point)")
    for options in (HARDWARE_OPTIONS, SERVE_OPTIONS, HEALTH_OPTIONS, LOG_OPTIONS):
        add_options(serve, options)

    devices = commands.add_parser("devices", help="print what the node has")
    devices.add_argument(
        "-o", "--output", choices=("table", "json"), default="table", help="(default: table)"
    )
    add_options(devices, HARDWARE_OPTIONS + HEALTH_OPTIONS)

    demo = commands.add_parser("demo", help="the whole story on a simulated node, in seconds")
    demo.add_argument("--json", action="store_true", help="print the events, one object a line")

    simulate = commands.add_parser("simulate", help="break and mend the devices of `--simulate`")
    from .commands.simulate import add_arguments

    add_arguments(simulate)
    return parser


def main(argv: list[str] | None = None) -> int:
    arguments = build_parser().parse_args(argv)
    values = Values(arguments, os.environ)
    try:
        match arguments.command:
            case "serve":
                from .commands.serve import run as run_serve

                return run_serve(values)
            case "devices":
                from .commands.devices import run as run_devices

                return run_devices(values, arguments.output)
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
