"""The recipes of the documents, run as the pages have them: the operator's values and the pods
are read from the pages themselves."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from cluster.cluster import Cluster
from cluster.helm import installed
from cluster.images import WORKLOAD_IMAGE
from cluster.plugin import SECONDS, assigned, stays_pending, wait_for_phase
from cluster.shell import wait_for
from conftest import ROOT

sys.path.append(str(ROOT))

from docs.site.pages import blocks

SIMULATED = {"simulate": "2xS30"}


@pytest.fixture(scope="module", autouse=True)
def image(cluster: Cluster, plugin_image: Path) -> None:
    """The image as it is; an earlier module may have left a variant under its tag."""
    cluster.import_image(plugin_image)


def texts(page: str) -> tuple[list[str], list[str]]:
    """Return the values and the pods of a page."""
    found = [b.text for b in blocks((ROOT / "docs" / page).read_text()) if b.language == "yaml"]
    pods = [text for text in found if "kind: Pod" in text]
    return [text for text in found if text not in pods], pods


@contextmanager
def with_values(cluster: Cluster, values: str, folder: Path) -> Iterator[None]:
    """Have the chart installed, with the page's values, for a block."""
    file = folder / "values.yaml"
    file.write_text(values)
    with installed(cluster, SIMULATED, file):
        yield


@contextmanager
def pods_of(cluster: Cluster, texts: list[str]) -> Iterator[None]:
    names = []
    try:
        for text in texts:
            runs = text.replace("my-inference-image", WORKLOAD_IMAGE)
            created = cluster.kubectl("create", "-o", "name", "-f", "-", stdin=runs).stdout
            names.append(created.strip().removeprefix("pod/"))
        yield
    finally:
        cluster.discard("pod", *names)


def wait_for_offer(cluster: Cluster, wanted: dict[str, str]) -> None:
    def offered() -> dict[str, str]:
        found = cluster.node()["status"]["allocatable"]
        return {name: found.get(name, "") for name in wanted}

    wait_for(
        f"{wanted}",
        lambda: offered() == wanted,
        seconds=SECONDS,
        describe=lambda: f"last: {offered()}",
    )


def test_two_chips_are_on_one_card_by_preference_and_by_guarantee(
    cluster: Cluster, tmp_path: Path
) -> None:
    (values,), (preferred, guaranteed) = texts("two-chips.md")
    with installed(cluster, SIMULATED):
        wait_for_offer(cluster, {"moffett.ai/spu": "6"})
        with pods_of(cluster, [preferred]):
            wait_for_phase(cluster, "two-chips")
            assert assigned(cluster, "two-chips").ids == ("0000:36:00.0", "0000:37:00.0")
    with with_values(cluster, values, tmp_path):
        wait_for_offer(cluster, {"moffett.ai/spu": "3", "moffett.ai/spu-card": "1"})
        with pods_of(cluster, [guaranteed]):
            wait_for_phase(cluster, "whole-card")
            given = cluster.exec("whole-card", "env").stdout.splitlines()
            assert "MOFFETT_SPU_BUS_IDS=0000:b6:00.0,0000:b7:00.0,0000:b8:00.0" in given


def test_one_chip_is_shared_and_the_rest_is_exclusive(cluster: Cluster, tmp_path: Path) -> None:
    (values,), (shares, exclusive) = texts("share-one-chip.md")
    another = shares.replace("name: shares", "name: shares-too")
    with with_values(cluster, values, tmp_path):
        wait_for_offer(cluster, {"moffett.ai/spu": "5", "moffett.ai/spu.shared": "4"})
        with pods_of(cluster, [shares, another, exclusive]):
            for pod, bus_id in (("shares", "36"), ("shares-too", "36"), ("exclusive", "37")):
                wait_for_phase(cluster, pod)
                given = cluster.exec(pod, "env").stdout.splitlines()
                assert f"MOFFETT_SPU_BUS_IDS=0000:{bus_id}:00.0" in given


def test_sharing_alone_renames_every_device(cluster: Cluster, tmp_path: Path) -> None:
    with with_values(cluster, "sharing: {replicas: 4}\n", tmp_path):
        wait_for_offer(cluster, {"moffett.ai/spu.shared": "24"})
        assert cluster.node()["status"]["allocatable"].get("moffett.ai/spu", "0") == "0"


def test_pods_that_stay_pending_say_why(cluster: Cluster) -> None:
    _, (too_many, other_name) = texts("why-pending.md")
    with installed(cluster, SIMULATED):
        wait_for_offer(cluster, {"moffett.ai/spu": "6"})
        with pods_of(cluster, [too_many, other_name]):
            assert "1 Insufficient moffett.ai/spu." in stays_pending(cluster, "too-many")
            assert "1 Insufficient moffett.ai/spu-card." in stays_pending(cluster, "other-name")
