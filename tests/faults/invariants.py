"""The invariants, each with a name and, where it takes time, a limit. Pure: the time is an
argument."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

#: Seconds in which the kubelet's list has to agree with the truth after the last change:
#: one look at the bus, a run of mx-smi that hangs until it is killed, one that answers,
#: and the second that a device must stay healthy; the rest is for a busy machine.
TRUTH_SECONDS = 8.0
#: The most memory, in MiB, that a process may have beyond what it had after its start.
MEMORY_MIB = 6.0
#: The most descriptors that it may have beyond that: a run of mx-smi,
#: a second connection of the kubelet's, a listener that is being replaced.
DESCRIPTORS = 6
#: How often one line may be logged while nothing changes, in several polls.
REPEATS = 1

Line = Mapping[str, Any]


class InvariantError(Exception):
    """`name` did not hold; the text has the evidence."""

    def __init__(self, name: str, text: str) -> None:
        super().__init__(f"{name}: {text}")
        self.name = name


class Agreement:
    """`truth`: the list agrees with the truth within a time from the last change."""

    def __init__(self, seconds: float = TRUTH_SECONDS) -> None:
        self._seconds = seconds
        self._deadline = 0.0
        self.agrees = False
        self.agreed_at = 0.0

    def changed(self, now: float, seconds: float = 0.0) -> None:
        """Something changed, and may take so long, at least the usual time."""
        self.agrees = False
        self._deadline = max(self._deadline, now + max(seconds, self._seconds))

    def see(self, differences: Sequence[str] | None, now: float) -> None:
        """`differences` is None while the list is not checked. Raises InvariantError."""
        if differences is None:
            self.changed(now)
        elif not differences:
            if not self.agrees:
                self.agreed_at = now
            self.agrees, self._deadline = True, max(self._deadline, now + self._seconds)
        elif now > self._deadline:
            raise InvariantError("truth", "; ".join(differences))
        else:
            self.agrees = False


def check_owners(owners: Iterable[tuple[str, Sequence[str], bool]]) -> None:
    """`owners`: of each pod that lives its name, the devices it was given, and whether it
    has them exclusively. Such a device belongs to no other pod."""
    exclusive: dict[str, str] = {}
    shared: dict[str, str] = {}
    for pod, devices, alone in owners:
        for device in devices:
            other = exclusive.get(device) or (shared.get(device) if alone else None)
            if other is not None:
                raise InvariantError("one-owner", f"{device} was given to {other} and to {pod}")
            (exclusive if alone else shared)[device] = pod


def check_line(line: Line) -> None:
    """No line of the log has an unexpected error."""
    if "raw" in line:
        raise InvariantError("no-traceback", f"not a line of the log: {line['raw']!r}")
    if "exception" in line:
        raise InvariantError("no-traceback", f"{line.get('event')}: {line['exception']}")


def check_quiet(lines: Iterable[Line]) -> None:
    """`lines` were logged while nothing changed, over several polls: none is repeated."""
    seen = Counter(
        tuple(sorted((key, str(value)) for key, value in line.items() if key != "time"))
        for line in lines
    )
    for line, times in seen.items():
        if times > REPEATS:
            raise InvariantError("logged-once", f"{times} times, nothing changed: {dict(line)}")


class Growth:
    """`memory` and `descriptors` of one process, measured while there is no fault. `usual`
    descriptors are those of a process without faults: one that had to close some may open
    them again."""

    def __init__(self, settled_after: int = 1, usual: int = 0) -> None:
        self._left = settled_after
        self._usual = usual
        self.base: tuple[float, int] | None = None
        self.last: tuple[float, int] | None = None

    def see(self, rss_mib: float, descriptors: int) -> None:
        """Raises InvariantError."""
        self.last = (rss_mib, descriptors)
        if self._left > 0:
            self._left -= 1
            self.base = (rss_mib, max(descriptors, self._usual))
        assert self.base is not None
        if rss_mib > self.base[0] + MEMORY_MIB:
            raise InvariantError("memory", f"{self.base[0]:.1f} MiB grew to {rss_mib:.1f}")
        if descriptors > self.base[1] + DESCRIPTORS:
            raise InvariantError("descriptors", f"{self.base[1]} grew to {descriptors}")


def check_alive(status: int | None, *, ended_by_us: bool) -> None:
    if status is not None and not ended_by_us:
        how = f"signal {-status}" if status < 0 else f"exit status {status}"
        raise InvariantError("never-dies", f"the daemon ended by itself: {how}")
