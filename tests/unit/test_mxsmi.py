"""The table that mx-smi prints."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from moffett_device_plugin.hardware.mxsmi import (
    GarbageError,
    measured,
    number_of,
    parse_select,
    product_of,
    version_of,
)


def test_the_manuals_example() -> None:
    report = parse_select(
        "index, pci.bus_id, board\n3, 0:3a:00.0, 2\n2, 0:2f:00.0, 1\n1, 0:2e:00.0, 1\n"
    )
    rows = [(d.index, d.bus_id, d.board) for d in report.devices]
    assert rows == [(1, "0000:2e:00.0", "1"), (2, "0000:2f:00.0", "1"), (3, "0000:3a:00.0", "2")]


@pytest.mark.parametrize("units", [True, False])
def test_values_with_and_without_units_are_the_same(units: bool) -> None:
    mib, watt, c = (" MiB", " W", " C") if units else ("", "", "")
    (device,) = parse_select(
        "PCI.BUS_ID, Memory.Total, power.draw, temperature, volatile, frequency, utilization\n"
        f"0:2d:00.0, 20480{mib}, 2.5{watt}, 43{c}, 930, 700, 0 %\n"
    ).devices
    t = device.telemetry
    assert (t.memory_total_mib, t.power_draw_watts, t.temperature_celsius) == (20480, 2.5, 43.0)
    assert (t.voltage_mv, t.frequency_mhz, t.utilization_percent) == (930.0, 700.0, 0.0)


def test_order_unknown_columns_and_missing_ones_do_not_matter() -> None:
    (device,) = parse_select(
        "color, serial, pci.bus_id, name, mood\nred, 2023, 0:2d:00.0, 01S30-00A, fine\n"
    ).devices
    assert (device.serial, device.product, device.index) == ("2023", "S30", None)
    assert device.telemetry.ecc_uncorrected_volatile is None


def test_ecc_columns() -> None:
    (device,) = parse_select(
        "pci.bus_id, ecc.errors.uncorrected.volatile.device_memory,"
        " ecc.errors.corrected.aggregate.device_memory\n0:2d:00.0, 2, 17\n"
    ).devices
    t = device.telemetry
    assert (t.ecc_uncorrected_volatile, t.ecc_corrected_aggregate) == (2, 17)


def test_not_available_is_not_zero() -> None:
    (device,) = parse_select(
        "pci.bus_id, temperature, serial, memory.used\n0:2d:00.0, N/A, [Not Supported], \n"
    ).devices
    assert device.telemetry.temperature_celsius is None
    assert device.telemetry.memory_used_mib is None
    assert device.serial is None


def test_broken_rows_are_counted_and_the_others_kept() -> None:
    report = parse_select(
        "index, pci.bus_id\n0, 0:2d:00.0\n1\n2, nonsense\n3, 0:2e:00.0, more\n4, 0:2f:00.0\n"
    )
    assert [(d.bus_id[5:7], d.index) for d in report.devices] == [
        ("2d", 0),
        ("2e", None),
        ("2f", 4),
    ]
    assert report.bad_rows == 3
    assert not report.complete


def test_warnings_before_the_table_are_passed_over() -> None:
    text = "libfoo: warning, old, very old\n\nindex, pci.bus_id\n0, 0:2d:00.0\n"
    assert len(parse_select(text).devices) == 1


def test_a_header_alone_is_a_working_mx_smi_without_devices() -> None:
    assert parse_select("index, pci.bus_id\n").devices == ()


@pytest.mark.parametrize("text", ["", "\n\n", "Segmentation fault", "index, board\n0, 1\n"])
def test_anything_else_is_garbage(text: str) -> None:
    with pytest.raises(GarbageError):
        parse_select(text)


def test_text_from_the_hardware_is_kept_printable_and_short() -> None:
    (device,) = parse_select("pci.bus_id, serial\n0:2d:00.0, a\x1b[31m" + "x" * 500 + "\n").devices
    assert device.serial is not None
    assert device.serial.isprintable()
    assert len(device.serial) <= 128


@given(st.text(max_size=400))
def test_no_text_breaks_the_parser(text: str) -> None:
    try:
        parse_select(text)
    except GarbageError:
        pass


@given(st.lists(st.lists(st.text(alphabet="0:2d.,- \tNaMiB%", max_size=12), max_size=6)))
def test_no_table_breaks_the_parser(rows: list[list[str]]) -> None:
    text = "index, pci.bus_id, temperature, power.draw, memory.used\n"
    report = parse_select(text + "\n".join(",".join(row) for row in rows))
    for device in report.devices:
        assert device.bus_id.count(":") == 2


@pytest.mark.parametrize(
    ("text", "value"),
    [("-5", -5.0), ("43,5", 43.5), ("1,204", 1204.0), ("20,480,000", 20480000.0),
     ("0x10", None), ("", None), (None, None), ("12abc", None), ("1,2,3", None), ("4 3", None)],
)  # fmt: skip
def test_numbers(text: str | None, value: float | None) -> None:
    assert number_of(text) == value


@pytest.mark.parametrize(
    ("column", "text", "value"),
    [("memory.total", "20 GiB", 20480.0), ("memory.used", "1,204 MiB", 1204.0),
     ("power.limit", "83000 mW", 83.0), ("volatile", "0.93 V", 930.0),
     ("frequency", "1.2 GHz", 1200.0), ("utilization", "10 %, 20 %, 0 %, 30 %", 15.0),
     ("temperature", "43 \u00b0C", 43.0), ("temperature", "20480 MiB", None),
     ("temperature", "20480", None), ("memory.total", "43 C", None),
     ("ecc.errors.uncorrected.volatile.device_memory", "-1", None)],
)  # fmt: skip
def test_readings_are_in_our_units_and_in_units_of_their_kind(
    column: str, text: str, value: float | None
) -> None:
    assert measured(column, text) == value


@pytest.mark.parametrize(
    ("name", "product"), [("01S30-00A", "S30"), ("00S4-00B", "S4"), ("Antoum", "Antoum")]
)
def test_products(name: str, product: str) -> None:
    assert product_of(name) == product


@pytest.mark.parametrize(
    ("text", "version"),
    [("3.5.0", (3, 5, 0)), ("3.5", (3, 5, 0)), ("v3.10.1-rc2", (3, 10, 1)), ("new", None),
     ("", None), (None, None)],
)  # fmt: skip
def test_versions_compare_as_numbers(
    text: str | None, version: tuple[int, int, int] | None
) -> None:
    assert version_of(text) == version
