"""Asks mx-smi: finds out how it wants to be asked, and asks so from then on."""

from __future__ import annotations

import os
import shlex
import time
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TypeVar

from ..runtime.resource_exhausted import is_resource_exhausted
from . import SmiError
from .elf import interpreter_of
from .mxsmi import (
    ALL_FIELDS,
    CORE_FIELDS,
    OPTIONAL_GROUPS,
    GarbageError,
    parse_query,
    parse_select,
)
from .process import CommandError, Runner, tool_environment
from .resolve import HostRoot
from .sysfs import read_text
from .types import SmiReport

T = TypeVar("T")
_Style = Callable[[Sequence[str]], list[str]]
#: Seconds until fields that were refused are asked for again.
RETRY_SECONDS = 600.0
#: The indexes that the vendor's tools take.
MAX_DEVICES = 32

#: How a list of fields may be written. The manual's `-f {index,board}` is what a
#: shell turns into separate words; it does not say which form mx-smi itself takes.
FIELD_STYLES: tuple[_Style, ...] = (
    lambda fields: ["-f", *fields],
    lambda fields: ["-f", ",".join(fields)],
    lambda fields: ["-f", "{" + ",".join(fields) + "}"],
)
MX_SMI = "/usr/bin/mx-smi"
#: Where SOLA and the distribution keep libraries, below a host root.
LIBRARY_FOLDERS = (
    "/usr/local/sola/lib",
    "/usr/local/sola/lib64",
    "/usr/local/lib",
    "/lib64",
    "/usr/lib64",
    "/lib/x86_64-linux-gnu",
    "/usr/lib/x86_64-linux-gnu",
    "/lib/aarch64-linux-gnu",
    "/usr/lib/aarch64-linux-gnu",
    "/lib",
    "/usr/lib",
)


@dataclass(frozen=True, slots=True)
class _Form:
    """A question: `select` with these fields, in a style; without one, `query`."""

    style: _Style | None
    fields: tuple[str, ...] = ()

    @property
    def refused(self) -> tuple[str, ...]:
        if self.style is None:
            return ()
        return tuple(name for name in ALL_FIELDS if name not in self.fields)


#: In the order in which they are tried.
FORMS = (
    *(_Form(style, fields) for fields in (ALL_FIELDS, CORE_FIELDS) for style in FIELD_STYLES),
    _Form(None),
)


@dataclass(frozen=True, slots=True)
class Launch:
    """How to start mx-smi: its argument vector, and the directory to chroot to."""

    argv: tuple[str, ...]
    chroot: str | None = None


def launch_of(host_root: Path, command: str | None, *, can_chroot: bool) -> Launch | None:
    """The command that was configured, or the host root's own mx-smi; None if none.

    A program below another root finds its libraries there in one of two ways: by
    a change of root (needs CAP_SYS_CHROOT), or by the host's own dynamic loader,
    told where its libraries are.
    """
    if command is not None:
        return Launch(tuple(shlex.split(command))) if command.strip() else None
    host = HostRoot(host_root)
    program = host.see(MX_SMI)
    try:
        if not os.access(program, os.X_OK):
            return None
        interpreter = interpreter_of(program)
    except OSError as error:
        if is_resource_exhausted(error):  # it is there: let the run say what is wrong
            return Launch((str(program),))
        return None
    if str(host_root) == "/" or interpreter is None:
        return Launch((str(program),))
    loader = host.see(interpreter.path)
    if not loader.exists():  # a script for this side's interpreter, or a partial tree
        return Launch((str(program),))
    if can_chroot:
        return Launch((MX_SMI,), chroot=str(host_root))
    if interpreter.is_script:
        return Launch((str(loader), *interpreter.arguments, str(program)))
    folders = ":".join(_library_folders(host))
    return Launch((str(loader), "--library-path", folders, str(program)))


def _library_folders(host: HostRoot) -> Iterable[str]:
    text = read_text(str(host.see("/etc/ld.so.conf.d/sola.conf"))) or ""
    listed = [line.strip() for line in text.splitlines() if line.startswith("/")]
    for folder in dict.fromkeys([*listed, *LIBRARY_FOLDERS]):
        if (seen := host.see(folder)).is_dir():
            yield str(seen)


class SmiCommand:
    """One mx-smi, asked again and again.

    The first good answer settles the form of the question. An mx-smi that stops
    understanding it (an upgrade, a fault) is asked the same again each time, and
    one other form beside it, so that a broken tool costs two runs and no more.

    Fields that it refuses are asked for again when it is another program or version,
    when it lists other devices (a card came up), and every RETRY_SECONDS.
    """

    def __init__(
        self,
        find: Callable[[], Launch | None],
        deadline: float,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._find = find
        self._deadline = deadline
        self._clock = clock
        self._runner = Runner()
        self._form: _Form | None = None  # the one that was answered
        self._tried = 0  # forms tried since the last good answer
        self._answerer: object = None  # who gave the last answer, and of which devices
        self._retry_at = 0.0

    @property
    def present(self) -> bool:
        return self._find() is not None

    async def query(self) -> SmiReport:
        """Raises SmiError, in one line that says what was wrong."""
        launch = self._find()
        if launch is None:
            raise SmiError("there is no mx-smi")
        try:
            report = await self._query(launch)
        except (CommandError, _RefusedError) as error:
            raise SmiError(str(error)) from error
        self._tried = 0
        form = self._form
        if form is None or not form.refused:
            return report
        answerer = _identity(launch, report)
        if answerer != self._answerer or self._clock() >= self._retry_at:
            if self._answerer is not None:
                report = await self._ask_for_more(launch, form, report)
            self._answerer = _identity(launch, report)
            self._retry_at = self._clock() + RETRY_SECONDS
        return replace(report, refused=self._form.refused if self._form else ())

    async def _query(self, launch: Launch) -> SmiReport:
        refusal: _RefusedError | None = None
        if self._form is not None:
            try:
                return await self._ask(launch, self._form)
            except _RefusedError as error:
                refusal = error
        # Every form in the first round, one a query after that.
        first_round = self._form is None and self._tried == 0
        for _ in range(len(FORMS) if first_round else 1):
            form = FORMS[self._tried % len(FORMS)]
            self._tried += 1
            try:
                report = await self._ask(launch, form)
            except _RefusedError as error:
                refusal = refusal or error
                continue
            if form.refused:
                return await self._add_fields(launch, form, report)
            self._form = form
            return report
        assert refusal is not None  # noqa: S101  (at least one form was refused)
        raise refusal

    async def _ask_for_more(self, launch: Launch, form: _Form, report: SmiReport) -> SmiReport:
        """The answer with fields that were refused before, as far as they are not now."""
        with suppress(_RefusedError, CommandError):
            return await self._add_fields(launch, form, report)
        return report

    async def _add_fields(self, launch: Launch, form: _Form, report: SmiReport) -> SmiReport:
        """An older mx-smi rejects a list with an unknown field: add group by group,
        and field by field in a group that it refuses as a whole."""
        for group in OPTIONAL_GROUPS:
            missing = tuple(name for name in group if name not in form.fields)
            parts = [missing, *((name,) for name in missing)] if len(missing) > 1 else [missing]
            for part in filter(None, parts):
                more = replace(form, fields=(*form.fields, *part))
                try:
                    report = await self._ask(launch, more)
                except _RefusedError:
                    continue
                form = more
                if part == missing:
                    break
        self._form = form
        return report

    async def _ask(self, launch: Launch, form: _Form) -> SmiReport:
        if form.style is not None:
            output = await self._run(launch, ("select", *form.style(form.fields)))
            return _parsed(parse_select, output)
        report, attached = _parsed(parse_query, await self._run(launch, ("query",)))
        devices = {device.bus_id: device for device in report.devices}
        # Whether it shows all of them when it is not told which is not documented.
        shown = {device.index for device in report.devices}
        for index in range(min(attached or 0, MAX_DEVICES)):
            if len(devices) < (attached or 0) and index not in shown:
                one = await self._run(launch, ("query", "-i", str(index)))
                devices |= {d.bus_id: d for d in _parsed(parse_query, one)[0].devices}
        return replace(report, devices=tuple(devices[bus_id] for bus_id in sorted(devices)))

    async def _run(self, launch: Launch, question: Sequence[str]) -> str:
        root = launch.chroot

        def change_root() -> None:
            os.chroot(root or "/")
            os.chdir("/")

        finished = await self._runner.run(
            (*launch.argv, *question),
            self._deadline,
            env=tool_environment(),
            before_exec=change_root if root else None,
        )
        if finished.status == 0:
            return finished.output
        said = " ".join(finished.output.split())[:120]
        ending = (
            f"signal {-finished.status}"
            if finished.status < 0
            else (f"exit status {finished.status}")
        )
        raise _RefusedError(f"it ended with {ending}" + (f": {said!r}" if said else ""))


def _parsed(parse: Callable[[str], T], output: str) -> T:
    try:
        return parse(output)
    except GarbageError as error:
        raise _RefusedError(str(error)) from error


def _identity(launch: Launch, report: SmiReport) -> object:
    """What changes with another mx-smi, another driver, or other devices."""
    program = Path(launch.chroot + launch.argv[0] if launch.chroot else launch.argv[-1])
    try:
        status = program.stat()
        file: object = status.st_ino, status.st_mtime_ns, status.st_size
    except OSError:
        file = None
    versions = report.driver_version, report.sola_version
    return file, versions, tuple(device.bus_id for device in report.devices)


class _RefusedError(Exception):
    """mx-smi ran and did not answer the question as it was put."""
