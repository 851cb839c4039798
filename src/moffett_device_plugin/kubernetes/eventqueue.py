"""A bounded queue of Events to write, which never drops a change silently. No I/O, and no
clock of its own."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace

from .events import MAX_MESSAGE, SUMMARY, WARNING_CLEARED, HealthEvent, Occurrence, cut, timestamp
from .rate_limiter import TokenBucket

#: Different changes of one device in the queue; older ones are only counted.
MAX_WAITING = 4
#: Seconds within which a repetition increments the count of the existing Event.
REPEAT_SECONDS = 600.0
_MAX_REMEMBERED = 256


@dataclass(slots=True, eq=False)
class _Waiting:
    event: HealthEvent
    first: float
    last: float
    count: int = 1


@dataclass(slots=True)
class _Device:
    """`earlier`: the number of changes dropped from `waiting`, the first of them at `since`."""

    waiting: deque[_Waiting] = field(default_factory=deque)
    earlier: int = 0
    since: float = 0.0


class EventQueue:
    """Takes health changes and returns Occurrences, in the order of their last occurrence.

    At most MAX_WAITING different changes of a device wait, each with a count; of more,
    the newest are kept with the number of dropped ones. When the bucket is nearly empty,
    everything in the queue becomes one summary. So memory is bounded by the number of
    devices, and the latest state of each is always reported. Times are Unix time in
    seconds; `now` is a time of the bucket's clock. `name` names each new Event object.
    """

    def __init__(self, bucket: TokenBucket, name: Callable[[], str]) -> None:
        self._bucket = bucket
        self._name = name
        self._devices: dict[str, _Device] = {}
        self._written: dict[tuple[str, str, frozenset[str]], Occurrence] = {}

    def add(self, event: HealthEvent, at: float) -> None:
        device = self._devices.setdefault(event.device, _Device())
        same = next((w for w in device.waiting if w.event.key == event.key), None)
        if same is not None:  # a flapping device: two events with growing counts
            device.waiting.remove(same)
            same.event, same.last, same.count = event, at, same.count + 1
        device.waiting.append(same or _Waiting(event, at, at))
        if len(device.waiting) > MAX_WAITING:
            oldest = device.waiting.popleft()
            if not device.earlier:
                device.since = oldest.first
            device.earlier += oldest.count

    def __len__(self) -> int:
        return sum(len(device.waiting) for device in self._devices.values())

    def wait(self, now: float) -> float | None:
        """Seconds until `take` returns an occurrence; None while the queue is empty."""
        return self._bucket.wait(now) if self._devices else None

    def take(self, now: float) -> Occurrence | None:
        """Removes and returns the next occurrence; None if the queue or the bucket is empty."""
        if not self._devices:
            return None
        nearly_empty = self._bucket.left(now) < 2
        if not self._bucket.take(now):
            return None
        if nearly_empty and len(self) > 1:
            return self._summary()
        name, device = min(self._devices.items(), key=lambda item: item[1].waiting[0].last)
        next_ = device.waiting.popleft()
        if not device.waiting:
            del self._devices[name]
        message = next_.event.message + _earlier(device)
        device.earlier = 0
        return self._remembered(next_, cut(message, MAX_MESSAGE))

    def _remembered(self, next_: _Waiting, message: str) -> Occurrence:
        """As a repetition of a recent event, or as a new one."""
        earlier = self._written.pop(next_.event.key, None)
        if earlier is not None and next_.first - earlier.last <= REPEAT_SECONDS:
            count = earlier.count + next_.count
            occurrence = replace(earlier, message=message, last=next_.last, count=count, again=True)
        else:
            event = next_.event
            occurrence = Occurrence(
                self._name(), event.reason, message, event.is_warning,
                next_.first, next_.last, next_.count,
            )  # fmt: skip
        self._written[next_.event.key] = occurrence
        if len(self._written) > _MAX_REMEMBERED:
            del self._written[next(iter(self._written))]
        return occurrence

    def _summary(self) -> Occurrence:
        devices, self._devices = self._devices, {}
        everything = [waiting for device in devices.values() for waiting in device.waiting]
        changes = sum(waiting.count for waiting in everything)
        changes += sum(device.earlier for device in devices.values())
        newest = [device.waiting[-1].event for device in devices.values()]
        newest.sort(key=lambda event: not event.is_warning)
        firsts = [waiting.first for waiting in everything]
        firsts += [device.since for device in devices.values() if device.earlier]
        return Occurrence(
            self._name(),
            SUMMARY,
            _listed(f"{changes} changes of {len(devices)} devices, now: ", newest),
            any(event.is_warning for event in newest),
            min(firsts),
            max(waiting.last for waiting in everything),
        )


def _earlier(device: _Device) -> str:
    if not device.earlier:
        return ""
    since = timestamp(device.since)
    return f"; {device.earlier} earlier changes of it since {since} have no event of their own"


def _listed(text: str, events: Iterable[HealthEvent]) -> str:
    """As many events as fit into a message, and the number of the others."""
    parts = [_short(event) for event in events]
    shown, length = [], len(text)
    for part in parts:
        length += len(part) + 2
        if length > MAX_MESSAGE - 20:
            break
        shown.append(part)
    more = len(parts) - len(shown)
    return text + ", ".join(shown) + (f" and {more} more" if more else "")


def _short(event: HealthEvent) -> str:
    word = event.reason.removeprefix("SPU").lower()
    if event.reason == WARNING_CLEARED:
        word = "warning cleared"
    codes = ", ".join(sorted(event.codes))
    return f"{event.device} {word}" + (f" ({codes})" if codes else "")
