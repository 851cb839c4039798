"""What is said of which node, and whether Prometheus' own tools agree with how."""

from __future__ import annotations

import re
import shutil
import subprocess
from collections.abc import Iterable
from dataclasses import replace

import pytest
from prometheus_client.exposition import generate_latest as library_text
from prometheus_client.metrics_core import Metric
from prometheus_client.openmetrics.exposition import generate_latest as library_openmetrics
from prometheus_client.openmetrics.parser import text_string_to_metric_families as read_openmetrics
from prometheus_client.parser import text_string_to_metric_families as read_text

from moffett_device_plugin.devices.cards import cards_of
from moffett_device_plugin.devices.health.evaluate import evaluate
from moffett_device_plugin.devices.health.policy import HealthPolicy
from moffett_device_plugin.devices.inventory import observe_silence
from moffett_device_plugin.devices.state import NodeState
from moffett_device_plugin.hardware.simulation import NODE, Faults
from moffett_device_plugin.metrics.exposition import negotiate, render
from moffett_device_plugin.metrics.families import collect
from moffett_device_plugin.metrics.view import View
from moffett_device_plugin.podresources.client import Holder
from moffett_device_plugin.resources.pools import Resource, Sharing, build_pools
from moffett_device_plugin.runtime.counters import Counters
from tests.support.values import ids_of, snapshot_of, state_of

SPU = "moffett.ai/spu"
SHARED = Resource("moffett.ai/spu.shared", sharing=Sharing(replicas=100))
PLAIN = Resource()
NODE_OF_TWO = "1xS30,1xS4"


def view_of(
    spec: str = NODE_OF_TWO, faults: Faults | None = None, resource: Resource = PLAIN
) -> View:
    state = state_of(spec, faults)
    pools, unassigned = build_pools(state, (resource,))
    counters = Counters(smi_runs=3, smi_last_good=995.0)
    for pool in pools:
        counters.of(pool.name).allocations = 2
    registered = {pool.name: True for pool in pools}
    return View(state, counters, 1000.0, 5_000_000.0, pools, unassigned, registered)


def text_of(view: View) -> str:
    return "".join(render(collect(view), "text"))


class Samples:
    """What Prometheus would have after a scrape."""

    def __init__(self, view: View) -> None:
        self.series = [s for family in read_text(text_of(view)) for s in family.samples]

    def __call__(self, name: str, **labels: str) -> list[float]:
        return [
            s.value for s in self.series if s.name == name and labels.items() <= s.labels.items()
        ]

    def labels(self, name: str) -> list[dict[str, str]]:
        return [s.labels for s in self.series if s.name == name]


# -- devices --------------------------------------------------------------------------


def test_a_device_in_base_units_and_with_the_labels_to_find_it_by() -> None:
    samples = Samples(view_of())
    one = ids_of(NODE_OF_TWO)[0]
    expected = {
        "healthy": 1,
        "temperature_celsius": 43,
        "power_watts": 2,
        "power_limit_watts": 83,
        "memory_total_bytes": 20480 * 2**20,
        "memory_used_bytes": 0,
        "memory_reserved_bytes": 4484 * 2**20,
        "memory_free_bytes": 15996 * 2**20,
        "utilization_ratio": 0,
        "frequency_hertz": 700e6,
        "voltage_volts": 0.93,
        "pcie_link_speed_transfers_per_second": 8e9,
        "pcie_link_max_speed_transfers_per_second": 8e9,
        "pcie_link_width_lanes": 16,
        "pcie_link_max_width_lanes": 16,
    }
    for name, value in expected.items():
        assert samples(f"moffett_spu_{name}", device=one) == [pytest.approx(value)], name
    assert samples.labels("moffett_spu_healthy")[0] == {
        "device": one,
        "index": "0",
        "pci_bus_id": one,
        "card": "2023243080101",
        "product": "S30",
        "numa_node": "0",
    }
    assert len(samples("moffett_spu_healthy")) == 4
    assert len(samples("moffett_spu_info", serial="2023243080101")) == 3


def test_errors_are_counted_by_kind() -> None:
    one, two, *_ = ids_of(NODE_OF_TWO)
    faults = Faults().with_fault(one, "ecc").with_fault(two, "aer").with_fault(two, "corrected")
    samples = Samples(view_of(faults=faults))
    for name in ("moffett_spu_ecc_errors_total", "moffett_spu_ecc_aggregate_errors_total"):
        assert samples(name, device=one, kind="uncorrected")[0] > 0
        assert samples(name, device=one, kind="corrected") == [0]
        assert samples(name, device=two, kind="corrected")[0] > 0
    assert samples("moffett_spu_pcie_aer_errors_total", device=two, kind="fatal") == [1]
    assert samples("moffett_spu_pcie_aer_errors_total", device=one, kind="fatal") == [0]


def test_every_reason_is_a_series_and_a_warning_leaves_the_device_healthy() -> None:
    one, two, three, _ = ids_of(NODE_OF_TWO)
    faults = Faults().with_fault(one, "ecc").with_fault(one, "hot").with_fault(two, "link")
    samples = Samples(view_of(faults=faults))
    reason = "moffett_spu_health_reason"
    assert samples(reason, device=one, reason="ecc-uncorrected", level="unhealthy") == [1]
    assert samples(reason, device=one, reason="over-temperature", level="unhealthy") == [1]
    assert samples(reason, device=two) == samples(reason, reason="link-degraded") == [1]
    assert samples(reason, device=three) == []
    healthy = [samples("moffett_spu_healthy", device=d) for d in (one, two, three)]
    assert healthy == [[0], [1], [1]]
    speed = "moffett_spu_pcie_link_speed_transfers_per_second"
    most = "moffett_spu_pcie_link_max_speed_transfers_per_second"
    assert samples(speed, device=two)[0] < samples(most, device=two)[0]


def test_a_device_that_left_the_bus_is_told_of_and_has_no_readings() -> None:
    one, view = ids_of(NODE_OF_TWO)[0], view_of()
    faults = Faults().with_fault(one, "gone")
    snapshot = snapshot_of(NODE_OF_TWO, faults, before=view.state.snapshot)
    health_statuses = evaluate(snapshot, {}, HealthPolicy(), 0.0).health_statuses
    samples = Samples(replace(view, state=NodeState(snapshot, health_statuses)))
    told = {s.name for s in samples.series if s.labels.get("device") == one}
    assert told == {f"moffett_spu_{name}" for name in ("info", "healthy", "health_reason")}
    assert samples("moffett_spu_healthy", device=one) == [0]
    assert samples("moffett_spu_health_reason", device=one, reason="bus-gone") == [1]


def test_zero_is_what_a_faulty_sensor_reads_and_not_a_temperature() -> None:
    one, two, *_ = ids_of(NODE_OF_TWO)
    samples = Samples(view_of(faults=Faults().with_fault(one, "zero")))
    assert samples("moffett_spu_temperature_celsius", device=one) == []
    assert samples("moffett_spu_power_watts", device=one) == []
    assert samples("moffett_spu_power_watts", device=two) != []


def test_old_readings_are_not_shown_as_if_they_were_new() -> None:
    view = view_of(faults=Faults().with_fault(ids_of(NODE_OF_TWO)[0], "ecc"))
    silent = replace(view, now=1100.0, wall=5_000_100.0)
    assert Samples(view)("moffett_spu_temperature_celsius")
    samples = Samples(silent)
    assert not samples("moffett_spu_temperature_celsius")
    assert not samples("moffett_spu_ecc_errors_total")
    assert samples("moffett_spu_pcie_link_width_lanes"), "the bus is read, not mx-smi"
    assert samples("moffett_device_plugin_mx_smi_last_success_timestamp_seconds") == [4_999_995.0]


def test_the_limit_that_alerts_compare_with_is_the_configured_one() -> None:
    view = view_of()
    limit = "moffett_spu_temperature_limit_celsius"
    assert Samples(view)(limit) == []
    assert Samples(replace(view, temperature_limit=95.0))(limit) == [95.0]


# -- who holds what -------------------------------------------------------------------


def test_who_holds_a_device_whatever_the_unit_was() -> None:
    view = view_of()
    one, two, *_ = ids_of(NODE_OF_TWO)
    card = cards_of(view.state.snapshot.devices)[0]
    train, serve = Holder("ml", "train", "main"), Holder("web", "serve", "main")
    holders = {
        SPU: {one: (train,)},
        SHARED.name or "": {f"{two}::{n}": (serve,) for n in range(7)},
        "moffett.ai/spu-card": {card.id: (Holder("ml", "whole", "main"),)},
        "nvidia.com/gpu": {"GPU-1": (train,)},
    }
    samples = Samples(replace(view, holders=holders, holders_known=True))
    name = "moffett_spu_allocation_info"
    assert samples(name, pod="train") == [1]
    assert samples.labels(name)[0] == {
        "device": one,
        "resource": SPU,
        "namespace": "ml",
        "pod": "train",
        "container": "main",
    }
    assert samples(name, pod="serve", device=two) == [1], "seven replicas, one series"
    assert {s["device"] for s in samples.labels(name) if s["pod"] == "whole"} == {
        device.id for device in card.devices
    }
    assert samples("moffett_device_plugin_allocated_units", resource=SPU) == [1]
    assert samples("moffett_device_plugin_pod_resources_up") == [1]


def test_replicas_are_counted_and_are_no_series() -> None:
    plain, shared = view_of("8xS30"), view_of("8xS30", resource=SHARED)
    samples = Samples(shared)
    assert samples("moffett_device_plugin_units", state="healthy") == [2400]
    assert len(samples.series) == len(Samples(plain).series)


# -- the plugin -----------------------------------------------------------------------


def test_units_by_resource_and_state_and_whether_the_kubelet_listens() -> None:
    view = view_of(faults=Faults().with_fault(ids_of(NODE_OF_TWO)[0], "config"))
    samples = Samples(replace(view, registered={SPU: False}))
    units = "moffett_device_plugin_units"
    assert samples(units, resource=SPU, state="healthy") == [3]
    assert samples(units, resource=SPU, state="unhealthy") == [1]
    assert samples("moffett_device_plugin_registered", resource=SPU) == [0]
    assert samples("moffett_device_plugin_allocated_units") == [], "nobody asked the kubelet"


def test_what_was_counted_and_timed() -> None:
    view = view_of()
    counters = view.counters.of(SPU)
    counters.allocation_rejections, counters.registrations = 4, 5
    for seconds in (0.0002, 0.0003, 0.0003, 7.0):
        counters.allocate_seconds.observe(seconds)
    samples = Samples(view)
    prefix = "moffett_device_plugin_"
    assert samples(f"{prefix}allocations_total", resource=SPU) == [2]
    assert samples(f"{prefix}rejections_total", resource=SPU, call="allocate") == [4]
    assert samples(f"{prefix}registrations_total") == [5]
    bucket = f"{prefix}allocate_duration_seconds_bucket"
    at_most = [samples(bucket, le=bound)[0] for bound in ("0.00025", "0.0005", "1.0", "+Inf")]
    assert at_most == [1, 3, 3, 4]
    assert samples(f"{prefix}allocate_duration_seconds_count") == [4]
    assert samples(f"{prefix}allocate_duration_seconds_sum") == [pytest.approx(7.0008)]


def test_a_node_without_mx_smi_has_no_silence_to_report() -> None:
    view = view_of()
    without = observe_silence(view.state.snapshot, None)
    samples = Samples(replace(view, state=replace(view.state, snapshot=without)))
    assert not [s for s in samples.series if "mx_smi" in s.name]
    never = Samples(replace(view, counters=Counters(smi_runs=2, smi_failures=2)))
    assert never("moffett_device_plugin_mx_smi_last_success_timestamp_seconds") == [0]


def test_a_configuration_that_was_refused_shows_until_one_is_taken() -> None:
    view = view_of()
    successful = "moffett_device_plugin_config_last_reload_successful"
    for last_ok, shown in ((None, 1), (False, 0), (True, 1)):
        assert Samples(replace(view, counters=Counters(reload_last_ok=last_ok)))(successful) == [
            shown
        ]


def test_versions_and_the_process_itself() -> None:
    samples = Samples(replace(view_of(), version="0.1.0", commit="6057eae1c5d0"))
    assert samples(
        "moffett_device_plugin_build_info",
        version="0.1.0", commit="6057eae1c5d0", sola_version="3.5.3", driver_version="3.5.2",
    ) == [1]  # fmt: skip
    assert samples("process_resident_memory_bytes")[0] > 2**20


# -- the formats ----------------------------------------------------------------------


class Collected:
    """Families as prometheus_client's own writers take them."""

    def __init__(self, families: Iterable[Metric]) -> None:
        self.families = list(families)

    def collect(self) -> Iterable[Metric]:
        return self.families


def busy_view() -> View:
    """Every family has a sample, and some labels have what must be escaped."""
    spec = "8xS30,1xS4"
    faults = Faults().with_fault(ids_of(spec)[0], "link").with_fault(NODE, "sola-old")
    view = view_of(spec, faults=faults, resource=SHARED)
    nasty = Holder("ml", 'a"b\\c\nd', "main")
    units = {unit.id: (nasty,) for unit in view.pools[0].advertised()}
    return replace(
        view, holders={view.pools[0].name: units}, temperature_limit=90.0, version="0.1.0"
    )


def test_the_text_is_what_the_standard_library_would_write() -> None:
    collected = Collected(collect(busy_view()))
    assert "".join(render(collected.families, "text")).encode() == library_text(collected)  # type: ignore[arg-type]
    theirs = library_openmetrics(collected)  # type: ignore[no-untyped-call]
    assert "".join(render(collected.families, "openmetrics")).encode() == theirs


def test_both_formats_tell_the_strict_parsers_the_same() -> None:
    families = list(collect(busy_view()))
    of_text = read_text("".join(render(families, "text")))
    of_openmetrics = read_openmetrics("".join(render(families, "openmetrics")))  # type: ignore[no-untyped-call]

    def samples(parsed: Iterable[Metric]) -> set[tuple[str, tuple[tuple[str, str], ...], float]]:
        return {
            (s.name, tuple(sorted(s.labels.items())), s.value)
            for family in parsed
            for s in family.samples
        }

    assert samples(of_text) == samples(of_openmetrics)


def test_names_units_and_help_are_as_promtool_wants_them() -> None:
    """The rules of `promtool check metrics`, for where there is none."""
    units = re.compile(r"(milli|micro|nano|kilo|mega|giga)\w+|_(ms|mb|mib|hours|minutes|percent)\b")
    for family in read_text(text_of(busy_view())):
        assert family.documentation.endswith("."), family.name
        kind = {s.name: family.type for s in family.samples}
        for name in kind:
            assert re.fullmatch(r"[a-z][a-z0-9_]*", name), name
            assert not units.search(name), name
        assert not re.search(r"gauge|counter|histogram|info_", family.name), family.name
        ends = {name.rpartition("_")[2] for name in kind}
        if family.type == "counter":
            assert ends == {"total"}, family.name
        else:
            assert "total" not in ends, family.name
        if family.type != "histogram":
            assert not ends & {"bucket", "count", "sum"}, family.name


def test_promtool_has_nothing_to_say() -> None:
    promtool = shutil.which("promtool")
    if promtool is None:
        pytest.skip("promtool is in Debian's package prometheus")
    text = text_of(busy_view())
    done = subprocess.run(
        [promtool, "check", "metrics"], input=text, capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stdout + done.stderr) == (0, "")


@pytest.mark.parametrize(
    ("accept", "form"),
    [
        ("", "text"),
        ("*/*", "text"),
        ("application/openmetrics-text", "openmetrics"),
        ("text/plain;version=0.0.4;q=0.5,application/openmetrics-text;q=0.4", "text"),
        ("application/openmetrics-text;q=0,*/*", "text"),
        ("application/openmetrics-text;q=no", "text"),
        # Prometheus 2.42
        (
            "application/openmetrics-text;version=1.0.0,application/openmetrics-text;"
            "version=0.0.1;q=0.75,text/plain;version=0.0.4;q=0.5,*/*;q=0.1",
            "openmetrics",
        ),
        # Prometheus 3, when it may not use OpenMetrics
        ("text/plain;version=1.0.0;escaping=allow-utf-8;q=0.6,text/plain;q=0.5,*/*", "text"),
    ],
)
def test_who_asks_for_openmetrics_gets_it(accept: str, form: str) -> None:
    assert negotiate(accept) == form
