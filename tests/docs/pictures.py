"""Pictures of commands, made from what they print on a terminal of this machine.

`tools/pictures` writes them to docs/pictures/; test_pictures.py says when one is not what the
command prints any more.
"""

from __future__ import annotations

import re
import sys
import tempfile
from pathlib import Path

from tests.support.terminal import Session, on_a_terminal

from . import badges
from .documents import ROOT
from .node import PROGRAM, Node, node
from .screen import Line, drawn

FOLDER = ROOT / "docs/pictures"
COLUMNS = 100
#: Seconds between two events of the demo, at least: they have to be read.
PACE = 1.5
#: The doctor's layers in its picture; the others have paths and facts of the machine it is made on.
LAYERS = ("hardware", "plugin")
#: The first line of one of the demo's events.
EVENT = re.compile(r"(\x1b\[\d+m)? *\d+\.\d\d s\b")
FAULTY = "0000:36:00.0"


def demo() -> str:
    session = on_a_terminal([sys.executable, "-m", "moffett_device_plugin", "demo"], COLUMNS)
    assert session.code == 0, session.written
    return drawn(
        "./run demo: a simulated node, a fake kubelet and the real daemon; a pod gets two SPUs"
        " of one card, a fault and a reboot are noticed, a kubelet restart changes nothing",
        [Line("\x1b[1m$ ./run demo\x1b[0m"), *_paced(session)],
        COLUMNS,
    )


def _paced(session: Session) -> list[Line]:
    """The lines as they came, but an event no sooner than PACE after the one before."""
    lines: list[Line] = []
    at = last = 0.0
    for came, part in session.parts:
        for text in part.decode().splitlines():
            if EVENT.match(text):
                at = max(at + PACE, at + came - last)
                last = came
            lines.append(Line(text, round(at, 2)))
    return lines


def doctor(machine: Node) -> str:
    """Of a node with one device that is unhealthy and held by a pod."""
    machine.type(f"{PROGRAM} simulate inject {FAULTY} ecc")
    machine.wait_for_healthy(5, without=FAULTY)
    try:
        program = str(machine.directory / "bin" / PROGRAM)
        session = on_a_terminal([program, "doctor"], COLUMNS, machine.env, machine.work)
    finally:
        machine.type(f"{PROGRAM} simulate heal {FAULTY}")
        machine.wait_for_healthy(6)
    return drawn(
        "moffett-device-plugin doctor: checks by layer in colours; what failed has its remedy,"
        " and stands once more below the summary",
        [Line("\x1b[1m$ moffett-device-plugin doctor\x1b[0m"), *_chosen(session)],
        COLUMNS,
    )


def _chosen(session: Session) -> list[Line]:
    written, plain = session.written.splitlines(), session.lines
    kept: list[Line] = []
    layer: str | None = ""
    for text, line in zip(written, plain, strict=True):
        if line and not line.startswith(" "):
            layer = line.strip() if line.strip() in LAYERS else None
            if " passed, " in line:
                layer = "summary"
                kept += [Line("..."), Line("")]
        if layer is not None:
            kept.append(Line(text.rstrip()))
    while kept and not kept[-1].text:
        kept.pop()
    return kept


def main() -> int:
    with (
        tempfile.TemporaryDirectory(prefix="spu-") as short,
        tempfile.TemporaryDirectory() as work,
        node(Path(short), Path(work)) as machine,
    ):
        (FOLDER / "doctor.svg").write_text(doctor(machine))
    (FOLDER / "demo.svg").write_text(demo())
    (FOLDER / "badges.svg").write_text(badges.drawn(badges.facts()))
    return 0


if __name__ == "__main__":
    sys.exit(main())
