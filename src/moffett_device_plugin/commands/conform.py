"""`conform`: holds any device plugin to the device plugin API, and to what kubelets do."""

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
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..runtime.errors import ConfigurationError
from ..settings.options import Values

# What checks and what draws is imported when that is done: the parser of every
# command's help comes by here.
if TYPE_CHECKING:
    from ..conformance.checks import Check
    from ..conformance.outcome import Result
    from ..conformance.rig import Options

COLOURS = {"pass": "green", "fail": "red", "info": "cyan", "skip": "yellow"}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    parser.usage = "%(prog)s [options] -- COMMAND ARGS..."
    add(
        "plugin", nargs="*", metavar="COMMAND",
        help="the plugin and its arguments; {dir} is the kubelet's directory, {tmp} a folder"
        " for anything else; in --break and --mend also {pid}",
    )  # fmt: skip
    add(
        "--env", action="append", default=[], metavar="NAME=VALUE",
        help="a variable for the plugin, such as DEVICE_PLUGIN_PATH={dir}; repeatable",
    )  # fmt: skip
    add(
        "--at-default-path", action="store_true",
        help="let the plugin, and nobody else, see the directory at"
        " /var/lib/kubelet/device-plugins (needs root)",
    )  # fmt: skip
    add("--resource", default="", metavar="NAME", help="which one to check (default: the first)")
    add("--break", dest="break_", default="", metavar="COMMAND", help="makes one device fail")
    add("--mend", default="", metavar="COMMAND", help="makes it well again")
    add(
        "--timeout", default="15", metavar="SECONDS",
        help="how long the plugin may take for anything (default: 15)",
    )  # fmt: skip
    add(
        "--grace", default="30", metavar="SECONDS",
        help="how long it may take to end after SIGTERM (default: 30, as Kubernetes' own)",
    )  # fmt: skip
    add("--only", action="append", default=[], metavar="CHECK", help="repeatable")
    add("--skip", action="append", default=[], metavar="CHECK", help="repeatable")
    add("--list", action="store_true", help="print the checks and the rule that each is about")
    add("--plugin-log", metavar="FILE", help="keep what the plugin prints")
    add("-o", "--output", choices=("table", "json"), default="table", help="(default: table)")


def run(values: Values, arguments: argparse.Namespace) -> int:
    """0 when nothing failed, 1 when something did."""
    from ..conformance.suite import run_suite

    checks = _chosen(arguments.only, arguments.skip)
    if arguments.list:
        _print_list(checks, arguments.output)
        return 0
    options = _options(arguments)
    log = Path(arguments.plugin_log).absolute() if arguments.plugin_log else None
    as_json = arguments.output == "json"
    started, finished, end = _silent() if as_json else _teller(len(checks))
    try:
        results = asyncio.run(run_suite(options, checks, started, finished, log))
    finally:
        end()
    counts: Counter[str] = Counter(result.level for result in results)
    if as_json:
        described = [asdict(result) for result in results]
        summary = {level: counts[level] for level in COLOURS}
        report = {"command": options.command, "results": described, "summary": summary}
        print(json.dumps(report, indent=2, ensure_ascii=False))
    else:
        print(
            f"{len(results)} checks: {counts['pass']} passed, {counts['fail']} failed,"
            f" {counts['info']} reported, {counts['skip']} skipped"
        )
    return 1 if counts["fail"] else 0


# -- from the command line ------------------------------------------------------------


def _options(arguments: argparse.Namespace) -> Options:
    from ..conformance.default_path import NOT_PERMITTED, WRAPPER
    from ..conformance.rig import Options

    if not arguments.plugin:
        raise ConfigurationError("COMMAND", "", "say how the plugin is started, after --")
    program = arguments.plugin[0]
    if shutil.which(program) is None:
        raise ConfigurationError("COMMAND", program, "there is no such program")
    if bool(arguments.break_) != bool(arguments.mend):
        key, value = (
            ("--break", arguments.break_) if arguments.break_ else ("--mend", arguments.mend)
        )
        raise ConfigurationError(key, value, "--break and --mend go together")
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
        break_command=_command("--break", arguments.break_),
        mend_command=_command("--mend", arguments.mend),
    )


def _chosen(only: Sequence[str], skip: Sequence[str]) -> list[Check]:
    from ..conformance.checks import CHECKS, name_of, subject_of

    known = {name_of(check) for check in CHECKS} | {subject_of(check) for check in CHECKS}
    for key, names in (("--only", only), ("--skip", skip)):
        for name in names:
            if name not in known:
                from difflib import get_close_matches

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


# -- for people -----------------------------------------------------------------------

Teller = tuple[Callable[[str], object], "Callable[[Result], object]", Callable[[], object]]


def _silent() -> Teller:
    return (lambda _: None), (lambda _: None), (lambda: None)


def _teller(count: int) -> Teller:
    """Tells each result as it comes: to a terminal with colours and what runs now."""
    if not sys.stdout.isatty():
        return (lambda _: None), (lambda r: print(_line(r), flush=True)), (lambda: None)
    from rich.console import Console
    from rich.markup import escape

    console = Console(highlight=False)
    status = console.status("")
    status.start()
    done = 0

    def started(name: str) -> None:
        status.update(f"[dim]{done + 1} of {count}:[/] {name}")

    def finished(result: Result) -> None:
        nonlocal done
        done += 1
        took = "" if result.measured_ms is None else f"{result.measured_ms:.1f} ms"
        colour = COLOURS[result.level]
        console.print(
            f"[{colour}]{result.level}[/]  {result.check:<29}[dim]{took:>12}[/]  "
            + escape(result.detail),
            soft_wrap=True,
        )

    return started, finished, status.stop


def _line(result: Result) -> str:
    took = "" if result.measured_ms is None else f"{result.measured_ms:.1f} ms"
    return f"{result.level}  {result.check:<29}{took:>12}  {' '.join(result.detail.split())}"


def _print_list(checks: Sequence[Check], output: str) -> None:
    from ..conformance.checks import name_of, rule_of, subject_of

    rows: list[dict[str, Any]] = [
        {"check": name_of(check), "subject": subject_of(check), "rule": rule_of(check)}
        for check in checks
    ]
    if output == "json":
        print(json.dumps(rows, indent=2, ensure_ascii=False))
        return
    subject = ""
    for row in rows:
        if row["subject"] != subject:
            subject = row["subject"]
            print(f"{subject}:")
        print(f"  {row['check']}\n      {row['rule']}")
