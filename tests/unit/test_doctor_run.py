"""No check can block the others, or the doctor."""

from __future__ import annotations

import threading
from collections.abc import Iterable
from pathlib import Path

from moffett_device_plugin.devices.health.policy import HealthPolicy
from moffett_device_plugin.doctor.context import Context
from moffett_device_plugin.doctor.findings import Check, Finding, Level, ok
from moffett_device_plugin.doctor.run import run_checks
from moffett_device_plugin.hardware.settings import HardwareSettings
from moffett_device_plugin.hardware.simulation import NODE, Faults
from tests.support.values import state_of


def context() -> Context:
    faults = Faults().with_fault(NODE, "smi-silent")
    return Context(
        HardwareSettings(), HealthPolicy(), Path("/nowhere"), state=state_of("1xS4", faults)
    )


def test_a_check_that_hangs_fails_alone() -> None:
    never = threading.Event()

    def hang(context: Context) -> Iterable[Finding]:
        never.wait()
        return []

    def fine(context: Context) -> Iterable[Finding]:
        return [ok("fine")]

    checks = (Check("hangs", "a", hang, deadline=0.05), Check("fine", "b", fine))
    first, second = run_checks(checks, context())
    never.set()
    assert (first.check, first.layer, first.level) == ("hangs", "a", Level.FAIL)
    assert "no result in 0.05 s" in first.found
    assert (second.check, second.level) == ("fine", Level.PASS)


def test_checks_run_at_the_same_time_and_report_in_order() -> None:
    meeting = threading.Barrier(2, timeout=10)

    def meet(context: Context) -> Iterable[Finding]:
        meeting.wait()
        yield ok("met")

    findings = run_checks((Check("one", "a", meet), Check("two", "a", meet)), context())
    assert [finding.check for finding in findings] == ["one", "two"]


def test_a_check_that_breaks_is_a_warning_with_what_broke() -> None:
    def broken(context: Context) -> Iterable[Finding]:
        yield ok("half")
        raise KeyError("serial")

    (finding,) = run_checks((Check("broken", "a", broken),), context())
    assert finding.level is Level.WARN
    assert "KeyError: 'serial'" in finding.found
