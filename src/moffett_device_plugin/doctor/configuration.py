"""The configuration: what the variables say, and what the running daemon was told."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path

from ..settings.options import CONFIG_OPTION, FILE_OPTIONS, RESOURCE_OPTIONS
from .context import Context
from .findings import Finding, fail, ok, skip, some, warn

PREFIX = "SPU_"
#: Every setting that a variable can give.
NAMES = tuple(option.env for option in (CONFIG_OPTION, *RESOURCE_OPTIONS, *FILE_OPTIONS))


def settings(context: Context) -> Iterable[Finding]:
    """Values that cannot be stop the daemon's start: its pod is in CrashLoopBackOff."""
    if context.wrong_settings:
        return [
            fail(str(error), "correct it: the daemon does not start with it, or keeps the old")
            for error in context.wrong_settings
        ]
    chosen = sorted(name for name, given in context.given.items() if given.origin != "default")
    findings = [ok(f"valid; not by default: {some(chosen, 8) or 'nothing'}")]
    if context.by_labels:
        findings.append(
            warn(
                "parts of the configuration file hold for nodes with certain labels",
                "the doctor does not ask the API server for labels: where such a part holds, what"
                " it says of resources is not looked at here",
            )
        )
    return findings


def variables(context: Context) -> Iterable[Finding]:
    """Variables that look like ours and are none: mistyped, they would do nothing."""
    findings: list[Finding] = []
    for name in sorted(context.environment.variables):
        if not name.startswith(PREFIX) or name in NAMES:
            continue
        near = get_close_matches(name, NAMES, 1)
        remedy = f"did you mean {near[0]}?" if near else "see docs/configuration.md"
        findings.append(warn("there is no such variable: it does nothing", remedy, name))
    return findings or [ok("no variable of ours is mistyped")]


@dataclass(frozen=True, slots=True)
class Running:
    """A daemon of this plugin that runs where the doctor can see it."""

    pid: int
    flags: tuple[str, ...]
    rss_kib: int | None


def daemon(context: Context) -> Iterable[Finding]:
    """Its flags are not the doctor's: what they say has to be said again."""
    running = list(running_daemons(context.environment.root / "proc"))
    if not running:
        return [skip("no daemon is to be seen from here (another pod, or the host)")]
    findings: list[Finding] = []
    for one in running:
        size = "" if one.rss_kib is None else f", {one.rss_kib / 1024:.0f} MiB"
        text = f"process {one.pid}{size}"
        unsaid = [flag for flag in one.flags if flag not in context.arguments]
        if unsaid:
            findings.append(
                warn(
                    f"{text} was started with {' '.join(unsaid)}, the doctor was not",
                    "give the doctor the same flags, or use variables for both",
                )
            )
        else:
            findings.append(ok(text))
    return findings


def running_daemons(proc: Path) -> Iterator[Running]:
    for folder in sorted(proc.glob("[0-9]*"), key=lambda path: int(path.name)):
        try:
            words = (folder / "cmdline").read_bytes().decode(errors="replace").split("\0")[:-1]
            status = (folder / "status").read_text(errors="replace")
        except OSError:
            continue
        at = _serve_at(words)
        if at is not None:
            yield Running(int(folder.name), tuple(words[at + 1 :]), _rss(status))


def _serve_at(words: list[str]) -> int | None:
    """Where `serve` stands: `moffett-device-plugin serve`, or after `python -m`."""
    for at, word in enumerate(words):
        before = Path(words[at - 1]).name.replace("-", "_") if at else ""
        if word == "serve" and before == "moffett_device_plugin":
            return at
    return None


def _rss(status: str) -> int | None:
    for line in status.splitlines():
        name, _, value = line.partition(":")
        if name == "VmRSS":
            return int(value.split()[0])
    return None
