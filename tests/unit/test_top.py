"""What `top` shows: which rows in which order, and what fits."""

from __future__ import annotations

from dataclasses import replace

import pytest
from rich.console import Console

from moffett_device_plugin.commands.device_rows import (
    DEVICES,
    TOP,
    Sort,
    cell,
    grouped,
    rows_of,
)
from moffett_device_plugin.commands.device_table import bar, fitted, table_of
from moffett_device_plugin.commands.top_keys import KeyReader
from moffett_device_plugin.commands.top_view import (
    Scene,
    Screen,
    View,
    after_key,
    line_count,
    page_size,
)
from moffett_device_plugin.hardware.simulation import NODE, Faults
from moffett_device_plugin.hardware.types import Telemetry
from moffett_device_plugin.podresources.client import Holder
from tests.support.values import state_of

FIRST, SECOND = "2023243080101", "2023243080102"


def scene_of(
    spec: str = "2xS30", faults: Faults | None = None, why_not: str | None = None
) -> Scene:
    state = state_of(spec, faults)
    return Scene(state, rows_of(state, {}), why_not)


def order(scene: Scene, sort: Sort, *, reverse: bool = False) -> list[tuple[str, list[int]]]:
    return [
        (group.title, [row.device.index for row in group.rows])
        for group in grouped(scene.rows, sort, reverse=reverse)
    ]


def drawn(scene: Scene, view: View, width: int, height: int) -> list[str]:
    console = Console(width=width, height=height, color_system=None, force_terminal=True)
    with console.capture() as capture:
        console.print(Screen(scene, view), end="")
    return capture.get().splitlines()


def test_by_index_the_cards_keep_the_bus_order() -> None:
    expected = [(f"S30 {FIRST}", [0, 1, 2]), (f"S30 {SECOND}", [3, 4, 5])]
    assert order(scene_of(), "index") == expected


def test_the_hottest_device_is_first_and_its_card_with_it() -> None:
    scene = scene_of(faults=Faults().with_fault("0000:b6:00.0", "hot"))
    assert order(scene, "temp")[0] == (f"S30 {SECOND}", [3, 5, 4])
    assert order(scene, "temp", reverse=True)[0] == (f"S30 {FIRST}", [0, 1, 2])


@pytest.mark.parametrize("reverse", [False, True])
def test_what_is_not_known_comes_last(reverse: bool) -> None:
    scene = scene_of(faults=Faults().with_fault("0000:36:00.0", "firmware"))
    rows = [replace(row, telemetry=Telemetry()) if row.device.index == 1 else row
            for row in scene.rows]  # fmt: skip
    first_card = order(replace(scene, rows=tuple(rows)), "temp", reverse=reverse)
    (indexes,) = [ids for title, ids in first_card if FIRST in title]
    assert set(indexes[-2:]) == {0, 1}


def test_memory_is_sorted_by_its_share() -> None:
    scene = scene_of("1xS30")
    used = {0: (100, 1000), 1: (300, 1000), 2: (300, 30_000)}
    rows = tuple(
        replace(row, telemetry=Telemetry(memory_used_mib=u, memory_total_mib=t))
        for row, (u, t) in zip(scene.rows, used.values(), strict=True)
    )
    assert order(replace(scene, rows=rows), "mem") == [(f"S30 {FIRST}", [1, 0, 2])]


def test_a_row_names_what_is_wrong_and_who_is_affected() -> None:
    state = state_of("1xS4", Faults().with_fault("0000:34:00.0", "ecc"))
    pods = (Holder("ml", "a", "one"), Holder("ml", "a", "two"), Holder("x", "b", "c"))
    (row,) = rows_of(state, {"0000:34:00.0": pods})
    assert cell(row, "HEALTH").startswith("unhealthy (ecc-uncorrected: ")
    assert cell(row, "POD") == "ml/a, x/b"


def test_readings_that_are_missing_are_dashes() -> None:
    (row,) = scene_of("1xS4").rows
    bare = replace(row, telemetry=Telemetry())
    for column in ("UTIL", "MEMORY", "TEMP", "POWER", "FREQ", "NODES"):  # its node is /dev/null
        assert cell(bare, column) == "-"


# -- the screen -----------------------------------------------------------------------


@pytest.mark.parametrize("width", [200, 100, 80, 60, 40, 20, 3])
@pytest.mark.parametrize("height", [40, 10, 4, 1])
def test_no_line_is_too_long_and_no_screen_too_high(width: int, height: int) -> None:
    faults = Faults().with_fault("0000:36:00.0", "hot").with_fault(NODE, "sola-old")
    scene = scene_of("8xS30", faults, "the kubelet's socket is not mounted")
    lines = drawn(scene, View("temp"), width, height)
    assert max(len(line) for line in lines) <= width
    assert len(lines) <= max(height, 5)


def test_a_wide_screen_shows_everything() -> None:
    faults = Faults().with_fault("0000:36:00.0", "hot")
    text = "\n".join(drawn(scene_of(faults=faults), View(), 200, 40))
    for part in (FIRST, "0000:36:00.0", "97 C", "2/83 W", "700 MHz", "97 C is over the limit of"):
        assert part in text
    assert "5 healthy" in text
    assert "pods are not known" not in text


def test_a_narrow_screen_keeps_the_device_and_its_health() -> None:
    faults = Faults().with_fault("0000:36:00.0", "hot")
    lines = drawn(scene_of(faults=faults), View("temp"), 40, 20)
    (line,) = [line for line in lines if "0000:36:00.0" in line]
    assert "unhealthy" in line
    assert "…" in line


def test_columns_go_in_the_order_of_what_they_say() -> None:
    widths = {"INDEX": 5, "ID": 20, "UTIL": 6, "MEMORY": 14, "TEMP": 4, "POWER": 8, "FREQ": 7,
              "HEALTH": 80, "POD": 30}  # fmt: skip
    seen = {width: list(fitted(widths, width)) for width in (300, 120, 90, 60, 45)}
    assert seen[300] == list(widths)
    assert fitted(widths, 300) == widths
    assert "FREQ" in seen[120]
    assert "FREQ" not in seen[90]
    assert seen[45] == ["ID", "HEALTH"]
    for width in seen:
        sizes = fitted(widths, width)
        assert sum(sizes.values()) + 2 * (len(sizes) - 1) <= width


def test_devices_at_80_columns_keep_their_health_and_all_of_why() -> None:
    rows = scene_of(faults=Faults().with_fault("0000:36:00.0", "hot")).rows
    console = Console(width=80, color_system=None, force_terminal=True)
    with console.capture() as capture:
        console.print(table_of(grouped(rows), DEVICES, width=80, wrap=True))
    text = capture.get()
    assert max(len(line) for line in text.splitlines()) <= 80
    assert "HEALTH" in text
    assert "NODES" not in text
    assert "97 C" in text
    assert "…" not in text


def test_an_empty_node_says_so() -> None:
    state = state_of("1xS4")
    empty = Scene(replace(state, snapshot=replace(state.snapshot, devices=())), (), None)
    assert any("no SPU" in line for line in drawn(empty, View(), 80, 10))
    assert table_of(grouped(empty.rows), TOP).row_count == 0


def test_a_bar_is_as_wide_as_the_share() -> None:
    assert bar(0) == " " * 8
    assert bar(100) == bar(250) == "█" * 8
    assert bar(50) == "████    "
    assert bar(-3) == " " * 8


# -- keys -----------------------------------------------------------------------------


def test_keys_sort_and_reverse_and_begin_at_the_top() -> None:
    view = View("index", False, 7)
    assert after_key(view, "t", 32, 10) == View("temp", False, 0)
    assert after_key(View("temp", False, 7), "r", 32, 10) == View("temp", True, 0)
    assert after_key(view, "x", 32, 10) == view


def test_scrolling_stops_at_both_ends() -> None:
    scene = scene_of("8xS30")
    lines, page = line_count(scene), page_size(13, scene)
    assert (lines, page) == (32, 10)
    assert after_key(View(), "up", lines, page).offset == 0
    assert after_key(View(), "page-down", lines, page).offset == 10
    assert after_key(View(offset=15), "page-down", lines, page).offset == 22
    assert after_key(View(offset=22), "home", lines, page).offset == 0
    assert after_key(View(), "end", lines, 50).offset == 0


def test_what_is_scrolled_to_is_shown() -> None:
    scene = scene_of("8xS30")
    last = scene.rows[-1].device.id
    assert not any(last in line for line in drawn(scene, View(), 100, 13))
    assert any(last in line for line in drawn(scene, View(offset=99), 100, 13))


@pytest.mark.parametrize(
    ("parts", "keys"),
    [
        ([b"utq"], ["u", "t", "q"]),
        ([b"\x1b[A\x1b[6~\x1bOB"], ["up", "page-down", "down"]),
        ([b"\x1b", b"[", b"5", b"~m"], ["page-up", "m"]),
        ([b"\x1b[1;5Cu"], ["u"]),  # ctrl-right, which is none of ours
        ([b"\x1bq"], ["q"]),
        ([b"\xc3\xa4\x00\x7fi"], ["i"]),
        ([b"\x1b[" + b"1" * 40 + b"r"], ["1"] * 26 + ["r"]),  # no key is so long
    ],
)
def test_bytes_to_keys(parts: list[bytes], keys: list[str]) -> None:
    reader = KeyReader()
    assert [key for part in parts for key in reader.feed(part)] == keys
