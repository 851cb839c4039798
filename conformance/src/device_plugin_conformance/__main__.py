"""`device-plugin-conform`: checks any device plugin against the device plugin API, and
against what kubelets do."""

from __future__ import annotations

import argparse
import asyncio
import json
import shlex
import shutil
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict
from difflib import get_close_matches
from importlib.metadata import version
from pathlib import Path
from typing import NoReturn

from moffett_device_plugin.runtime.errors import ConfigurationError

from .checks import CHECKS, Check, name_of, subject_of
from .default_path import NOT_PERMITTED, WRAPPER
from .outcome import LEVELS
from .output import describe, lines, progress
from .rig import Options
from .suite import run_suite

PROGRAM = "device-plugin-conform"


class _Parser(argparse.ArgumentParser):
    """An argument parser whose errors are one line."""

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"{self.prog}: {message}; see {self.prog} --help\n")


def build_parser() -> argparse.ArgumentParser:
    parser = _Parser(
        prog=PROGRAM,
        usage="%(prog)s [options] -- COMMAND ARGS...",
        description="Check any Kubernetes device plugin against a fake kubelet.",
    )
    add = parser.add_argument
    add(
        "plugin", nargs="*", metavar="COMMAND",
        help="the plugin and its arguments; {dir} is the kubelet's directory, {tmp} a folder"
        " for anything else; in --inject and --heal also {pid}",
    )  # fmt: skip
    add("--version", action="version", version=f"%(prog)s {version('device-plugin-conformance')}")
    add(
        "--env", action="append", default=[], metavar="NAME=VALUE",
        help="a variable for the plugin, such as DEVICE_PLUGIN_PATH={dir}; repeatable",
    )  # fmt: skip
    add(
        "--at-default-path", action="store_true",
        help="let the plugin, and no other process, see the directory at"
        " /var/lib/kubelet/device-plugins (needs root)",
    )  # fmt: skip
    add("--resource", default="", metavar="NAME", help="which one to check (default: the first)")
    add("--inject", default="", metavar="COMMAND", help="makes one device fail")
    add("--heal", default="", metavar="COMMAND", help="makes it healthy again")
    add(
        "--timeout", default="15", metavar="SECONDS",
        help="the limit for each answer of the plugin (default: 15)",
    )  # fmt: skip
    add(
        "--grace", default="30", metavar="SECONDS",
        help="the limit for its end after SIGTERM (default: 30, as in Kubernetes)",
    )  # fmt: skip
    add("--only", action="append", default=[], metavar="CHECK", help="repeatable")
    add("--skip", action="append", default=[], metavar="CHECK", help="repeatable")
    add("--list", action="store_true", help="print the checks, and the rule of each")
    add("--plugin-log", metavar="FILE", help="keep what the plugin prints")
    add("-o", "--output", choices=("table", "json"), default="table", help="(default: table)")
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """0 when nothing failed, 1 when something did, 2 for a wrong option."""
    arguments = build_parser().parse_args(argv)
    try:
        return run(arguments)
    except ConfigurationError as error:
        print(f"{PROGRAM}: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        return 130


def run(arguments: argparse.Namespace) -> int:
    checks = _chosen(arguments.only, arguments.skip)
    as_json = arguments.output == "json"
    if arguments.list:
        rows = describe(checks)
        print(json.dumps(rows, indent=2, ensure_ascii=False) if as_json else lines(rows))
        return 0
    options = _options(arguments)
    log = Path(arguments.plugin_log).absolute() if arguments.plugin_log else None
    with progress(len(checks), quiet=as_json) as (started, finished):
        results = asyncio.run(run_suite(options, checks, started, finished, log))
    counts: Counter[str] = Counter(result.level for result in results)
    if as_json:
        summary = {level: counts[level] for level in LEVELS}
        described = [asdict(result) for result in results]
        report = {"command": options.command, "results": described, "summary": summary}
        print(json.dumps(report, indent=2, ensure_ascii=False))
    else:
        print(
            f"{len(results)} checks: {counts['pass']} passed, {counts['fail']} failed,"
            f" {counts['info']} reported, {counts['skip']} skipped"
        )
    return 1 if counts["fail"] else 0


def _options(arguments: argparse.Namespace) -> Options:
    if not arguments.plugin:
        raise ConfigurationError("COMMAND", "", "write the plugin's command line after --")
    program = arguments.plugin[0]
    if shutil.which(program) is None:
        raise ConfigurationError("COMMAND", program, "there is no such program")
    if bool(arguments.inject) != bool(arguments.heal):
        key, value = (
            ("--inject", arguments.inject) if arguments.inject else ("--heal", arguments.heal)
        )
        raise ConfigurationError(key, value, "--inject and --heal go together")
    if arguments.at_default_path:
        trial = [*WRAPPER, tempfile.gettempdir(), "true"]
        done = subprocess.run(trial, capture_output=True, text=True, check=False)
        if done.returncode == NOT_PERMITTED:
            raise ConfigurationError(
                "--at-default-path", done.stderr.strip(), "run it as root, with CAP_SYS_ADMIN"
            )
    return Options(
        command=tuple(arguments.plugin),
        environment=dict(_variable(text) for text in arguments.env),
        at_default_path=arguments.at_default_path,
        resource=arguments.resource,
        timeout=_seconds("--timeout", arguments.timeout),
        grace=_seconds("--grace", arguments.grace),
        inject_command=_command("--inject", arguments.inject),
        heal_command=_command("--heal", arguments.heal),
    )


def _chosen(only: Sequence[str], skip: Sequence[str]) -> list[Check]:
    known = {name_of(check) for check in CHECKS} | {subject_of(check) for check in CHECKS}
    for key, names in (("--only", only), ("--skip", skip)):
        for name in names:
            if name not in known:
                near = get_close_matches(name, known, 1, cutoff=0.0)
                raise ConfigurationError(key, name, f"see --list; the nearest is {near[0]}")
    return [
        check
        for check in CHECKS
        if (not only or {name_of(check), subject_of(check)} & set(only))
        and not {name_of(check), subject_of(check)} & set(skip)
    ]


def _variable(text: str) -> tuple[str, str]:
    name, separator, value = text.partition("=")
    if not (name and separator):
        raise ConfigurationError("--env", text, "write NAME=VALUE")
    return name, value


def _seconds(key: str, text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if not 0.1 <= value <= 600:
        raise ConfigurationError(key, text, "use a number of seconds from 0.1 to 600")
    return value


def _command(key: str, text: str) -> tuple[str, ...]:
    try:
        return tuple(shlex.split(text))
    except ValueError as error:
        raise ConfigurationError(key, text, f"{error}; write it as for a shell") from error


if __name__ == "__main__":
    sys.exit(main())
