"""The kubelet's own record of who holds what, in the forms that kubelets write."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from moffett_device_plugin.podresources.checkpoint import holders_in, read_checkpoint
from moffett_device_plugin.podresources.client import Holder


def entry(uid: str, devices: object, resource: str = "moffett.ai/spu") -> dict[str, object]:
    return {
        "PodUID": uid,
        "ContainerName": "main",
        "ResourceName": resource,
        "DeviceIDs": devices,
        "AllocResp": "",
    }


def record(*entries: object) -> bytes:
    data = {"PodDeviceEntries": list(entries), "RegisteredDevices": {}}
    return json.dumps({"Data": data, "Checksum": 1}).encode()


@pytest.mark.parametrize(
    "devices", [["a", "b"], {"0": ["a"], "1": ["b"]}, {"-1": ["a", "b"]}], ids=str
)
def test_devices_are_listed_flat_or_by_numa_node(devices: object) -> None:
    holder = (Holder("uid", "1-2", "main"),)
    assert holders_in(record(entry("1-2", devices))) == {
        "moffett.ai/spu": {"a": holder, "b": holder}
    }


def test_several_resources_and_pods() -> None:
    held = holders_in(record(entry("1", ["a"]), entry("2", ["a"]), entry("3", ["x"], "b.io/c")))
    assert [holder.pod for holder in held["moffett.ai/spu"]["a"]] == ["1", "2"]
    assert [holder.pod for holder in held["b.io/c"]["x"]] == ["3"]


@pytest.mark.parametrize(
    "text",
    [b"", b"{", b"[]", b"null", b"\xff", b'{"Data": []}', b'{"Data": {"PodDeviceEntries": 5}}'],
    ids=str,
)
def test_a_record_without_pods_says_nothing(tmp_path: Path, text: bytes) -> None:
    path = tmp_path / "kubelet_internal_checkpoint"
    path.write_bytes(text)
    assert read_checkpoint(path) == {}


def test_a_missing_record_says_nothing(tmp_path: Path) -> None:
    assert read_checkpoint(tmp_path / "nothing") == {}
