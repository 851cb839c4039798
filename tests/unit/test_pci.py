from __future__ import annotations

import pytest

from moffett_device_plugin.hardware.pci import bus_order, sysfs_bus_id


@pytest.mark.parametrize(
    ("written", "sysfs"),
    [
        ("0:3a:00.0", "0000:3a:00.0"),
        ("0000:3A:00.0", "0000:3a:00.0"),
        ("3a:00.0", "0000:3a:00.0"),
        ("00000000:3A:00.0", "0000:3a:00.0"),
        (" 10000:1:1f.7 ", "10000:01:1f.7"),
        ("0000:3a:20.0", None),
        ("0000:3a:00.8", None),
        ("eth0", None),
        ("", None),
    ],
)
def test_bus_ids_are_brought_to_the_form_of_sysfs(written: str, sysfs: str | None) -> None:
    assert sysfs_bus_id(written) == sysfs


def test_large_domains_sort_by_number_not_by_letter() -> None:
    ids = ["10000:01:00.0", "0001:00:00.0", "0000:ff:00.0"]
    assert sorted(ids, key=bus_order) == ["0000:ff:00.0", "0001:00:00.0", "10000:01:00.0"]
