"""The chart gives a node's devices out through DRA: with the rights that this takes, and no
driver can publish devices for another node."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from cluster import dra
from cluster.accounts import kubeconfig_of, token_of
from cluster.cluster import Cluster, Object
from cluster.helm import RELEASE, ROOT, installed, upgrade
from cluster.images import WORKLOAD_IMAGE
from cluster.plugin import (
    NAMESPACE,
    SECONDS,
    Plugin,
    assigned,
    counts,
    wait_for_count,
    wait_for_phase,
    workload,
)
from cluster.services import inside
from cluster.shell import output, wait_for
from conftest import MANUAL


@pytest.fixture(scope="module")
def values(cluster: Cluster) -> Object:
    """The chart's values for DRA. The tier's engine has its CDI specs in another folder."""
    return {"simulate": "2xS30", "deviceApi": "dra", "cdi": {"dir": str(cluster.layout.cdi)}}


@pytest.fixture(scope="module")
def plugin(cluster: Cluster, plugin_image: Path, values: Object) -> Iterator[Plugin]:
    """The chart with DRA, and nothing else on."""
    if cluster.minor < (1, 36):
        pytest.skip("resource.k8s.io/v1 with extended resources and taints is of 1.36 and later")
    cluster.import_image(plugin_image)
    with installed(cluster, values) as running:
        dra.wait_for_devices(cluster, 6)
        yield running
    wait_for("its slices to go", lambda: not dra.slices(cluster), seconds=60)


def test_ready_is_published(cluster: Cluster, plugin: Plugin) -> None:
    """helm has waited for it: the slices are there as soon as the pod is ready."""
    address = cluster.get("pod", plugin.pod(), NAMESPACE)["status"]["podIP"]
    url = f"http://{address}:9400/metrics"
    said = output(inside(cluster.layout, ["busybox", "wget", "-qO-", url])).splitlines()
    for metric in ("registered", "published", "slice_writes_total"):
        assert f"moffett_device_plugin_dra_{metric} 1.0" in said
    assert not counts(cluster).allocatable


def test_the_manuals_pod_gets_its_devices_by_the_charts_class(
    cluster: Cluster, plugin: Plugin
) -> None:
    cluster.create(MANUAL / "spu-pod.yml")
    try:
        wait_for_phase(cluster, "spu-pod")
        assert len(assigned(cluster, "spu-pod").ids) == 2
        assert cluster.get("pod", "spu-pod")["status"]["extendedResourceClaimStatus"]
    finally:
        cluster.discard("pod", "spu-pod")


def test_a_drivers_token_writes_slices_of_its_own_node_and_driver_only(
    cluster: Cluster, plugin: Plugin, tmp_path: Path
) -> None:
    own = cluster.layout.node

    def slice_for(node: str, driver: str = dra.CLASS) -> Object:
        pool = {"name": node, "generation": 1, "resourceSliceCount": 1}
        return {
            "apiVersion": "resource.k8s.io/v1",
            "kind": "ResourceSlice",
            "metadata": {"name": "forged"},
            "spec": {"driver": driver, "nodeName": node, "pool": pool, "devices": []},
        }

    def said(token: str, given: Object) -> str:
        """Return what the API server says to a slice by the holder of a token."""
        client = f"--kubeconfig={kubeconfig_of(cluster, token, tmp_path)}"
        words = ("apply", "--server-side", "--validate=false", "--dry-run=server", "-f", "-")
        return cluster.kubectl(client, *words, stdin=json.dumps(given), check=False).stderr

    token = token_of(cluster, plugin)
    # The policy takes effect some moments after it was made.
    refused = 'may not change a ResourceSlice of node "other"'
    wait_for(
        "the policy",
        lambda: refused in said(token, slice_for("other")),
        seconds=30,
        describe=lambda: said(token, slice_for("other")),
    )
    assert said(token, slice_for(own)) == ""
    assert 'of driver "gpu.example.com"' in said(token, slice_for(own, "gpu.example.com"))
    unbound = cluster.kubectl("create", "token", RELEASE, "-n", NAMESPACE).stdout.strip()
    assert 'on node "" may not change' in said(unbound, slice_for(own))

    cluster.create(slice_for("other"))
    try:
        client = f"--kubeconfig={kubeconfig_of(cluster, token, tmp_path)}"
        words = ("delete", "--raw", "/apis/resource.k8s.io/v1/resourceslices/forged")
        assert refused in cluster.kubectl(client, *words, check=False).stderr
    finally:
        cluster.kubectl("delete", "resourceslice", "forged")


def test_slices_go_with_their_node(cluster: Cluster, plugin: Plugin) -> None:
    """The driver owns nothing that is left when nobody runs it any more."""
    other = {"apiVersion": "v1", "kind": "Node", "metadata": {"name": "short-lived"}}
    cluster.create(other)
    uid = cluster.get("node", "short-lived")["metadata"]["uid"]
    (own,) = dra.slices(cluster)
    owner = {**own["metadata"]["ownerReferences"][0], "name": "short-lived", "uid": uid}
    spec = {**own["spec"], "nodeName": "short-lived", "devices": []}
    spec["pool"] = {**spec["pool"], "name": "short-lived"}
    cluster.create(
        {
            "apiVersion": "resource.k8s.io/v1",
            "kind": "ResourceSlice",
            "metadata": {"name": "short-lived", "ownerReferences": [owner]},
            "spec": spec,
        }
    )
    cluster.kubectl("delete", "node", "short-lived", "--wait=false")
    wait_for("the slice to go", lambda: len(dra.slices(cluster)) == 1, seconds=60)


#: The templates of docs/dra.md, and how many chips on how many cards a pod gets by each.
EXAMPLES = {
    "one-card": (3, 1),
    "card-or-numa-node": (3, 1),
    "spread": (2, 2),
    "by-product": (1, 1),
    "watch-all": (6, 2),
}


def examples(cluster: Cluster) -> tuple[dict[str, Object], Object]:
    """Return the templates of the page by their names, and its pod."""
    page = (ROOT / "docs" / "dra.md").read_text()
    blocks = re.findall(r"(?ms)^```yaml\n(.*?)^```$", page)
    texts = [text for block in blocks for text in block.split("---\n")]
    words = ("create", "--dry-run=client", "-o", "json", "-f", "-")
    found: list[Object] = [
        json.loads(cluster.kubectl(*words, stdin=text).stdout)
        for text in texts
        if re.search(r"^kind: (Pod|ResourceClaimTemplate)$", text, re.MULTILINE)
    ]
    (pod,) = [item for item in found if item["kind"] == "Pod"]
    templates = {item["metadata"]["name"]: item for item in found if item is not pod}
    assert templates.keys() == EXAMPLES.keys(), "a test of every example"
    return templates, pod


@pytest.mark.parametrize("name", EXAMPLES)
def test_an_example_of_the_page_gives_what_it_says(
    cluster: Cluster, plugin: Plugin, name: str
) -> None:
    templates, pod = examples(cluster)
    pod["metadata"]["name"] = name
    pod["spec"]["resourceClaims"][0]["resourceClaimTemplateName"] = name
    pod["spec"]["containers"][0]["image"] = WORKLOAD_IMAGE
    label = "resource.kubernetes.io/admin-access"
    cluster.kubectl("label", "namespace", "default", f"{label}=true", "--overwrite")
    try:
        cluster.create(templates[name])
        cluster.create(pod)
        wait_for_phase(cluster, name)
        ids = assigned(cluster, name).ids
        card_of = {id_: device["card"] for id_, device in plugin.devices().items()}
        assert (len(ids), len({card_of[id_] for id_ in ids})) == EXAMPLES[name]
    finally:
        cluster.discard("pod", name)
        cluster.kubectl("delete", "resourceclaimtemplate", name, "--ignore-not-found")
        cluster.kubectl("label", "namespace", "default", f"{label}-")


def test_an_upgrade_to_the_device_plugin_api_and_back(
    cluster: Cluster, plugin: Plugin, values: Object
) -> None:
    """The rights stay for as long as claims may have devices."""
    upgrade(cluster, {**values, "deviceApi": "device-plugin", "dra": {"enabled": True}})
    wait_for_count(cluster, 6)
    wait_for("the slices to go", lambda: not dra.slices(cluster), seconds=60)
    upgrade(cluster, values)
    dra.wait_for_devices(cluster, 6, seconds=SECONDS)
    wait_for("nothing to be advertised", lambda: not counts(cluster).allocatable, seconds=SECONDS)


def test_both_apis_have_devices_of_their_own(
    cluster: Cluster, plugin: Plugin, values: Object
) -> None:
    """A pod with limits gets those of the device plugin, a claim the others."""
    first = {"numaNode": 0}
    inline = {"resources": [{"deviceApi": "dra", "select": first}, {"exclude": first}]}
    upgrade(cluster, {**values, "deviceApi": None, "config": {"inline": inline}})
    try:
        wait_for_count(cluster, 3)
        dra.wait_for_devices(cluster, 3)
        cluster.create(workload("by-limits", 3))
        cluster.create(dra.claim("three", dra.exactly(count=3)))
        cluster.create(dra.pod_of("by-claim", "three"))
        for pod in ("by-limits", "by-claim"):
            wait_for_phase(cluster, pod)
        assert "extendedResourceClaimStatus" not in cluster.get("pod", "by-limits")["status"]
        given = [set(assigned(cluster, pod).ids) for pod in ("by-limits", "by-claim")]
        assert [len(ids) for ids in given] == [3, 3]
        assert not given[0] & given[1]
    finally:
        for pod in ("by-limits", "by-claim"):
            cluster.discard("pod", pod)
        cluster.kubectl("delete", "resourceclaims", "--all", "--timeout=45s")
        upgrade(cluster, values)
        dra.wait_for_devices(cluster, 6, seconds=SECONDS)
