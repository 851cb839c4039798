"""What is still to be told as Events: bounded, and never silently less than happened.
No I/O, and no clock of its own."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace

from .events import MAX_MESSAGE, SUMMARY, WARNING_OVER, HealthEvent, Occurrence, cut, timestamp
from .rate_limiter import TokenBucket

#: Different changes of one device that wait; what is older is counted only.
MAX_WAITING = 4
#: How long, in seconds, a repetition counts up the event that is there already.
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
    """`earlier` changes, the first of them at `since`, that are no longer in `waiting`."""

    waiting: deque[_Waiting] = field(default_factory=deque)
    earlier: int = 0
    since: float = 0.0


class EventQueue:
    """Changes of health go in, Occurrences come out, in the order they last happened.

    A device has at most MAX_WAITING of them waiting, each as often as it happened: of
    more, the newest stay and say how many came before them. When the bucket is nearly
    empty, everything that waits comes out as one summary. So memory is bounded by the
    number of devices, and the newest truth of each is always told. Times are seconds
    since the epoch, `now` is of the bucket's clock. `name` names each new Event object.
    """

    def __init__(self, bucket: TokenBucket, name: Callable[[], str]) -> None:
        self._bucket = bucket
        self._name = name
        self._devices: dict[str, _Device] = {}
        self._told: dict[tuple[str, str, frozenset[str]], Occurrence] = {}

    def add(self, event: HealthEvent, at: float) -> None:
        device = self._devices.setdefault(event.device, _Device())
        same = next((w for w in device.waiting if w.event.key == event.key), None)
        if same is not None:  # a chip that comes and goes: two events that count up
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
        """Seconds until `take` gives something; None while there is nothing."""
        return self._bucket.wait(now) if self._devices else None

    def take(self, now: float) -> Occurrence | None:
        """The next to tell, which is the caller's from now on; None if none may be."""
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
        """As the repetition of one that was told not long ago, or as a new one."""
        told = self._told.pop(next_.event.key, None)
        if told is not None and next_.first - told.last <= REPEAT_SECONDS:
            count = told.count + next_.count
            told = replace(told, message=message, last=next_.last, count=count, again=True)
        else:
            event = next_.event
            told = Occurrence(
                self._name(), event.reason, message, event.is_warning,
                next_.first, next_.last, next_.count,
            )  # fmt: skip
        self._told[next_.event.key] = told
        if len(self._told) > _MAX_REMEMBERED:
            del self._told[next(iter(self._told))]
        return told

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
    return f"; {device.earlier} earlier changes of it since {since} are not told singly"


def _listed(text: str, events: Iterable[HealthEvent]) -> str:
    """As many of them as a message holds, and how many more there are."""
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
    if event.reason == WARNING_OVER:
        word = "warning over"
    codes = ", ".join(sorted(event.codes))
    return f"{event.device} {word}" + (f" ({codes})" if codes else "")
