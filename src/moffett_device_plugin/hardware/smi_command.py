"""Asks mx-smi: finds out how it wants to be asked, and asks so from then on."""

from __future__ import annotations

import os
import shlex
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from ..runtime.resource_exhausted import is_resource_exhausted
from . import SmiError
from .elf import interpreter_of
from .mxsmi import ALL_FIELDS, CORE_FIELDS, OPTIONAL_GROUPS, GarbageError, parse_select
from .process import CommandError, Runner, tool_environment
from .sysfs import read_text
from .types import SmiReport

_Style = Callable[[Sequence[str]], list[str]]

#: How a list of fields may be written. The manual's `-f {index,board}` is what a
#: shell turns into separate words; it does not say which form mx-smi itself takes.
FIELD_STYLES: tuple[_Style, ...] = (
    lambda fields: ["-f", *fields],
    lambda fields: ["-f", ",".join(fields)],
    lambda fields: ["-f", "{" + ",".join(fields) + "}"],
)
#: Where SOLA and the distribution keep libraries, below a host root.
LIBRARY_FOLDERS = (
    "usr/local/sola/lib",
    "usr/local/sola/lib64",
    "usr/local/lib",
    "lib64",
    "usr/lib64",
    "lib/x86_64-linux-gnu",
    "usr/lib/x86_64-linux-gnu",
    "lib/aarch64-linux-gnu",
    "usr/lib/aarch64-linux-gnu",
    "lib",
    "usr/lib",
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
    program = host_root / "usr/bin/mx-smi"
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
    loader = host_root / interpreter.path.lstrip("/")
    if not loader.exists():  # a script for this side's interpreter, or a partial tree
        return Launch((str(program),))
    if can_chroot:
        return Launch(("/usr/bin/mx-smi",), chroot=str(host_root))
    if interpreter.is_script:
        return Launch((str(loader), *interpreter.arguments, str(program)))
    folders = ":".join(_library_folders(host_root))
    return Launch((str(loader), "--library-path", folders, str(program)))


def _library_folders(host_root: Path) -> Iterable[str]:
    text = read_text(str(host_root / "etc/ld.so.conf.d/sola.conf")) or ""
    listed = [line.strip().lstrip("/") for line in text.splitlines() if line.startswith("/")]
    for folder in dict.fromkeys([*listed, *LIBRARY_FOLDERS]):
        if (host_root / folder).is_dir():
            yield str(host_root / folder)


class SmiCommand:
    """One mx-smi, asked again and again.

    The first good answer settles the form of the question. An mx-smi that stops
    understanding it (an upgrade, a fault) is asked the same again each time, and
    one other form beside it, so that a broken tool costs two runs and no more.
    """

    def __init__(self, find: Callable[[], Launch | None], deadline: float) -> None:
        self._find = find
        self._deadline = deadline
        self._runner = Runner()
        self._question: tuple[str, ...] | None = None
        self._forms = tuple(
            (style, fields) for fields in (ALL_FIELDS, CORE_FIELDS) for style in FIELD_STYLES
        )
        self._tried = 0  # forms tried since the last good answer

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
        return report

    async def _query(self, launch: Launch) -> SmiReport:
        refusal: _RefusedError | None = None
        if self._question is not None:
            try:
                return await self._ask(launch, self._question)
            except _RefusedError as error:
                refusal = error
        # Every form in the first round, one a query after that.
        first_round = self._question is None and self._tried == 0
        for _ in range(len(self._forms) if first_round else 1):
            style, fields = self._forms[self._tried % len(self._forms)]
            self._tried += 1
            try:
                report = await self._ask(launch, tuple(style(fields)))
            except _RefusedError as error:
                refusal = refusal or error
                continue
            if fields is not ALL_FIELDS:
                return await self._add_fields(launch, style, report)
            self._question = tuple(style(fields))
            return report
        assert refusal is not None  # noqa: S101  (at least one form was refused)
        raise refusal

    async def _add_fields(self, launch: Launch, style: _Style, report: SmiReport) -> SmiReport:
        """An older mx-smi rejects a list with an unknown field: add group by group,
        and field by field in a group that it refuses as a whole."""
        fields = list(CORE_FIELDS)
        for group in OPTIONAL_GROUPS:
            parts = [group] if len(group) == 1 else [group, *((field,) for field in group)]
            for part in parts:
                try:
                    report = await self._ask(launch, tuple(style([*fields, *part])))
                except _RefusedError:
                    continue
                fields += part
                if part is group:
                    break
        self._question = tuple(style(fields))
        return report

    async def _ask(self, launch: Launch, question: tuple[str, ...]) -> SmiReport:
        root = launch.chroot

        def change_root() -> None:
            os.chroot(root or "/")
            os.chdir("/")

        finished = await self._runner.run(
            (*launch.argv, "select", *question),
            self._deadline,
            env=tool_environment(),
            before_exec=change_root if root else None,
        )
        if finished.status != 0:
            said = " ".join(finished.output.split())[:120]
            ending = (
                f"signal {-finished.status}"
                if finished.status < 0
                else (f"exit status {finished.status}")
            )
            raise _RefusedError(f"it ended with {ending}" + (f": {said!r}" if said else ""))
        try:
            return parse_select(finished.output)
        except GarbageError as error:
            raise _RefusedError(str(error)) from error


class _RefusedError(Exception):
    """mx-smi ran and did not answer the question as it was put."""
