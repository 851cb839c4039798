"""What a campaign tells when it is over, and when it found something."""

from __future__ import annotations

import json
from collections.abc import Iterable

from .campaign import Record
from .invariants import InvariantError
from .world import World

_LAST_LINES = 40
_LAST_STEPS = 120


def table(record: Record) -> str:
    names = sorted(record.counters_by_fault)
    width = max(map(len, names), default=10)
    lines = [f"{'fault'.ljust(width)}  times  left out  slowest until right"]
    for name in names:
        counters = record.counters_by_fault[name]
        slowest = f"{counters.slowest:.2f} s" if counters.done else "-"
        lines.append(
            f"{name.ljust(width)}  {counters.done:5d}  {counters.left_out:8d}  {slowest:>9}"
        )
    return "\n".join(lines)


def summary(record: Record) -> str:
    done = sum(counters.done for counters in record.counters_by_fault.values())
    text = f"{done} faults in {record.rounds} rounds; the list was right after {record.settled}"
    if record.usage:
        sizes = [mib for mib, _ in record.usage]
        counts = [count for _, count in record.usage]
        text += (
            f"; {min(sizes):.1f} to {max(sizes):.1f} MiB, "
            f"{min(counts)} to {max(counts)} descriptors when all was well"
        )
    return text


def failure(error: InvariantError, world: World, record: Record, again: str) -> str:
    """Everything that helps to find the defect, and how to see it again."""
    return "\n".join(
        (
            "",
            "--- what the daemon said last",
            *_spoken(world.log_lines[-_LAST_LINES:]),
            "",
            "--- what was done",
            *record.story[-_LAST_STEPS:],
            "",
            f"--- still open: {', '.join(world.open) or 'nothing'}",
            f"--- offered: {world.shape}; mx-smi: {world.machine.smi_mode}"
            + ("" if world.machine.smi_installed else ", not installed"),
            *(str(device) for device in world.machine.devices),
            "",
            f"FAILED: {error}",
            f"again:  {again}",
        )
    )


def _spoken(lines: Iterable[object]) -> Iterable[str]:
    return (json.dumps(line, default=str) for line in lines)
