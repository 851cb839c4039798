"""The configuration: what is not valid, what has no effect, and what the running daemon has."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, fields
from difflib import get_close_matches
from itertools import pairwise
from pathlib import Path

from ..devices.health.cordon import without_device
from ..hardware.node_patterns import matches_any
from ..resources.pools import Resource, build_pools
from ..resources.selector import Selector
from ..settings.options import OPTIONS, RENAMED_VARIABLES
from .context import Context
from .findings import Finding, Findings, count, fail, ok, skip, some, warn

PREFIX = "SPU_"
#: Every setting that a variable can give.
NAMES = tuple(option.env for option in OPTIONS.values())


def settings(context: Context) -> Findings:
    """Values that are not valid stop the daemon's start: its pod is in CrashLoopBackOff."""
    if context.wrong_settings:
        return [
            fail(str(error), "correct it: the daemon does not start with it, or keeps the old")
            for error in context.wrong_settings
        ]
    chosen = sorted(name for name, given in context.given.items() if given.origin != "default")
    findings = [ok(f"valid; not the default: {some(chosen, 8) or 'none'}")]
    if context.by_labels:
        text = "parts of the configuration file are for nodes with certain labels, which are not"
        findings.append(skip(f"{text} known here: what they set for resources is not checked"))
    if context.cordon_error:
        remedy = "correct the file, or remove it; the plugin's log says what is in force"
        findings.append(fail(context.cordon_error, remedy))
    findings += [
        warn("is cordoned and is not on this node", "correct it, or `uncordon` it", cordon.target)
        for cordon in without_device(context.devices, context.cordons)
    ]
    findings += [
        warn(
            "matches no device node: it has no effect", "correct --control-device, or remove it", g
        )
        for g in context.hardware.control_devices
        if not any(matches_any(n.host_path, (g,)) for n in context.state.snapshot.control_nodes)
        and not context.simulated
    ]
    return findings


def resources(context: Context) -> Findings:
    """Selections without effect, and devices that are in no resource."""
    findings = [
        finding
        for resource in context.resources
        for key in ("select", "exclude")
        for finding in _selection(context, resource, key)
    ]
    pools, unassigned = build_pools(context.state, context.resources)
    findings += [
        warn(f"not advertised: {one.why}", "correct the resources of the configuration file", id)
        for one in unassigned
        for id in one.device_ids
    ]
    return findings or [
        ok(f"{pool.name} has {count(len(pool.advertised()), 'device')}") for pool in pools
    ]


def _selection(context: Context, resource: Resource, key: str) -> Iterator[Finding]:
    """A file can be for many nodes: a value that no device here has is wrong only where
    nothing is selected by it."""
    selector: Selector = getattr(resource, key)
    unknown = [device.id for device in context.present if device.serial is None]
    if selector.serials and unknown:
        text = f"{key} is by serial, and the serial is not known: see mx-smi"
        yield warn(f"{resource}: {text}", "make mx-smi work, or use busId in its place", *unknown)
    elif key == "select" and not any(map(selector.admits, context.devices)):
        values = sorted(value for f in fields(selector) for value in getattr(selector, f.name))
        text = f"{resource}: no device of this node is selected by {some(values)}"
        yield warn(text, "none if it is for other nodes; otherwise compare with devices -o json")


def variables(context: Context) -> Findings:
    """Variables with our prefix that do not exist: mistyped, they have no effect."""
    findings: list[Finding] = []
    for name in sorted(context.environment.variables):
        if not name.startswith(PREFIX) or name in NAMES or name in RENAMED_VARIABLES:
            continue
        near = get_close_matches(name, NAMES, 1)
        remedy = f"did you mean {near[0]}?" if near else "see docs/configuration.md"
        findings.append(warn("there is no such variable: it has no effect", remedy, name))
    return findings or ok(f"every {PREFIX}* variable exists")


@dataclass(frozen=True, slots=True)
class Running:
    """A daemon of this plugin that is visible to the doctor."""

    pid: int
    flags: tuple[str, ...]
    rss_kib: int | None


def daemon(context: Context) -> Findings:
    """Its flags are not the doctor's: they have to be given again."""
    running = list(running_daemons(context.environment.root / "proc"))
    if not running:
        return skip("no daemon is visible here (it is in another pod, or on the host)")
    findings: list[Finding] = []
    for one in running:
        size = "" if one.rss_kib is None else f", {one.rss_kib / 1024:.0f} MiB"
        text = f"process {one.pid}{size}"
        missing = [flag for flag in one.flags if flag not in context.arguments]
        if missing:
            text += f" was started with {' '.join(missing)}, the doctor was not"
            remedy = "give the doctor the same flags, or use variables for both"
            findings.append(warn(text, remedy))
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
    """Where `serve` is: `moffett-device-plugin serve`, or after `python -m`."""
    for at, (before, word) in enumerate(pairwise(words), 1):
        if word == "serve" and Path(before).name.replace("-", "_") == "moffett_device_plugin":
            return at
    return None


def _rss(status: str) -> int | None:
    for line in status.splitlines():
        name, _, value = line.partition(":")
        if name == "VmRSS":
            return int(value.split()[0])
    return None
