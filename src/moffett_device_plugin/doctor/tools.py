"""SOLA and mx-smi."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from ..devices.health.rules import MINIMUM_SOLA
from ..hardware import sola
from ..hardware.mxsmi import ALL_FIELDS, CORE_FIELDS, GarbageError, parse_select, version_of
from ..hardware.process import CommandError, Runner, tool_environment
from ..hardware.smi_command import FIELD_STYLES, Launch, launch_of
from .context import Context
from .findings import Finding, count, fail, ok, skip, warn

_CAP_SYS_CHROOT = 18
#: What the ways to write a list of fields are called.
STYLES = ("-f a b", "-f a,b", "-f {a,b}")


def sola_version(context: Context) -> Iterable[Finding]:
    version = context.state.snapshot.sola_version
    parsed, minimum = version_of(version), version_of(MINIMUM_SOLA)
    if version is None:
        return [
            warn(
                "neither mx-smi nor /usr/local/sola tells a version",
                "mount the host's / and set SPU_HOST_ROOT to where; if SOLA is not installed on"
                f" the host, install {MINIMUM_SOLA} or later",
            )
        ]
    if parsed is None or minimum is None:
        return [warn(f"{version!r} is no version", f"see that it is {MINIMUM_SOLA} or later")]
    if parsed < minimum:
        remedy = f"upgrade the SOLA Toolkit to {MINIMUM_SOLA} or later"
        return [fail(f"SOLA {version} is too old: every device is unhealthy", remedy)]
    return [ok(f"SOLA {version}, at least {MINIMUM_SOLA}")]


def sola_agrees(context: Context) -> Iterable[Finding]:
    """What mx-smi says and what is installed: they differ after half an upgrade."""
    snapshot = context.state.snapshot
    said, installed = snapshot.smi_sola_version, snapshot.installed_sola_version
    if said is None or installed is None:
        what = "mx-smi" if said is None else f"the link {sola.SOLA}"
        return [skip(f"there is nothing to compare: {what} tells no version")]
    if version_of(said) != version_of(installed):
        return [
            warn(
                f"mx-smi says SOLA {said}, and {sola.SOLA} leads to {installed}",
                "end the upgrade on the host: the link, the driver and mx-daemon have to be of"
                " one version; restart mx-daemon or the host",
            )
        ]
    return [ok(f"mx-smi and {sola.SOLA} agree on {said}")]


@dataclass(frozen=True, slots=True)
class Answer:
    """One run of mx-smi. `error` is None when it ended with status 0; `ended` is False
    when it could not be run, or had to be killed."""

    words: tuple[str, ...]
    output: str
    seconds: float
    error: str | None = None
    ended: bool = True


def launch(context: Context) -> Launch | None:
    """How the daemon starts mx-smi on this node; None when there is none."""
    can_chroot = bool(context.environment.capabilities >> _CAP_SYS_CHROOT & 1)
    return launch_of(context.hardware.host_root, context.hardware.smi, can_chroot=can_chroot)


def ask(launched: Launch, words: Sequence[str], deadline: float) -> Answer:
    """Runs it once. `deadline` is in seconds; after that it is killed."""
    root = launched.chroot

    def change_root() -> None:
        os.chroot(root or "/")
        os.chdir("/")

    began = time.monotonic()
    try:
        finished = asyncio.run(
            Runner().run(
                (*launched.argv, *words),
                deadline,
                env=tool_environment(),
                before_exec=change_root if root else None,
            )
        )
    except CommandError as error:
        return Answer(tuple(words), "", time.monotonic() - began, str(error), False)
    wrong = None if finished.status == 0 else f"it ended with status {finished.status}"
    return Answer(tuple(words), finished.output, time.monotonic() - began, wrong)


def mx_smi(context: Context) -> Iterable[Finding]:
    if context.simulated:
        error = context.state.snapshot.smi.error
        if error is None:
            return [ok("simulated, and answers")]
        return [warn(error, "heal the simulated node: simulate heal node")]
    launched = launch(context)
    if launched is None:
        if context.hardware.smi == "":
            return [skip("it is not to be used (--mx-smi none)")]
        return [
            warn(
                f"there is no {context.on_host('/usr/bin/mx-smi')}: no serials, temperatures, ECC",
                "install SOLA on the host, or in a container mount the host's / and set"
                " SPU_HOST_ROOT to where",
            )
        ]
    return list(_try_forms(launched, context))


def _try_forms(launched: Launch, context: Context) -> Iterable[Finding]:
    """Every way to ask, until one works: what the daemon does at its first run."""
    how = " by a change of root" if launched.chroot else ""
    refusals: list[str] = []
    for fields in (ALL_FIELDS, CORE_FIELDS):
        for style, name in zip(FIELD_STYLES, STYLES, strict=True):
            answer = ask(launched, ("select", *style(fields)), context.hardware.smi_timeout)
            if answer.error is None:
                try:
                    report = parse_select(answer.output)
                except GarbageError as error:
                    refusals.append(f"{name}: {error}")
                    continue
                yield from _evaluate(answer, report.bad_rows, len(report.devices), name, how)
                if fields is CORE_FIELDS:
                    yield warn(
                        "it refuses some of the fields that the plugin asks for",
                        "it is older than SOLA 3.5.0: what it does not know is missing from"
                        " devices and metrics; upgrade SOLA",
                    )
                return
            if not answer.ended:  # however it is asked
                yield fail(
                    f"{' '.join(launched.argv)}{how}: {answer.error}",
                    "run it by hand on the host; if it hangs there, look at dmesg and mx-daemon;"
                    " if only here, give the pod privileged: true or CAP_SYS_CHROOT",
                )
                return
            said = " ".join(answer.output.split())[:120]
            refusals.append(f"{name}: {answer.error}: {said!r}")
    yield fail(
        f"it takes no form of the question; the first: {refusals[0]}",
        "run mx-smi select -f index pci.bus_id on the host and see what it says",
    )


def _evaluate(answer: Answer, bad_rows: int, rows: int, form: str, how: str) -> Iterable[Finding]:
    text = f"answers in {answer.seconds * 1000:.0f} ms{how}, asked as {form!r}: "
    text += count(rows, "device")
    if bad_rows:
        yield warn(f"{text}, and {count(bad_rows, 'row')} without sense", "run it by hand")
    elif answer.seconds > 2:
        yield warn(text, "it is slow: look at the load of the host, and at mx-daemon's log")
    else:
        yield ok(text)
