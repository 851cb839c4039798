"""What is told of many changes: bounded, limited, and nothing lost in silence."""

from __future__ import annotations

from itertools import count

from hypothesis import given
from hypothesis import strategies as st

from moffett_device_plugin.kubernetes.eventqueue import MAX_WAITING, EventQueue
from moffett_device_plugin.kubernetes.events import MAX_MESSAGE, HealthEvent, Occurrence
from moffett_device_plugin.kubernetes.rate_limiter import TokenBucket

NIGHT = 1_790_000_000.0


def event(device: str = "a", reason: str = "SPUUnhealthy", code: str = "ecc") -> HealthEvent:
    return HealthEvent(device, reason, frozenset({code}), f"{device} {reason} {code}")


def queue(burst: int = 25) -> EventQueue:
    numbers = count()
    return EventQueue(TokenBucket(burst, 5.0), lambda: f"n.{next(numbers)}")


def drain(events: EventQueue, now: float = 0.0) -> list[Occurrence]:
    taken = []
    while (occurrence := events.take(now)) is not None:
        taken.append(occurrence)
    return taken


def test_a_bucket_gives_its_burst_and_then_one_a_period() -> None:
    bucket = TokenBucket(3, 5.0)
    assert [bucket.take(0.0) for _ in range(4)] == [True, True, True, False]
    assert bucket.wait(1.0) == 4.0
    assert not bucket.take(4.9)
    assert bucket.take(5.0)
    assert bucket.wait(5.0) == 5.0
    assert bucket.left(1000.0) == 3


def test_events_come_out_in_the_order_they_happened_with_their_own_times() -> None:
    events = queue()
    events.add(event("b"), NIGHT)
    events.add(event("a"), NIGHT + 1)
    events.add(event("b", "SPUHealthy"), NIGHT + 2)
    taken = drain(events)
    assert [o.message for o in taken] == ["b SPUUnhealthy ecc", "a SPUUnhealthy ecc",
                                          "b SPUHealthy ecc"]  # fmt: skip
    assert [o.first for o in taken] == [NIGHT, NIGHT + 1, NIGHT + 2]
    assert events.wait(0.0) is None


def test_a_repetition_counts_up_the_event_that_was_told() -> None:
    events = queue()
    events.add(event(), NIGHT)
    (first,) = drain(events)
    events.add(event(), NIGHT + 60)
    (second,) = drain(events)
    assert (first.count, first.again) == (1, False)
    assert (second.name, second.count, second.again) == (first.name, 2, True)
    assert (second.first, second.last) == (NIGHT, NIGHT + 60)


def test_a_repetition_after_a_long_time_is_an_event_of_its_own() -> None:
    events = queue()
    events.add(event(), NIGHT)
    (first,) = drain(events)
    events.add(event(), NIGHT + 601)
    (second,) = drain(events)
    assert second.name != first.name
    assert second.count == 1


def test_repetitions_that_wait_are_one() -> None:
    events = queue()
    for second in range(100):
        events.add(event(), NIGHT + second)
    (only,) = drain(events)
    assert (only.count, only.first, only.last, only.again) == (100, NIGHT, NIGHT + 99, False)


def test_a_flapping_device_in_an_outage_is_two_events_that_count() -> None:
    events = queue()
    for second in range(1000):
        events.add(event("a", "SPUHealthy" if second % 2 else "SPUUnhealthy"), NIGHT + second)
    unhealthy, well = drain(events)
    assert (unhealthy.count, unhealthy.first, unhealthy.last) == (500, NIGHT, NIGHT + 998)
    assert (well.count, well.first, well.last) == (500, NIGHT + 1, NIGHT + 999)


def test_of_many_different_changes_the_newest_stay_and_the_others_are_counted() -> None:
    events = queue()
    for number in range(100):
        events.add(event("a", code=f"code-{number}"), NIGHT + number)
    assert len(events) == MAX_WAITING
    taken = drain(events)
    assert taken[0].message.endswith(
        f"; {100 - MAX_WAITING} earlier changes of it since 2026-09-21T14:13:20Z"
        " have no event of their own"
    )
    assert [o.message for o in taken][-1] == "a SPUUnhealthy code-99"


def test_over_the_limit_everything_that_waits_is_one_summary() -> None:
    events = queue(burst=3)
    for number in range(24):
        events.add(event(f"d{number:02}", "SPUHealthy" if number % 2 else "SPUUnhealthy"), NIGHT)
    taken = drain(events)
    assert len(taken) == 3
    summary = taken[-1]
    assert summary.reason == "SPUHealthChanges"
    assert summary.warning
    assert summary.message.startswith("22 changes of 22 devices, now: d02 unhealthy (ecc), ")
    assert all(f"d{number:02} " in summary.message for number in range(2, 24))
    assert len(events) == 0


def test_the_last_one_that_waits_is_told_in_full() -> None:
    events = queue(burst=1)
    events.add(event(), NIGHT)
    assert drain(events)[0].message == "a SPUUnhealthy ecc"
    events.add(event("b"), NIGHT)
    assert events.take(1.0) is None
    assert events.wait(1.0) == 4.0
    assert drain(events, 5.0)[0].message == "b SPUUnhealthy ecc"


def test_a_summary_of_very_many_devices_is_cut_with_their_number() -> None:
    events = queue(burst=1)
    for number in range(4096):
        events.add(event(f"0000:{number:04x}:00.0"), NIGHT)
    (summary,) = drain(events)
    assert len(summary.message) <= MAX_MESSAGE
    listed = summary.message.count("unhealthy")
    assert summary.message.endswith(f" and {4096 - listed} more")


@given(
    st.lists(
        st.tuples(
            st.sampled_from("abc"),
            st.sampled_from(["SPUUnhealthy", "SPUHealthy", "SPUWarning"]),
            st.floats(0, 20),
        ),
        max_size=60,
    )
)
def test_every_change_is_told_or_counted_and_the_last_one_is_told(
    changes: list[tuple[str, str, float]],
) -> None:
    events, now, told = queue(burst=4), 0.0, []
    for device, reason, pause in changes:
        now += pause
        events.add(event(device, reason), NIGHT + now)
        if pause > 10:
            told += drain(events, now)
        assert len(events) <= 3 * MAX_WAITING
    while (wait := events.wait(now)) is not None:
        now += wait
        told += drain(events, now)
    newest = {device: reason for device, reason, _ in changes}
    for device, reason in newest.items():
        word = reason.removeprefix("SPU").lower()
        last = [o for o in told if f"{device} SPU" in o.message or f"{device} " in o.message][-1]
        assert f"{device} {reason}" in last.message or f"{device} {word}" in last.message
    assert len({(o.name, o.count) for o in told}) == len(told)
