"""A correct table of mx-smi, damaged in every way: no damage makes a healthy device
unhealthy, and nothing is read that the table did not say."""

from __future__ import annotations

import random
from dataclasses import asdict, fields
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from moffett_device_plugin.devices.health.evaluate import evaluate
from moffett_device_plugin.devices.health.policy import HealthPolicy
from moffett_device_plugin.devices.inventory import (
    Snapshot,
    observe_bus,
    observe_silence,
    observe_smi,
)
from moffett_device_plugin.hardware.mxsmi import GarbageError, parse_query, parse_select
from moffett_device_plugin.hardware.simulation import Faults, build, bus_scan, parse_spec
from moffett_device_plugin.hardware.types import SmiDevice, SmiReport, Telemetry

LAYOUT = build(parse_spec("2xS30"))
BUS = observe_bus(Snapshot(), bus_scan(LAYOUT, Faults()))
COLUMNS = (
    "index", "pci.bus_id", "count", "serial", "uuid", "board", "name", "cores",
    "firmware_version", "mcu_version", "driver_version", "sola_version", "memory.total",
    "memory.used", "temperature", "power.draw", "utilization", "frequency", "volatile",
    "ecc.errors.corrected.volatile.device_memory", "ecc.errors.uncorrected.volatile.device_memory",
)  # fmt: skip


def row(index: int) -> list[str]:
    bus_id = LAYOUT.chips[index].bus_id
    return [
        str(index), bus_id[3:], str(len(LAYOUT.chips)), LAYOUT.chips[index].serial,
        f"01000000-0000-0000-0000-00AKS021649{index}", f"0x00{index // 3 + 1}", "01S30-00A", "4",
        "1.0.14", "4X08", "3.5.2", "3.5.3", "20480 MiB", f"{index * 111} MiB", f"{43 + index} C",
        f"{2 + index} W", f"{index} %", "700 MHz", f"{925 + index} mV", "0", "0",
    ]  # fmt: skip


Table = list[list[str]]
TABLE: Table = [list(COLUMNS), *(row(index) for index in range(len(LAYOUT.chips)))]


def text_of(table: Table) -> str:
    return "".join(", ".join(cells) + "\n" for cells in table)


WHOLE = parse_select(text_of(TABLE))
HEALTHY = observe_smi(BUS, WHOLE, BUS.scan)


def healthy_after(text: str, times: int = 3) -> bool:
    """Whether every device is healthy when mx-smi answers so, again and again."""
    snapshot = HEALTHY
    for _ in range(times):
        try:
            snapshot = observe_smi(snapshot, parse_select(text), snapshot.scan)
        except GarbageError as error:
            snapshot = observe_silence(snapshot, str(error))
    statuses = evaluate(snapshot, {}, HealthPolicy(), 0.0).health_statuses
    return len(statuses) == 6 and all(status.healthy for status in statuses.values())


def said_by(report: SmiReport) -> dict[str, dict[str, Any]]:
    """Every value that was read, by bus ID."""
    return {
        device.bus_id: {
            **{f.name: getattr(device, f.name) for f in fields(SmiDevice) if f.name != "telemetry"},
            **asdict(device.telemetry),
        }
        for device in report.devices
    }


def adds_nothing(text: str) -> bool:
    """Whether what is read is what the undamaged table said, or nothing."""
    try:
        report = parse_select(text)
    except GarbageError:
        return True
    before = said_by(WHOLE)
    return all(
        value is None or value == before[bus_id][name]
        for bus_id, values in said_by(report).items()
        for name, value in values.items()
    )


def test_the_undamaged_table_is_read_whole() -> None:
    assert WHOLE.complete
    assert WHOLE.bad_rows == 0
    assert len(WHOLE.devices) == 6
    assert said_by(WHOLE)[LAYOUT.chips[2].bus_id]["temperature_celsius"] == 45


# -- one kind of damage each ----------------------------------------------------------


def with_cells(column: str, cell: str) -> str:
    place = COLUMNS.index(column)
    changed = [[*cells[:place], cell, *cells[place + 1 :]] for cells in TABLE[1:]]
    return text_of([TABLE[0], *changed])


CELLS = {
    "a list for each core": ("utilization", "0 %, 0 %, 0 %, 0 %"),
    "a thousands separator": ("memory.used", "1,204 MiB"),
    "a name with a comma": ("name", "S30, rev B"),
    "a quoted name with a comma": ("name", '"S30, rev B"'),
    "a decimal comma": ("temperature", "43,5 C"),
    "an error in a reading": ("temperature", "[Unknown Error]"),
    "an error in a counter": ("ecc.errors.uncorrected.volatile.device_memory", "ERR!"),
    "a reading of another kind": ("temperature", "20480 MiB"),
    "no temperature of a chip": ("temperature", "65535 C"),
    "an open quote": ("name", '"S30'),
}
TEXTS = {
    "CRLF": lambda text: text.replace("\n", "\r\n"),
    "a BOM": lambda text: "\ufeff" + text,
    "colours": lambda text: "\x1b[1m" + text.replace(", ", "\x1b[0m, \x1b[32m"),
    "warnings before": lambda text: "libmfml: warning: no lock\nW0102, old, very old\n" + text,
    "warnings after": lambda text: text + "libmfml: warning: no lock\n",
    "warnings after, with numbers": lambda text: text + "W0102 12:00:01, device 3 is slow, 7\n",
    "the table twice": lambda text: text + text,
    "two tables that differ": lambda text: text + text.replace("43 C", "97 C"),
    "semicolons": lambda text: text.replace(",", ";"),
    "tabs": lambda text: text.replace(", ", "\t"),
    "no separators": lambda text: text.replace(", ", " "),
    "no spaces": lambda text: text.replace(", ", ","),
    "quotes everywhere": lambda text: "".join(
        ", ".join(f'"{cell}"' for cell in line.split(", ")) + "\n" for line in text.splitlines()
    ),
    "no units": lambda text: "".join(
        line + "\n" for line in text.replace(" MiB", "").replace(" C", "").splitlines()
    ),
    "no last line end": lambda text: text.rstrip("\n"),
    "the header alone": lambda text: text.partition("\n")[0] + "\n" + "1, x\n",
    "no header": lambda text: text.partition("\n")[2],
    "nothing": lambda text: "",
    "another node's table": lambda text: text.replace("00.0,", "1f.0,"),
}


@pytest.mark.parametrize("damage", CELLS)
def test_a_cell_that_cannot_be_read_says_nothing_about_a_device(damage: str) -> None:
    assert healthy_after(with_cells(*CELLS[damage]))


@pytest.mark.parametrize("damage", TEXTS)
def test_damage_to_the_text_makes_no_device_unhealthy(damage: str) -> None:
    assert healthy_after(TEXTS[damage](text_of(TABLE)))


@pytest.mark.parametrize("damage", sorted(TEXTS.keys() - {"another node's table"}))
def test_damage_to_the_text_adds_no_value(damage: str) -> None:
    assert adds_nothing(TEXTS[damage](text_of(TABLE)))


@pytest.mark.parametrize("damage", ["CRLF", "a BOM", "colours", "semicolons", "tabs", "no spaces",
                                    "quotes everywhere", "the table twice", "warnings before",
                                    "warnings after"])  # fmt: skip
def test_what_is_only_written_otherwise_is_read_whole(damage: str) -> None:
    assert parse_select(TEXTS[damage](text_of(TABLE))) == WHOLE


def test_a_list_for_each_core_is_their_mean_and_the_rest_of_the_row_is_read() -> None:
    report = parse_select(with_cells("utilization", "10 %, 20 %, 30 %, 40 %"))
    assert report.complete
    assert report.devices[2].telemetry.utilization_percent == 25
    assert report.devices[2].telemetry.temperature_celsius == 45


def test_a_name_with_a_comma_leaves_the_readings_behind_it() -> None:
    report = parse_select(with_cells("name", "S30, rev B"))
    assert report.complete, "every row has its bus ID"
    assert [device.telemetry for device in report.devices] == [d.telemetry for d in WHOLE.devices]


def test_two_rows_of_one_device_count_where_they_agree() -> None:
    text = text_of(TABLE)
    (first, *_) = parse_select(text + text.replace("43 C", "97 C")).devices
    assert first.telemetry.temperature_celsius is None
    assert first.serial == LAYOUT.chips[0].serial


@given(st.integers(0, len(text_of(TABLE))))
@settings(max_examples=400, deadline=None)
def test_no_truncation_makes_a_device_unhealthy_or_adds_a_value(end: int) -> None:
    text = text_of(TABLE)[:end]
    assert healthy_after(text, times=1)
    assert adds_nothing(text)


@given(st.permutations(range(len(COLUMNS))))
@settings(max_examples=50, deadline=None)
def test_columns_in_any_order_are_the_same(order: list[int]) -> None:
    assert parse_select(text_of([[cells[n] for n in order] for cells in TABLE])) == WHOLE


@given(st.randoms(use_true_random=False), st.sampled_from(sorted(TEXTS)))
@settings(max_examples=300, deadline=None)
def test_no_stray_separators_make_a_device_unhealthy(chance: random.Random, damage: str) -> None:
    """Somewhere in each row, in any form of the table."""
    rows = []
    for line in text_of(TABLE).splitlines():
        at = chance.randrange(len(line) + 1)
        rows.append(line[:at] + chance.choice([",", ", ", '"', "  ", "\t", ";"]) + line[at:])
    assert healthy_after(TEXTS[damage]("\n".join(rows) + "\n"))


def test_a_stray_separator_in_the_header_moves_no_value_to_another_column() -> None:
    header, *rows = text_of(TABLE).replace(" MiB", "").replace(" C", "").splitlines(keepends=True)
    header = header.replace("power.draw", "powe, r.draw")
    one = [*rows[:1], rows[1].replace("20480", "20,480"), *rows[2:]]
    each = [line.replace(".0, 6,", ".0,, 6,") for line in rows]
    for text in (header + "".join(one), header + "".join(each)):
        assert healthy_after(text)
        assert adds_nothing(text)


@given(st.data())
@settings(max_examples=300, deadline=None)
def test_no_lost_or_garbled_line_makes_a_device_unhealthy_at_once(data: st.DataObject) -> None:
    lines = text_of(TABLE).splitlines()
    at = data.draw(st.integers(0, len(lines) - 1))
    lines[at] = data.draw(st.one_of(st.just(""), st.text(max_size=40), st.just(lines[at][1:])))
    assert healthy_after("\n".join(lines) + "\n", times=1)


# -- absence --------------------------------------------------------------------------


def test_a_device_that_is_left_out_of_a_whole_table_twice_is_not_listed() -> None:
    """Without the column `count`, which an older mx-smi refuses."""
    rows = [[cell for n, cell in enumerate(cells) if n != 2] for cells in TABLE[:-1]]
    report = parse_select(text_of(rows))
    assert report.complete
    once = observe_smi(HEALTHY, report, HEALTHY.scan)
    assert [device.listed for device in once.devices] == [True] * 6
    twice = observe_smi(once, report, once.scan)
    assert [device.listed for device in twice.devices] == [True] * 5 + [False]


def test_a_table_with_fewer_rows_than_its_count_is_not_whole() -> None:
    assert not parse_select(text_of(TABLE[:-1])).complete


def test_an_answer_of_which_no_row_is_a_device_here_is_no_answer() -> None:
    elsewhere = TEXTS["another node's table"](text_of(TABLE))
    after = observe_smi(HEALTHY, parse_select(elsewhere), HEALTHY.scan)
    assert after.smi.error == "none of its 6 rows is a device of this node"
    assert after.devices == HEALTHY.devices


# -- query ----------------------------------------------------------------------------

QUERY = """\
Timestamp                             : Mon Apr 15 18:01:32 2024
Driver Version                        : 3.5.2
SOLA Version                          : 3.5.3

Attached Devices                      : 6

Device 0
    Product Name                      : 01S30-00A
    SPU Cores Number                  : 4
    FW Version                        : 1.0.14
    MCU Version                       : 4X08
    Serial Number                     : 2023243080104
    UUID                              : 01000000-0000-0000-0000-00AKS0216498
    Board Id                          : 0x001
    PCI
        Bus                           : 0x2d
        Bus Id                        : 0:2d:00.0
    Memory Usage
        Total                         : 20480 MiB
        Used                          : 7 MiB
    Utilization
        Core 0                        : 4 %
        Avg                           : 1 %
    ECC Errors
        Volatile
            Device Memory Corrected   : 5
            Device Memory Uncorrected : 2
        Aggregate
            Device Memory Corrected   : 9
            Device Memory Uncorrected : 8
    Temperature                       : 43 C
    Power
        Power Draw                    : 2 W
        Power Limit                   : 83 W
    Frequency                         : 700 MHz
    Voltage                           : 930 mV
    Processes
"""


def test_the_query_form_says_the_same_as_the_table() -> None:
    report, attached = parse_query(QUERY)
    (device,) = report.devices
    assert attached == 6
    assert (report.driver_version, report.sola_version) == ("3.5.2", "3.5.3")
    assert (device.bus_id, device.index, device.product) == ("0000:2d:00.0", 0, "S30")
    assert device.telemetry == Telemetry(
        memory_total_mib=20480, memory_used_mib=7, utilization_percent=1, temperature_celsius=43,
        power_draw_watts=2, power_limit_watts=83, frequency_mhz=700, voltage_mv=930,
        ecc_corrected_volatile=5, ecc_uncorrected_volatile=2, ecc_corrected_aggregate=9,
        ecc_uncorrected_aggregate=8,
    )  # fmt: skip
    assert not report.complete, "it is the second source, and what it leaves out is no evidence"


@given(st.integers(0, len(QUERY)))
def test_no_part_of_a_query_breaks_the_parser(end: int) -> None:
    try:
        report, _ = parse_query(QUERY[:end])
    except GarbageError:
        return
    assert {device.bus_id for device in report.devices} == {"0000:2d:00.0"}
