"""The chart, installed by helm, works without privileges, with the rights that it says and no
others; the file of the first ten minutes does what it says."""

from __future__ import annotations

import json
import re
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from cluster import helm
from cluster.accounts import kubeconfig_of, token_of
from cluster.cluster import Cluster
from cluster.fake_host import FakeHost, free_major, two_s30_cards
from cluster.helm import RELEASE, ROOT, installed, upgrade
from cluster.plugin import (
    NAMESPACE,
    SECONDS,
    AllocatableWatch,
    Plugin,
    assigned,
    counts,
    plugin_processes,
    wait_for_count,
    wait_for_nothing_offered,
    wait_for_phase,
    wait_for_plugin_processes,
)
from cluster.services import inside
from cluster.shell import output, wait_for
from conftest import MANUAL, StartPod

SIMULATED = {"simulate": "2xS30"}
ACCOUNT = f"system:serviceaccount:{NAMESPACE}:{RELEASE}"
SYS_CHROOT = 1 << 18


@pytest.fixture(scope="module", autouse=True)
def image(cluster: Cluster, plugin_image: Path) -> None:
    """The image as it is; an earlier module may have left a variant under its tag."""
    cluster.import_image(plugin_image)


@pytest.fixture(scope="module")
def plugin(cluster: Cluster) -> Iterator[Plugin]:
    """The chart's default but for the cards, which are simulated."""
    with installed(cluster, SIMULATED) as running:
        wait_for_count(cluster, 6)
        yield running


def status_of(pid: int) -> dict[str, str]:
    """Return the lines of /proc/PID/status."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return {name: value.strip() for name, _, value in (line.partition(":") for line in lines)}


def mounts_of(pid: int) -> dict[str, set[str]]:
    """Return what is mounted where in a process's eyes, with the mount's own options."""
    lines = [line.split() for line in Path(f"/proc/{pid}/mountinfo").read_text().splitlines()]
    return {words[4]: set(words[5].split(",")) for words in lines}


def capabilities(pid: int) -> set[int]:
    """Return the sets of capabilities that a process has or could get."""
    status = status_of(pid)
    return {int(status[name], 16) for name in ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb")}


def scrape(cluster: Cluster, plugin: Plugin, path: str = "metrics") -> str:
    """Return what the plugin's pod answers to a Prometheus."""
    address = cluster.get("pod", plugin.pod(), NAMESPACE)["status"]["podIP"]
    url = f"http://{address}:9400/{path}"
    return output(inside(cluster.layout, ["busybox", "wget", "-qO-", url]))


def test_the_process_has_no_rights(cluster: Cluster, plugin: Plugin) -> None:
    (pid,) = plugin_processes(cluster)
    assert capabilities(pid) == {0}
    status = status_of(pid)
    assert status["NoNewPrivs"] == "1"
    assert status["Seccomp"] == "2", "a filter"
    network = Path(f"/proc/{pid}/ns/net")
    assert network.stat().st_ino != cluster.layout.network_namespace.stat().st_ino


def test_it_can_write_the_kubelets_directory_and_nothing_else(
    cluster: Cluster, plugin: Plugin
) -> None:
    (pid,) = plugin_processes(cluster)
    mounts = mounts_of(pid)
    assert "ro" in mounts["/"]
    assert not [path for path in mounts if "serviceaccount" in path]
    kernels = ("/proc", "/sys", "/dev")
    writable = {
        path for path, options in mounts.items() if "rw" in options and not path.startswith(kernels)
    }
    assert writable == {
        "/var/lib/kubelet/device-plugins",
        "/run/moffett-device-plugin",  # the simulation's own, in memory of the pod
        # Files that every container has, made by the kubelet and the runtime.
        *({"/etc/hosts", "/etc/hostname", "/etc/resolv.conf"} & writable),
    }
    assert "ro" in mounts["/var/lib/kubelet/pod-resources"]


@pytest.mark.parametrize("privileged", [True, False])
def test_the_manuals_pod_runs_with_and_without_privileges(
    cluster: Cluster, plugin: Plugin, privileged: bool
) -> None:
    text = (MANUAL / "spu-pod.yml").read_text()
    if not privileged:
        text, changes = re.subn(r" +securityContext:\n +privileged: true\n", "", text)
        assert changes == 1
    cluster.kubectl("create", "-f", "-", stdin=text)
    try:
        wait_for_phase(cluster, "spu-pod")
        given = assigned(cluster, "spu-pod")
        assert len(given.ids) == 2
        assert given.nodes == tuple(sorted(f"/dev/spu-sim{index}" for index in given.indexes))
        for node in given.nodes:
            cluster.exec("spu-pod", "sh", "-c", f"echo x > {node}")
    finally:
        cluster.discard("pod", "spu-pod")


def test_metrics_name_the_pod_that_holds_a_device(
    cluster: Cluster, plugin: Plugin, start_pod: StartPod
) -> None:
    given = assigned(cluster, start_pod("held", 1))
    assert scrape(cluster, plugin, "readyz")
    pattern = rf'moffett_spu_allocation_info{{[^}}]*device="{given.ids[0]}"[^}}]*pod="held"'
    wait_for(
        "the metric of who holds what",
        lambda: re.search(pattern, scrape(cluster, plugin)),
        seconds=60,
    )


def test_upgrade_rollback_and_the_same_devices(
    cluster: Cluster, plugin: Plugin, start_pod: StartPod
) -> None:
    before = assigned(cluster, start_pod("stays", 2))

    def log_formats() -> list[str]:
        (container,) = cluster.get("pod", plugin.pod(), NAMESPACE)["spec"]["containers"]
        return [item["value"] for item in container["env"] if item["name"] == "SPU_LOG_FORMAT"]

    first = json.loads(helm.helm(cluster, "status", RELEASE, "-o", "json"))["version"]
    with AllocatableWatch(cluster) as watch:
        upgrade(cluster, {**SIMULATED, "log": {"format": "json"}})
        assert log_formats() == ["json"]
        helm.rollback(cluster, first)
        assert log_formats() == []
        wait_for_count(cluster, 6)
        if cluster.minor >= (1, 22):
            watch.assert_never_below(6)
    assert assigned(cluster, "stays") == before


def test_with_features_it_has_their_rights_and_no_others(cluster: Cluster, plugin: Plugin) -> None:
    features = {"labels": {"sink": "api"}, "events": True, "condition": True}
    upgrade(cluster, {**SIMULATED, **features})
    assert rights(cluster, NAMESPACE) == {"nodes": {"get", "patch"}, "nodes/status": {"patch"}}
    assert rights(cluster, "default")["events"] == {"create", "patch"}
    plugin.simulate("inject", "0000:b8:00.0", "ecc")
    wait_for(
        "the label", lambda: labels(cluster).get("moffett.ai/spu.count") == "6", seconds=SECONDS
    )

    def condition() -> str:
        conditions = cluster.node()["status"]["conditions"]
        return "".join(str(c["message"]) for c in conditions if c["type"] == "SPUHealthy")

    wait_for("the condition", lambda: "0000:b8:00.0" in condition(), seconds=SECONDS)
    wait_for(
        "the event",
        lambda: [e for e in cluster.find("events") if e["reason"] == "SPUUnhealthy"],
        seconds=SECONDS,
    )
    plugin.simulate("heal", "0000:b8:00.0")
    assert "api-forbidden" not in cluster.logs(plugin.pod(), NAMESPACE)
    upgrade(cluster, SIMULATED)
    assert rights(cluster, NAMESPACE) == {}


def test_the_nodes_annotation_takes_devices_out_of_service(
    cluster: Cluster, plugin: Plugin, measured: Callable[[str], None]
) -> None:
    upgrade(cluster, {**SIMULATED, "cordonAnnotation": True})
    assert rights(cluster, NAMESPACE) == {"nodes": {"list", "watch"}}
    node = cluster.layout.node
    wait_for(
        "the node to be read",
        lambda: "event=api-features" in cluster.logs(plugin.pod(), NAMESPACE),
        seconds=SECONDS,
    )
    began = time.monotonic()
    cordon = "moffett.ai/spu-cordon=0000:36:00.0,card-0000:b4:00.0"
    cluster.kubectl("annotate", "node", node, cordon)
    wait_for_count(cluster, 2, capacity=6)
    measured(f"from the annotation to the node's count: {time.monotonic() - began:.2f} s")
    cluster.kubectl("annotate", "node", node, "moffett.ai/spu-cordon-")
    wait_for_count(cluster, 6)
    upgrade(cluster, SIMULATED)


def labels(cluster: Cluster) -> dict[str, str]:
    """Return the node's labels."""
    found: dict[str, str] = cluster.node()["metadata"]["labels"]
    return found


def rights(cluster: Cluster, namespace: str) -> dict[str, set[str]]:
    """Return what the release's account may do, by resource, beyond what every account may."""
    everybody = granted(cluster, "system:serviceaccount:default:default", namespace)
    return {
        resource: verbs
        for resource, verbs in granted(cluster, ACCOUNT, namespace).items()
        if verbs != everybody.get(resource)
    }


def granted(cluster: Cluster, account: str, namespace: str) -> dict[str, set[str]]:
    """Return what an account may do to all objects of a resource, by resource."""
    groups = ("--as-group=system:authenticated", "--as-group=system:serviceaccounts")
    words = ("auth", "can-i", "--list", f"--as={account}", *groups, "-n", namespace, "--no-headers")
    found = {}
    for line in cluster.kubectl(*words).stdout.splitlines():
        match = re.match(r"(\S+) +\[\] +\[\] +\[([a-z ]+)\]", line)
        if match:
            found[match[1]] = set(match[2].split())
    return found


def test_uninstalling_leaves_nothing(cluster: Cluster, plugin: Plugin) -> None:
    kinds = "all,serviceaccounts,configmaps,clusterroles,clusterrolebindings,roles,rolebindings"

    def objects() -> list[str]:
        words = ("get", kinds, "--all-namespaces", "-l", helm.SELECTOR, "-o", "name")
        return cluster.kubectl(*words).stdout.split()

    assert objects()
    helm.uninstall(cluster)
    wait_for("everything to be gone", lambda: not objects(), seconds=SECONDS)
    # Only the kubelet's own files, and no socket.
    left = [path.name for path in (cluster.layout.kubelet / "device-plugins").glob("*spu*")]
    assert left == []


def test_a_pods_token_changes_its_own_node_and_no_other(cluster: Cluster, tmp_path: Path) -> None:
    if cluster.minor < (1, 30):
        pytest.skip("ValidatingAdmissionPolicy is from Kubernetes 1.30 on")
    own = cluster.layout.node
    # Only so that the DaemonSet has no pod for the other node.
    chosen = {"nodeSelector": {"kubernetes.io/hostname": own}}
    other = {"apiVersion": "v1", "kind": "Node", "metadata": {"name": "other-node"}}
    cluster.kubectl("create", "-f", "-", stdin=json.dumps(other))
    try:
        with installed(cluster, {**SIMULATED, **chosen, "labels": {"sink": "api"}}) as plugin:
            token = token_of(cluster, plugin)
            unbound = cluster.kubectl("create", "token", RELEASE, "-n", NAMESPACE).stdout.strip()

            def label(token: str, node: str) -> str:
                """Return what the API server says to a label by the holder of a token."""
                config = kubeconfig_of(cluster, token, tmp_path)
                manifest = {
                    "apiVersion": "v1",
                    "kind": "Node",
                    "metadata": {"name": node, "labels": {"moffett.ai/spu.present": "true"}},
                }
                # A patch without a look at the Node before it, to which there is no right.
                words = ("apply", "--server-side", "--validate=false", "-f", "-")
                given = json.dumps(manifest)
                client = f"--kubeconfig={config}"
                return cluster.kubectl(client, *words, stdin=given, check=False).stderr

            def said(token: str) -> str:
                return label(token, "other-node")

            # The policy takes effect some moments after it was made.
            refused = f'the token of the SPU device plugin on node "{own}" may not change node'
            wait_for(
                "the policy",
                lambda: refused in said(token),
                seconds=30,
                describe=lambda: said(token),
            )
            assert label(token, own) == ""
            assert 'on node "" may not change' in label(unbound, own)
    finally:
        cluster.delete("node", "other-node")


@pytest.mark.parametrize(
    "values", sorted((helm.CHART / "ci").glob("*-values.yaml")), ids=lambda p: p.stem
)
def test_the_api_server_takes_every_set_of_values(cluster: Cluster, values: Path) -> None:
    """What no schema knows: validation and admission, without making an object."""
    if values.stem == "dra-values" and cluster.minor < (1, 34):
        pytest.skip("the chart refuses DRA before Kubernetes 1.34")
    version = ".".join(map(str, cluster.minor))
    words = ("template", RELEASE, helm.CHART, "-f", values, "--kube-version", version)
    text = helm.helm(cluster, *words)
    manifests = [
        item
        for item in re.split(r"(?m)^---$", text)
        # Of the operator, whose definitions the cluster does not have.
        if item.strip() and "apiVersion: monitoring.coreos.com" not in item
    ]
    names = set(re.findall(r"(?m)^  namespace: (\S+)$", text)) - {NAMESPACE, "default"}
    for name in names:
        cluster.kubectl("create", "namespace", name)
    try:
        manifest = "---".join(manifests)
        done = cluster.kubectl("create", "--dry-run=server", "-f", "-", stdin=manifest, check=False)
        assert done.stderr == ""
    finally:
        for name in names:
            cluster.delete("namespace", name)


def test_the_default_waits_on_a_node_without_cards(cluster: Cluster) -> None:
    with installed(cluster, {}) as plugin:
        assert scrape(cluster, plugin, "readyz")
        assert plugin.devices() == {}
        assert not counts(cluster).allocatable


def test_another_user_than_root_cannot_use_the_kubelets_directory(cluster: Cluster) -> None:
    """Why the default is root: the directory is root's, and nobody else may write to it."""
    user = {"runAsUser": 65534, "runAsGroup": 65534, "runAsNonRoot": True}
    # Without probes the pod is ready as soon as it runs.
    values = {
        **SIMULATED,
        "security": {"containerSecurityContext": user},
        "metrics": {"enabled": False},
    }
    with installed(cluster, values) as plugin:
        said = wait_for("the log", lambda: denied(cluster, plugin), seconds=SECONDS)
        assert "/var/lib/kubelet/device-plugins" in said
        assert not counts(cluster).allocatable


def denied(cluster: Cluster, plugin: Plugin) -> str:
    """Return the line of the log that says why the kubelet cannot be served."""
    lines = cluster.logs(plugin.pod(), NAMESPACE).splitlines()
    return next((x for x in lines if "waiting-for-kubelet" in x and "Permission denied" in x), "")


@contextmanager
def fake_host(cluster: Cluster) -> Iterator[FakeHost]:
    """A host with two S30, as files."""
    major = free_major(Path("/proc/devices").read_text())
    fake = FakeHost(host_folder(cluster), two_s30_cards(major))
    fake.unmake()
    try:
        fake.make()
        yield fake
    finally:
        fake.unmake()
        shutil.rmtree(fake.root)


def host_folder(cluster: Cluster) -> Path:
    """Return where the fake host's root is."""
    return cluster.layout.state / "chart-host"


def test_with_the_hosts_root_mx_smi_is_heard_and_nodes_can_be_opened(
    cluster: Cluster, start_pod: StartPod
) -> None:
    with fake_host(cluster) as fake, installed(cluster, seeing_it(cluster, chroot=True)) as plugin:
        wait_for_count(cluster, 6)
        (pid,) = plugin_processes(cluster)
        assert capabilities(pid) == {0, SYS_CHROOT}
        host = {p: o for p, o in mounts_of(pid).items() if p.startswith("/host")}
        assert set(host) >= {"/host", "/host/dev"}
        # Their own options, that of folders mounted inside of /dev apart.
        assert "ro" in host["/host"] & host["/host/dev"]
        devices = plugin.devices()
        assert {device["card"] for device in devices.values()} == {"2023243080100", "2023243080101"}
        given = assigned(cluster, start_pod("opens", 2))
        own = [chip for chip in fake.chips if chip.bus_id in given.ids]
        assert given.nodes == tuple(sorted(f"/dev/{chip.node}" for chip in own))
        for chip in own:
            said = cluster.exec("opens", "cat", f"/dev/{chip.node}", check=False).stderr
            assert "No such device or address" in said, "the kernel's answer, not the cgroup's"


def seeing_it(cluster: Cluster, *, chroot: bool = False) -> helm.Values:
    """Return the values for a plugin that sees the fake host's root, and the real /dev."""
    return {
        "hostRoot": {"mode": "all", "path": str(host_folder(cluster)), "chroot": chroot},
        "extraVolumes": [{"name": "dev", "hostPath": {"path": "/dev"}}],
        "extraVolumeMounts": [{"name": "dev", "mountPath": "/host/dev", "readOnly": True}],
    }


@pytest.mark.parametrize(
    ("profile", "answer"),
    [("default", "Operation not permitted"), ("privileged", "No such device or address")],
)
def test_only_a_privileged_plugin_may_open_the_cards_itself(
    cluster: Cluster, profile: str, answer: str
) -> None:
    """Why mx-smi, which opens them, is for the privileged profile: the kernel's answers."""
    values = {**seeing_it(cluster), "security": {"profile": profile}}
    with fake_host(cluster) as fake, installed(cluster, values) as plugin:
        program = f"open('/host/dev/{fake.chips[0].node}')"
        words = ("python3", "-c", program)
        said = cluster.exec(plugin.pod(), *words, namespace=NAMESPACE, check=False).stderr
        assert answer in said


def test_the_privileged_profile_is_privileged(cluster: Cluster) -> None:
    with installed(cluster, {"security": {"profile": "privileged"}}) as plugin:
        (pid,) = plugin_processes(cluster)
        assert capabilities(pid) != {0}
        assert "ro" in mounts_of(pid)["/host"]
        assert plugin.devices() == {}, "the machine has no cards"


def test_cdi_specs_need_no_rights(cluster: Cluster) -> None:
    folder = cluster.layout.state / "cdi-specs"
    values = {"deviceListStrategy": ["device-specs", "cdi-cri"], "cdi": {"dir": str(folder)}}
    with installed(cluster, {**SIMULATED, **values}):
        wait_for_count(cluster, 6)
        spec = json.loads((folder / "moffett.ai-spu.json").read_text())
        assert spec["kind"] == "moffett.ai/spu"
        (pid,) = plugin_processes(cluster)
        assert capabilities(pid) == {0}


def test_labels_for_nfd_need_no_rights(cluster: Cluster) -> None:
    folder = cluster.layout.state / "features.d"
    with installed(cluster, {**SIMULATED, "labels": {"sink": "nfd", "nfdDir": str(folder)}}):
        file = folder / "moffett-spu"
        wait_for("the file for NFD", file.exists, seconds=SECONDS)
        assert "moffett.ai/spu.count=6" in file.read_text()
        (pid,) = plugin_processes(cluster)
        assert capabilities(pid) == {0}


def test_pod_security_finds_host_paths_and_root_and_nothing_else(cluster: Cluster) -> None:
    if cluster.minor < (1, 25):
        pytest.skip("Pod Security admission is from Kubernetes 1.25 on")
    cluster.kubectl("create", "namespace", "guarded")
    try:
        assert complaints(cluster, "privileged") == []
        assert complaints(cluster, "baseline") == [
            'hostPath volumes (volumes "device-plugins", "pod-resources", "usr-local", "state")'
        ]
        assert complaints(cluster, "restricted") == [
            'restricted volume types (volumes "device-plugins", "pod-resources", "usr-local",'
            ' "state" use restricted volume type "hostPath")',
            'runAsNonRoot != true (pod or container "device-plugin" must set'
            " securityContext.runAsNonRoot=true)",
            'runAsUser=0 (container "device-plugin" must not set runAsUser=0)',
        ]
    finally:
        cluster.delete("namespace", "guarded")


def complaints(cluster: Cluster, level: str) -> list[str]:
    """Return what Pod Security admission says of the default at a level."""
    label = f"pod-security.kubernetes.io/warn={level}"
    cluster.kubectl("label", "--overwrite", "namespace", "guarded", label)
    version = ".".join(map(str, cluster.minor))
    words = ("template", RELEASE, helm.CHART, "--kube-version", version)
    alone = {"telemetry": {"mode": "none"}}
    manifest = helm.helm(cluster, *words, values=alone).replace(
        f"namespace: {NAMESPACE}", "namespace: guarded"
    )
    said = cluster.kubectl("create", "--dry-run=server", "-f", "-", stdin=manifest).stderr
    match = re.search(r'would violate PodSecurity "[^"]+": (.*)', said)
    # Commas inside of brackets separate nothing.
    parts = re.findall(r"(?:[^,(]|\([^)]*\))+", match[1]) if match else []
    return [part.strip() for part in parts]


@pytest.mark.parametrize(
    "source",
    [
        ("-f", "deploy/manifests/try-it.yaml"),
        ("-k", "deploy/kustomize/overlays/kind"),
        ("-k", "deploy/kustomize/overlays/minikube"),
    ],
    ids=lambda source: Path(source[1]).stem,
)
def test_the_first_ten_minutes(cluster: Cluster, source: tuple[str, str]) -> None:
    flag, path = source
    if flag == "-k" and cluster.minor < (1, 22):
        pytest.skip("the overlays are for Kubernetes 1.22 and later")
    files = (flag, ROOT / path)
    cluster.kubectl("apply", *files)
    try:
        wait_for_phase(cluster, "spu-pod")
        said = wait_for(
            "what the pod says", lambda: ready(cluster.logs("spu-pod")), seconds=SECONDS
        )
        assert said == [
            "MOFFETT_SPU_IDS=0000:36:00.0,0000:37:00.0",
            "MOFFETT_SPU_INDEXES=0,1",
            "/dev/spu-sim0 opened",
            "/dev/spu-sim1 opened",
            "ready",
        ]
        wait_for_count(cluster, 6)
    finally:
        cluster.kubectl("delete", *files, "--timeout=45s")
    wait_for_plugin_processes(cluster, 0)
    wait_for_nothing_offered(cluster)


def ready(log: str) -> list[str]:
    """Return the lines of a log that has come to its end."""
    lines = log.splitlines()
    return lines if lines[-1:] == ["ready"] else []
