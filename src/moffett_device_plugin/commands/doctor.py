"""`doctor`: whether this node can run SPU pods, and if not, why."""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, TextIO

from ..runtime.errors import ConfigurationError
from ..settings.options import Values

if TYPE_CHECKING:
    from collections.abc import Iterator

    from ..doctor.context import Context
    from ..doctor.findings import Finding

#: Seconds for all that goes into the bundle.
GATHER_DEADLINE = 60.0
STDOUT = "-"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("-o", "--output", choices=("text", "json"), default="text", help="(default: text)")
    add(
        "--bundle",
        metavar="FILE.tgz",
        help="also write what a bug report needs to this file; - for standard output",
    )
    add("--log", metavar="FILE", help="for --bundle: the daemon's log, whose end goes in")
    add("--with-serials", action="store_true", help="for --bundle: leave serials and uuids in")
    add("--with-names", action="store_true", help="for --bundle: leave names of pods and hosts in")
    add(
        "--list-and-watch", action="store_true",
        help="also ask the running plugin for its list; it registers once more after that",
    )  # fmt: skip
    add("--no-open", action="store_true", help="do not try to open device nodes in a container")


def run(values: Values, arguments: argparse.Namespace) -> int:
    """0 when nothing fails, 1 when something does. `values` are not used: a variable that
    keeps the daemon from starting is a finding, not an error of the doctor."""
    from ..doctor.checks import ALL_CHECKS
    from ..doctor.examine import examine
    from ..doctor.run import run_checks
    from ..runtime.log import quiet

    quiet()
    _check_bundle(arguments)
    context = examine(arguments, os.environ, sys.argv[1:])
    # A bundle that goes to standard output has it for itself.
    out = sys.stderr if arguments.bundle == STDOUT else sys.stdout
    findings = _print(run_checks(ALL_CHECKS, context), out, as_json=arguments.output == "json")
    if arguments.bundle is not None and not _bundle(context, findings, arguments):
        return 1
    return 1 if any(finding.level == "fail" for finding in findings) else 0


def _print(found: Iterator[Finding], out: TextIO, *, as_json: bool) -> list[Finding]:
    from ..doctor import report

    findings: list[Finding] = []

    def noted() -> Iterator[Finding]:
        for finding in found:
            findings.append(finding)
            yield finding

    if as_json:
        print(report.as_json(list(noted())), file=out)
    elif out.isatty():
        from rich.console import Console

        screen = report.Screen(Console(file=out, highlight=False))
        for finding in report.in_order(noted()):
            screen.show(finding)
        screen.show_summary(findings)
    else:
        for finding in report.in_order(noted()):
            print(report.line(finding), file=out, flush=True)
        counts, failed = report.summary(findings)
        print(counts, *map(report.line, failed), sep="\n", file=out)
    return findings


def _check_bundle(arguments: argparse.Namespace) -> None:
    """Before any check: nobody waits for a file that cannot be written."""
    if arguments.bundle is None:
        for flag in ("--log", "--with-serials", "--with-names"):
            if getattr(arguments, flag[2:].replace("-", "_")):
                raise ConfigurationError("--bundle", "", f"{flag} is for a bundle: name its file")
        return
    if arguments.log is not None and not os.access(arguments.log, os.R_OK):
        raise ConfigurationError("--log", arguments.log, "it cannot be read")
    if arguments.bundle == STDOUT:
        if sys.stdout.isatty():
            raise ConfigurationError("--bundle", STDOUT, "redirect standard output to a file")
        return
    path = Path(arguments.bundle).absolute()
    if not path.parent.is_dir() or not os.access(path.parent, os.W_OK):
        raise ConfigurationError("--bundle", arguments.bundle, "its directory is not writable")
    if path.exists() and not path.is_file():
        raise ConfigurationError("--bundle", arguments.bundle, "that is not an ordinary file")


def _bundle(context: Context, findings: list[Finding], arguments: argparse.Namespace) -> bool:
    """Lists what it wrote on standard error: standard output may be JSON."""
    from ..doctor import bundle
    from ..doctor.facts import gather
    from ..doctor.run import start

    log = Path(arguments.log) if arguments.log else None
    redact = bundle.redactor_for(
        context, with_serials=arguments.with_serials, with_names=arguments.with_names
    )
    try:
        files = start(lambda: list(gather(context, findings, log)), GATHER_DEADLINE).result()
        if arguments.bundle == STDOUT:
            members = bundle.pack(sys.stdout.buffer, files, redact)
        else:
            members = bundle.write(Path(arguments.bundle).absolute(), files, redact)
    except TimeoutError:
        print(f"doctor: no bundle: timeout after {GATHER_DEADLINE:g} s", file=sys.stderr)
        return False
    except OSError as error:
        why = error.strerror or error
        print(f"doctor: no bundle: {arguments.bundle}: {why}", file=sys.stderr)
        return False
    print(f"{arguments.bundle} has:", file=sys.stderr)
    for member in members:
        cut = ", cut off" if member.cut else ""
        print(f"  {member.name} ({member.size} bytes{cut})", file=sys.stderr)
    kept = [
        what
        for what, left in (
            ("serials and uuids", arguments.with_serials),
            ("names of pods and hosts", arguments.with_names),
        )
        if left
    ]
    inside = f"; {' and '.join(kept)} are kept" if kept else ""
    print(f"known secrets are removed{inside}: look through it before you send it", file=sys.stderr)
    return True
