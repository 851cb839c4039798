"""Devices through DRA: claims, pods, faults and restarts on a real Kubernetes."""

from __future__ import annotations

import json
import os
import signal
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import pytest
from cluster import dra
from cluster.cluster import Cluster, Object
from cluster.dra import (
    CARD,
    CONFIG,
    LABEL,
    cel,
    claim,
    claim_of,
    exactly,
    pod_of,
    refusal_of,
    template,
)
from cluster.plugin import (
    NAMESPACE,
    SECONDS,
    Plugin,
    assigned,
    container_identity,
    counts,
    plugin_processes,
    stays_pending,
    wait_for_count,
    wait_for_phase,
    wait_for_plugin_processes,
    workload,
)
from cluster.shell import CommandError, wait_for
from conftest import MANIFESTS, MANUAL

ONE_CARD = [{"matchAttribute": CARD}]
GRACE = "--grace-period=0"


@pytest.fixture(scope="module")
def driver(cluster: Cluster, simulated_image: object) -> Iterator[Plugin]:
    """The plugin on a node whose label says DRA."""
    if cluster.minor < (1, 36):
        pytest.skip("resource.k8s.io/v1 with extended resources and taints is of 1.36 and later")
    assert isinstance(simulated_image, Path)
    cluster.import_image(simulated_image)
    label(cluster, "dra")
    config = {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {"name": "moffett-dra", "namespace": NAMESPACE},
        "data": {"config.yaml": CONFIG},
    }
    cluster.create(config)
    cluster.create(MANIFESTS / "dra.yml")
    running = Plugin(cluster, "app=moffett-dra")
    try:
        try:
            dra.wait_for_devices(cluster, 6, seconds=60)
        except AssertionError as error:
            for pod in cluster.find("pods", NAMESPACE, "app=moffett-dra"):
                error.add_note(cluster.logs(pod["metadata"]["name"], NAMESPACE))
                error.add_note(str(pod["status"]))
            raise
        yield running
    finally:
        cluster.kubectl("delete", "deviceclass", dra.CLASS, "--ignore-not-found")
        running.discard("moffett-dra")
        cluster.kubectl("label", "node", cluster.layout.node, f"{LABEL}-")
        cluster.kubectl("delete", "-f", MANIFESTS / "dra.yml", "--ignore-not-found")
        cluster.delete("configmap", "moffett-dra", NAMESPACE)


def label(cluster: Cluster, api: str) -> None:
    cluster.kubectl("label", "node", cluster.layout.node, f"{LABEL}={api}", "--overwrite")


@pytest.fixture(autouse=True)
def clean(cluster: Cluster, driver: Plugin) -> Iterator[None]:
    """After each test: all chips well and free, nothing of it left."""
    yield
    text = cluster.kubectl("get", "pods", "-o", "name").stdout.split()
    if text:
        cluster.kubectl("delete", *text, "--force", GRACE, "--timeout=45s")
    for kind in ("resourceclaims", "resourceclaimtemplates"):
        cluster.kubectl("delete", kind, "--all", "--timeout=45s")
    for id_, device in driver.devices().items():
        if not device["healthy"]:
            driver.simulate("heal", id_)
    wait_for("no claim to be prepared", lambda: not dra.specs(cluster), seconds=60)
    untainted = lambda: not any(d.get("taints") for d in dra.devices(cluster).values())  # noqa: E731
    wait_for("all chips to be well", untainted, seconds=SECONDS)
    dra.wait_for_devices(cluster, 6)


def start(cluster: Cluster, *objects: Object, wait: bool = True) -> None:
    """Create objects and wait until the pods among them run."""
    for made in objects:
        cluster.create(made)
    if wait:
        for made in objects:
            if made["kind"] == "Pod":
                wait_for_running(cluster, made["metadata"]["name"])


def wait_for_running(cluster: Cluster, pod: str) -> None:
    """As `wait_for_phase`, for a pod whose first Prepare may fail: a kubelet tries it again
    after a minute or more."""

    def reached() -> bool:
        phase = cluster.phase(pod)
        assert phase != "Failed", cluster.get("pod", pod)["status"]
        return phase == "Running"

    wait_for(f"{pod} to run", reached, seconds=150)


def names(ids: Sequence[str]) -> list[str]:
    """Return the devices' names of chips by their ids."""
    return sorted(id_.replace(":", "-").replace(".", "-") for id_ in ids)


def cards(cluster: Cluster) -> dict[str, list[str]]:
    """Return the devices of each card."""
    found: dict[str, list[str]] = {}
    for name, device in dra.devices(cluster).items():
        found.setdefault(device["attributes"]["card"]["string"], []).append(name)
    return found


# --- what is published --------------------------------------------------------------------


def test_every_chip_is_published_and_none_as_a_resource(cluster: Cluster, driver: Plugin) -> None:
    (only,) = dra.slices(cluster)
    assert only["spec"]["pool"] == {
        "name": cluster.layout.node,
        "generation": 1,
        "resourceSliceCount": 1,
    }
    (owner,) = only["metadata"]["ownerReferences"]
    assert owner["uid"] == cluster.node()["metadata"]["uid"]
    assert [len(on_card) for on_card in cards(cluster).values()] == [3, 3]
    assert not counts(cluster).allocatable
    assert dra.devices(cluster).keys() == set(names(list(driver.devices())))


def test_a_slice_that_is_edited_or_deleted_is_back(cluster: Cluster, driver: Plugin) -> None:
    (only,) = dra.slices(cluster)
    name = only["metadata"]["name"]
    patch = '{"spec":{"devices":[]}}'
    cluster.kubectl("patch", "resourceslice", name, "--type=merge", "-p", patch)
    dra.wait_for_devices(cluster, 6, seconds=5)
    cluster.kubectl("delete", "resourceslice", name)
    dra.wait_for_devices(cluster, 6, seconds=5)


# --- pods ------------------------------------------------------------------------------


def test_the_manuals_pod_runs_byte_for_byte(
    cluster: Cluster, driver: Plugin, measured: Callable[[str], None]
) -> None:
    began = time.monotonic()
    cluster.create(MANUAL / "spu-pod.yml")
    wait_for_phase(cluster, "spu-pod")
    measured(f"the manual's pod through DRA runs after {time.monotonic() - began:.1f} s")
    made = claim_of(cluster, "spu-pod")
    given = assigned(cluster, "spu-pod")
    assert len(given.ids) == 2
    assert names(given.ids) == sorted(dra.allocated(cluster, made))
    assert given.nodes == tuple(sorted(f"/dev/spu-sim{index}" for index in given.indexes))
    assert cluster.get("pod", "spu-pod")["status"]["extendedResourceClaimStatus"]
    cluster.discard("pod", "spu-pod")
    wait_for("its spec to go", lambda: not dra.specs(cluster), seconds=SECONDS)
    wait_for(
        "its claim to go",
        lambda: not cluster.answers("get", "resourceclaim", made),
        seconds=SECONDS,
    )


def test_three_chips_of_one_card_by_a_constraint(cluster: Cluster, driver: Plugin) -> None:
    first, second = cards(cluster).values()
    selector = cel(f'device.attributes["{dra.CLASS}"].card == "{next(iter(cards(cluster)))}"')
    start(cluster, claim("taken", exactly(selectors=selector)), pod_of("taken", "taken"))
    assert dra.allocated(cluster, "taken")[0] in first
    start(
        cluster,
        template("one-card", exactly(count=3), constraints=ONE_CARD),
        pod_of("whole", from_template="one-card"),
    )
    assert names(assigned(cluster, "whole").ids) == sorted(second)


def test_plain_limits_take_the_first_that_are_free(cluster: Cluster, driver: Plugin) -> None:
    """What is lost against the device plugin, which would take a whole card."""
    start(cluster, workload("one", 1), workload("three", 3))
    on = {name: card for card, found in cards(cluster).items() for name in found}
    assert len({on[name] for name in names(assigned(cluster, "three").ids)}) == 2


def test_a_seventh_chip_waits_until_one_is_free(cluster: Cluster, driver: Plugin) -> None:
    start(cluster, *(workload(f"pod-{number}", 2) for number in range(3)))
    start(cluster, workload("waits", 1), wait=False)
    assert "cannot allocate all claims" in stays_pending(cluster, "waits")
    cluster.delete("pod", "pod-0")
    wait_for_phase(cluster, "waits")


def test_each_container_sees_its_request_and_a_claim_can_be_shared(
    cluster: Cluster, driver: Plugin
) -> None:
    start(
        cluster,
        claim("two", exactly("a"), exactly("b", 2)),
        pod_of("first", "two", containers={"a": "a", "b": "b"}),
        pod_of("second", "two", containers={"a": "a", "b": "b"}),
    )

    def seen(pod: str, container: str) -> list[str]:
        words = ("exec", pod, "-c", container, "--", "env")
        lines = cluster.kubectl(*words).stdout.splitlines()
        (line,) = [line for line in lines if line.startswith("MOFFETT_SPU_IDS=")]
        found = cluster.kubectl(
            "exec", pod, "-c", container, "--", "find", "/dev", "-name", "spu-*"
        ).stdout.split()
        ids = line.partition("=")[2].split(",")
        assert len(found) == len(ids)
        return ids

    assert len(seen("first", "a")) == 1
    assert len(seen("first", "b")) == 2
    assert not set(seen("first", "a")) & set(seen("first", "b"))
    for container in ("a", "b"):
        assert seen("first", container) == seen("second", container)


def test_chips_are_selected_by_what_they_are(cluster: Cluster, driver: Plugin) -> None:
    chip = sorted(driver.devices())[4]
    by_bus = f'device.attributes["resource.kubernetes.io"].pciBusID == "{chip}"'
    by_node = (
        'device.attributes["resource.kubernetes.io"].numaNode == 1 &&'
        f' device.attributes["{dra.CLASS}"].product == "S30" &&'
        f' device.capacity["{dra.CLASS}"].memory.compareTo(quantity("15Gi")) >= 0'
    )
    start(
        cluster,
        claim("by-bus", exactly(selectors=cel(by_bus))),
        pod_of("by-bus", "by-bus"),
        claim("by-node", exactly(selectors=cel(by_node), count=2)),
        pod_of("by-node", "by-node"),
    )
    assert assigned(cluster, "by-bus").ids == (chip,)
    devices = driver.devices()
    assert {devices[id_]["numa_node"] for id_ in assigned(cluster, "by-node").ids} == {1}


def test_a_wrong_selector_disturbs_nobody_else(cluster: Cluster, driver: Plugin) -> None:
    wrong = cel(f'device.attributes["{dra.CLASS}"].nosuch == "x"')
    start(cluster, claim("wrong", exactly(selectors=wrong)), pod_of("wrong", "wrong"), wait=False)
    assert "nosuch" in stays_pending(cluster, "wrong") or "no such key" in stays_pending(
        cluster, "wrong"
    )
    start(cluster, workload("right", 1))


def test_the_second_choice_where_no_card_is_whole(cluster: Cluster, driver: Plugin) -> None:
    first, second = (
        cel(f'device.attributes["{dra.CLASS}"].card == "{card}"') for card in cards(cluster)
    )
    start(
        cluster,
        claim("in-each", exactly("a", selectors=first), exactly("b", selectors=second)),
        pod_of("in-each", "in-each"),
    )
    choice = {
        "name": "spus",
        "firstAvailable": [
            {"name": "card", "deviceClassName": dra.CLASS, "count": 3},
            {"name": "numa", "deviceClassName": dra.CLASS, "count": 2},
        ],
    }
    constraints = [
        {"requests": ["spus/card"], "matchAttribute": CARD},
        {"requests": ["spus/numa"], "matchAttribute": "resource.kubernetes.io/numaNode"},
    ]
    start(cluster, claim("choice", choice, constraints=constraints), pod_of("choice", "choice"))
    assert len(assigned(cluster, "choice").ids) == 2


def test_a_monitor_sees_all_chips_and_disturbs_nobody(cluster: Cluster, driver: Plugin) -> None:
    start(cluster, workload("all", 6))
    watch = {
        "name": "all",
        "exactly": {"deviceClassName": dra.CLASS, "allocationMode": "All", "adminAccess": True},
    }
    with pytest.raises(CommandError, match="admin"):
        cluster.create(claim("watch", watch))
    key = "resource.kubernetes.io/admin-access"
    cluster.kubectl("label", "namespace", "default", f"{key}=true")
    try:
        start(cluster, claim("watch", watch), pod_of("watch", "watch"))
        assert len(assigned(cluster, "watch").ids) == 6
        before = container_identity(cluster, "all")
        cluster.discard("pod", "watch")
        assert container_identity(cluster, "all") == before
    finally:
        cluster.kubectl("label", "namespace", "default", f"{key}-")


# --- health -----------------------------------------------------------------------------


def test_a_sick_chip_is_tainted_and_its_pod_says_why(
    cluster: Cluster, driver: Plugin, measured: Callable[[str], None]
) -> None:
    start(cluster, claim("one"), pod_of("works", "one"))
    (chip,) = assigned(cluster, "works").ids
    (device,) = names([chip])
    before = container_identity(cluster, "works")
    began = time.monotonic()
    driver.simulate("inject", chip, "ecc")
    wait_for("the taint", lambda: dra.taints(cluster, device), seconds=SECONDS, every=0.02)
    measured(f"from a fault to the taint, kubectl exec included: {time.monotonic() - began:.2f} s")
    assert {effect for _, effect in dra.taints(cluster, device)} == {"NoSchedule"}

    def health() -> list[Object]:
        status = cluster.get("pod", "works")["status"]["containerStatuses"][0]
        found = status.get("allocatedResourcesStatus", [])
        return [r for one in found for r in one["resources"] if r["health"] == "Unhealthy"]

    (unhealthy,) = wait_for("the pod's status to say it", health, seconds=SECONDS)
    assert unhealthy["resourceID"] == f"moffett.ai/spu={chip}"
    assert "ecc" in unhealthy["message"]
    start(cluster, workload("others", 5))
    assert chip not in assigned(cluster, "others").ids
    driver.simulate("heal", chip)
    wait_for("no taint", lambda: not dra.taints(cluster, device), seconds=SECONDS)
    wait_for("the pod's status to say so", lambda: not health(), seconds=SECONDS)
    assert container_identity(cluster, "works") == before


def test_pods_are_evicted_for_the_chosen_reasons(
    cluster: Cluster, driver: Plugin, measured: Callable[[str], None]
) -> None:
    tolerant = exactly(
        tolerations=[{"operator": "Exists", "effect": "NoExecute", "tolerationSeconds": 300}]
    )
    start(
        cluster,
        claim("goes"),
        pod_of("goes", "goes"),
        claim("stays", tolerant),
        pod_of("stays", "stays"),
    )
    began = time.monotonic()
    for pod in ("stays", "goes"):
        driver.simulate("inject", assigned(cluster, pod).ids[0], "hot")

    def evicted() -> bool:
        return cluster.phase("goes") == "Gone" or "deletionTimestamp" in str(
            cluster.get("pod", "goes")["metadata"]
        )

    wait_for("the eviction", evicted, seconds=SECONDS, every=0.05)
    measured(
        f"from a fault to the eviction, kubectl exec included: {time.monotonic() - began:.2f} s"
    )
    assert cluster.phase("stays") == "Running"
    assert "deletionTimestamp" not in cluster.get("pod", "stays")["metadata"]


def test_a_chip_that_fails_before_its_pod_starts_is_not_given(
    cluster: Cluster, driver: Plugin
) -> None:
    """The scheduler had chosen it; the pod starts when it is well."""
    chip = sorted(driver.devices())[0]
    with kubelet_stopped(cluster):
        start(cluster, claim("late"), pod_of("late", "late"), wait=False)
        wait_for("the allocation", lambda: dra.allocated(cluster, "late"), seconds=SECONDS)
        assert dra.allocated(cluster, "late") == names([chip])
        inject(cluster, chip, "ecc")
        wait_for("the taint", lambda: dra.taints(cluster, names([chip])[0]), seconds=SECONDS)
    assert chip in refusal_of(cluster, "late")
    driver.simulate("heal", chip)
    tries_at_once(cluster)
    wait_for("the pod to start", lambda: cluster.phase("late") == "Running", seconds=120)


def tries_at_once(cluster: Cluster) -> None:
    """A kubelet that starts prepares what waits; one that runs does so after up to 90 s."""
    with kubelet_stopped(cluster):
        pass


@contextmanager
def kubelet_stopped(cluster: Cluster) -> Iterator[None]:
    before = cluster.layout.kubelet_socket.stat().st_ctime_ns
    cluster.services.stop("kubelet", signal.SIGTERM)
    try:
        yield
    finally:
        cluster._start_kubelet(before)


def inject(cluster: Cluster, chip: str, fault: str) -> None:
    """Break a chip without a kubelet: as `kubectl exec` would."""
    (container,) = [
        line.split()[0]
        for line in cluster.ctr("containers", "ls").stdout.splitlines()
        if "moffett/k8s-device-plugin" in line and running(cluster, line.split()[0])
    ]
    cluster.ctr(
        *("tasks", "exec", "--exec-id", "inject", container),
        *("moffett-device-plugin", "simulate", "inject", chip, fault),
    )


def running(cluster: Cluster, container: str) -> bool:
    tasks = cluster.ctr("tasks", "ls").stdout.splitlines()
    return any(line.split()[0] == container and "RUNNING" in line for line in tasks)


# --- never two holders ---------------------------------------------------------------------


def test_a_pod_deleted_by_force_keeps_its_chip_until_it_has_ended(
    cluster: Cluster, driver: Plugin
) -> None:
    start(cluster, workload("most", 5))
    slow = workload("slow", 1)
    slow["spec"]["terminationGracePeriodSeconds"] = 30
    slow["spec"]["containers"][0]["lifecycle"] = {"preStop": {"exec": {"command": ["sleep", "8"]}}}
    start(cluster, slow)
    chip = assigned(cluster, "slow").ids
    (uid,) = set(dra.specs(cluster)) - {
        cluster.get("resourceclaim", claim_of(cluster, "most"))["metadata"]["uid"]
    }
    cluster.kubectl("delete", "pod", "slow", "--force", GRACE, "--wait=false")
    start(cluster, workload("next", 1), wait=False)
    overlapped = []

    def runs() -> bool:
        phase = cluster.phase("next") == "Running"
        if phase and uid in dra.specs(cluster):
            overlapped.append(time.monotonic())
        return phase

    wait_for("the next pod", runs, seconds=90)
    assert not overlapped
    assert assigned(cluster, "next").ids == chip


def test_a_claim_that_says_it_has_another_claims_chip_is_refused(
    cluster: Cluster, driver: Plugin
) -> None:
    start(cluster, claim("real"), pod_of("real", "real"))
    held = dra.allocated(cluster, "real")[0]
    node = cluster.layout.node
    cluster.create(claim("forged"))
    pod = pod_of("forged", "forged")
    pod["spec"]["nodeName"] = node  # past the scheduler
    with kubelet_stopped(cluster):  # it sees the pod when its claim is reserved
        cluster.create(pod)
        uid = cluster.get("pod", "forged")["metadata"]["uid"]
        result = {"request": "spus", "driver": dra.CLASS, "pool": node, "device": held}
        forged = cluster.get("resourceclaim", "forged")
        forged["status"] = {
            "allocation": {"devices": {"results": [result]}},
            "reservedFor": [{"resource": "pods", "name": "forged", "uid": uid}],
        }
        path = "/apis/resource.k8s.io/v1/namespaces/default/resourceclaims/forged/status"
        cluster.kubectl("replace", "--raw", path, "-f", "-", stdin=json.dumps(forged))
    wait_for(
        "the refusal",
        lambda: "is held by claim default/real" in refusal_of(cluster, "forged"),
        seconds=150,
    )
    assert cluster.phase("forged") == "Pending"
    assert len(dra.specs(cluster)) == 1
    cluster.delete("pod", "real")
    tries_at_once(cluster)
    wait_for("the pod to start", lambda: cluster.phase("forged") == "Running", seconds=120)


# --- restarts ------------------------------------------------------------------------------


@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGKILL])
def test_a_kubelet_restart_under_running_claims(
    cluster: Cluster, driver: Plugin, how: signal.Signals, measured: Callable[[str], None]
) -> None:
    start(cluster, claim("one"), pod_of("works", "one"))
    before, specs = container_identity(cluster, "works"), dra.specs(cluster)
    (only,) = dra.slices(cluster)
    uid = only["metadata"]["uid"]
    cluster.restart_kubelet(how)
    began = time.monotonic()

    def again() -> bool:
        found = dra.slices(cluster)
        return bool(found) and found[0]["metadata"]["uid"] != uid

    wait_for("the slice to be made anew", again, seconds=SECONDS, every=0.02)
    measured(f"slices back {time.monotonic() - began:.2f} s after the new kubelet's first socket")
    dra.wait_for_devices(cluster, 6)
    assert container_identity(cluster, "works") == before
    assert dra.specs(cluster) == specs
    cluster.delete("pod", "works")
    wait_for("its spec to go", lambda: not dra.specs(cluster), seconds=SECONDS)


def test_a_driver_that_is_away_and_comes_back(cluster: Cluster, driver: Plugin) -> None:
    """Longer than the 30 s after which the kubelet deletes its slices."""
    start(cluster, claim("one"), pod_of("works", "one"), pod_of("ends", "one"))
    before = container_identity(cluster, "works")
    cluster.kubectl(
        *("-n", NAMESPACE, "patch", "daemonset", "moffett-dra", "--type=merge", "-p"),
        '{"spec":{"template":{"spec":{"nodeSelector":{"no":"such"}}}}}',
    )
    wait_for_plugin_processes(cluster, 0)
    dra.wait_for_devices(cluster, 0, seconds=60)
    cluster.delete("pod", "ends", wait=False)
    cluster.kubectl(
        *("-n", NAMESPACE, "patch", "daemonset", "moffett-dra", "--type=json", "-p"),
        '[{"op":"remove","path":"/spec/template/spec/nodeSelector"}]',
    )
    dra.wait_for_devices(cluster, 6, seconds=60)
    wait_for("the other pod to end", lambda: cluster.phase("ends") == "Gone", seconds=60)
    assert container_identity(cluster, "works") == before
    assert len(dra.specs(cluster)) == 1


def test_an_update_with_two_instances_under_claims(cluster: Cluster, driver: Plugin) -> None:
    start(cluster, claim("one"), pod_of("works", "one"))
    before = container_identity(cluster, "works")
    cluster.kubectl("-n", NAMESPACE, "rollout", "restart", "daemonset/moffett-dra")
    started: list[str] = []
    while True:
        pod = f"during-{len(started)}"
        start(cluster, workload(pod, 1))
        started.append(pod)
        cluster.delete("pod", pod)
        status = cluster.kubectl(
            *("-n", NAMESPACE, "rollout", "status", "daemonset/moffett-dra", "--watch=false")
        ).stdout
        if "successfully rolled out" in status and len(plugin_processes(cluster)) == 1:
            break
    assert container_identity(cluster, "works") == before
    sockets = list((cluster.layout.kubelet / "plugins_registry").glob("spu-dra-*"))
    assert len(sockets) == 1
    cluster.delete("pod", "works")
    wait_for("its spec to go", lambda: not dra.specs(cluster), seconds=SECONDS)


def test_an_instance_that_is_killed_leaves_nothing_behind(cluster: Cluster, driver: Plugin) -> None:
    (pid,) = plugin_processes(cluster)
    os.kill(pid, signal.SIGKILL)
    wait_for("a new instance", lambda: plugin_processes(cluster) not in ([], [pid]), seconds=60)
    start(cluster, workload("after", 1))
    sockets = cluster.layout.kubelet / "plugins_registry"
    wait_for(
        "the old socket to go", lambda: len(list(sockets.glob("spu-dra-*"))) == 1, seconds=SECONDS
    )


def test_a_node_that_reboots_with_nothing_in_var_run(cluster: Cluster, driver: Plugin) -> None:
    start(
        cluster,
        template("one-card", exactly(count=3), constraints=ONE_CARD),
        pod_of("works", from_template="one-card", restarts=True),
    )
    before = container_identity(cluster, "works")[0]

    def empty() -> None:
        for path in cluster.layout.cdi.iterdir():
            path.unlink()

    cluster.reboot(empty)

    def again() -> bool:
        status = cluster.get("pod", "works")["status"]
        (container,) = status.get("containerStatuses") or [{}]
        return container.get("ready") is True and container.get("containerID") != before

    wait_for("the pod after the reboot", again, seconds=120)
    assert len(assigned(cluster, "works").ids) == 3
    wait_for_phase(cluster, "works")
    start(cluster, workload("others", 3))


@pytest.mark.parametrize("kind", ["claim", "limits"])
def test_specs_that_somebody_deletes_are_back(cluster: Cluster, driver: Plugin, kind: str) -> None:
    if kind == "claim":
        start(cluster, claim("one"), pod_of("works", "one", restarts=True))
    else:
        start(cluster, workload("works", 1, restarts=True))
    for path in cluster.layout.cdi.glob("*.json"):
        path.unlink()
    wait_for("the spec", lambda: dra.specs(cluster), seconds=15)
    cluster.exec("works", "kill", "1", check=False)
    cluster.exec("works", "kill", "-KILL", "-1", check=False)
    wait_for(
        "the container to be started again",
        lambda: container_identity(cluster, "works")[1] > 0 and cluster.phase("works") == "Running",
        seconds=60,
    )
    wait_for("its devices", lambda: len(assigned(cluster, "works").ids) == 1, seconds=SECONDS)


def test_without_an_api_server_pods_end_and_the_slice_is_right_afterwards(
    cluster: Cluster, driver: Plugin
) -> None:
    chip = sorted(driver.devices())[5]
    cluster.services.stop("kube-apiserver", signal.SIGTERM)
    try:
        inject(cluster, chip, "ecc")
        time.sleep(20)
    finally:
        cluster.services.start("kube-apiserver")
    wait_for("the API server", lambda: cluster.answers("get", "--raw", "/readyz"), seconds=60)
    (device,) = names([chip])
    wait_for("the taint", lambda: dra.taints(cluster, device), seconds=SECONDS)
    # The scheduler and the controllers come back in their own time.
    start(cluster, workload("schedulable", 1))


@contextmanager
def gates(cluster: Cluster, text: str) -> Iterator[None]:
    """The API server with other feature gates for a block."""
    usual = cluster._commands["kube-apiserver"]

    def restart(command: list[str]) -> None:
        cluster._commands["kube-apiserver"] = command
        cluster.services.stop("kube-apiserver", signal.SIGTERM)
        cluster.services.start("kube-apiserver")
        ready = lambda: cluster.answers("get", "--raw", "/readyz")  # noqa: E731
        wait_for("the API server", ready, seconds=60, describe=cluster.describe_services)

    try:
        restart([*usual, f"--feature-gates={text}"])
        yield
    finally:
        if not cluster.services.alive("kube-apiserver"):
            cluster.services.start("kube-apiserver")
        restart(usual)


def test_where_taints_are_not_kept_a_sick_chip_leaves_the_slice(
    cluster: Cluster, driver: Plugin
) -> None:
    chip = sorted(driver.devices())[5]
    with gates(cluster, "DRADeviceTaints=false,DRADeviceTaintRules=false"):
        inject(cluster, chip, "ecc")
        dra.wait_for_devices(cluster, 5, seconds=60)
        assert names([chip])[0] not in dra.devices(cluster)
    # With the gate on again it is back, with its taint.
    wait_for("the taint", lambda: dra.taints(cluster, names([chip])[0]), seconds=60)
    start(cluster, workload("schedulable", 1))


# --- from one API to the other ---------------------------------------------------------------


def test_a_node_goes_to_the_device_plugin_api_and_back_under_pods(
    cluster: Cluster, driver: Plugin
) -> None:
    start(cluster, claim("one"), pod_of("by-claim", "one"))
    (held,) = assigned(cluster, "by-claim").ids
    label(cluster, "device-plugin")
    dra.wait_for_devices(cluster, 0)
    wait_for_count(cluster, 5, capacity=6)  # the claim's chip is unhealthy there
    start(cluster, workload("by-limits", 5))
    others = set(assigned(cluster, "by-limits").ids)
    assert held not in others
    # The claim's pod ends: the driver has stayed for it.
    cluster.delete("pod", "by-claim")
    wait_for("its spec to go", lambda: not dra.specs(cluster), seconds=SECONDS)
    wait_for_count(cluster, 6)

    label(cluster, "dra")
    dra.wait_for_devices(cluster, 6)
    wait_for("nothing to be advertised", lambda: not counts(cluster).allocatable, seconds=SECONDS)

    def marked() -> bool:
        found = [
            name
            for name in dra.devices(cluster)
            if ("held", "NoSchedule") in dra.taints(cluster, name)
        ]
        return sorted(found) == names(sorted(others))

    wait_for("the pods' chips to be tainted", marked, seconds=60)
    cluster.delete("resourceclaim", "one")
    start(cluster, claim("again"), pod_of("again", "again"))
    assert assigned(cluster, "again").ids == (held,)
    cluster.delete("pod", "by-limits")
    free = lambda: not any(dra.taints(cluster, name) for name in dra.devices(cluster))  # noqa: E731
    wait_for("the chips to be free", free, seconds=90)
    start(cluster, workload("last", 5))


def test_pods_of_both_kinds_of_nodes_go_where_they_can(cluster: Cluster, driver: Plugin) -> None:
    """A node with the device plugin beside this one: no claim is made for a pod there."""
    other = {
        "apiVersion": "v1",
        "kind": "Node",
        "metadata": {"name": "other", "labels": {"kind": "other"}},
    }
    cluster.create(other)
    try:
        amounts = '{"moffett.ai/spu":"2","pods":"10","cpu":"4","memory":"8Gi"}'
        patch = (
            '{"status":{"conditions":[{"type":"Ready","status":"True"}],'
            f'"capacity":{amounts},"allocatable":{amounts}}}}}'
        )
        cluster.kubectl(
            "patch", "node", "other", "--subresource=status", "--type=merge", "-p", patch
        )
        cluster.kubectl("patch", "node", "other", "--type=merge", "-p", '{"spec":{"taints":null}}')
        there, here = workload("there", 2), workload("here", 2)
        there["spec"]["nodeSelector"] = {"kind": "other"}
        tolerant = [{"operator": "Exists"}]
        there["spec"]["tolerations"] = tolerant
        here["spec"]["nodeSelector"] = {LABEL: "dra"}
        start(cluster, here)
        start(cluster, there, wait=False)
        wait_for(
            "the pod to be bound",
            lambda: cluster.get("pod", "there")["spec"].get("nodeName") == "other",
            seconds=SECONDS,
        )
        assert "extendedResourceClaimStatus" not in cluster.get("pod", "there")["status"]
        assert claim_of(cluster, "here")
    finally:
        cluster.discard("pod", "there")
        cluster.kubectl("delete", "node", "other", "--wait=false")


# --- for a while ---------------------------------------------------------------------------


def test_many_short_pods_leave_nothing_behind(
    cluster: Cluster, driver: Plugin, measured: Callable[[str], None]
) -> None:
    start(cluster, template("one", exactly()))

    def resident() -> int:
        (pid,) = plugin_processes(cluster)
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
        (line,) = [line for line in lines if line.startswith("VmRSS")]
        return int(line.split()[1])

    def short(number: int) -> Object:
        name = f"short-{number}"
        pod = workload(name, 1) if number % 2 else pod_of(name, from_template="one")
        pod["spec"]["containers"][0]["command"] = ["true"]
        return pod

    def batch(first: int, size: int) -> None:
        made = [short(number) for number in range(first, first + size)]
        start(cluster, *made, wait=False)
        for pod in made:
            name = pod["metadata"]["name"]
            wait_for(f"{name} to end", lambda n=name: cluster.phase(n) == "Succeeded", seconds=120)  # type: ignore[misc]
        cluster.discard("pod", *(pod["metadata"]["name"] for pod in made))

    batch(0, 8)
    before = resident()
    for first in range(8, 200, 8):
        batch(first, 8)
    wait_for("no claim to be prepared", lambda: not dra.specs(cluster), seconds=60)
    measured(f"resident after 8 pods {before} KiB, after 200 {resident()} KiB")
    took = sorted(
        float(word.partition("=")[2])
        for line in cluster.logs(driver.pod(), NAMESPACE).splitlines()
        if "event=claim-prepared" in line
        for word in line.split()
        if word.startswith("took_ms=")
    )
    p50, p99 = took[len(took) // 2], took[len(took) * 99 // 100]
    measured(f"Prepare, in the driver's log: p50 {p50} ms, p99 {p99} ms of {len(took)}")
    assert resident() - before < 1024
