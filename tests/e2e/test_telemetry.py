"""The chart's default: mx-smi in a pod that has the monitoring resource. Nothing is privileged,
and the plugin judges by temperatures, memory errors and serials all the same.

The stand-in for mx-smi opens each card's device node and lists those that it could open. The
nodes have a major without a driver: ENXIO is the driver's place answering, EPERM the device
cgroup's refusal.
"""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from cluster import helm, host
from cluster.cluster import Cluster
from cluster.fake_host import Chip, FakeHost, free_major, two_s30_cards
from cluster.helm import RELEASE, installed
from cluster.plugin import (
    NAMESPACE,
    SECONDS,
    Plugin,
    counts,
    plugin_processes,
    wait_for_count,
    workload,
)
from cluster.services import inside
from cluster.shell import output, wait_for

RESOURCE = "moffett.ai/spu-monitoring"
TELEMETRY = f"{RELEASE}-telemetry"

_MX_SMI = """\
#!/usr/bin/python3
import errno, os, sys

here = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
words = sys.argv[1:]
if words[:2] != ["select", "-f"]:
    sys.exit(2)
with open(here + "/etc/mx-smi.table") as file:
    names, *rows = [line.strip().split(", ") for line in file]
fields = words[2].strip("{}").split(",") if len(words) == 3 else words[2:]
if not set(fields) <= set(names):
    sys.exit("invalid field")
listed, refused = [], ""
for row in rows:
    node = "/dev/spu-e2e" + row[names.index("index")]
    try:
        os.close(os.open(node if os.path.exists(node) else "/host" + node, os.O_RDWR))
    except OSError as error:
        if error.errno != errno.ENXIO:
            refused = node + ": " + os.strerror(error.errno)
            continue
        # Where the driver would answer. Numbers of before the card's reboot lead to no device.
        if os.stat(node).st_rdev != os.makedev(*map(int, row[names.index("number")].split(":"))):
            continue
    listed.append(row)
if rows and not listed:
    sys.exit("no device can be opened: " + refused)
print(", ".join(fields))
for row in listed:
    print(", ".join(row[names.index(field)] for field in fields))
"""


class Cards(FakeHost):
    """The fake host, with the stand-in that opens nodes."""

    def make(self) -> None:
        super().make()
        program = self.root / "usr/bin/mx-smi"
        program.write_text(_MX_SMI)
        program.chmod(0o755)

    def _write_table(self) -> None:
        super()._write_table()
        # The numbers that the driver gave, for the stand-in alone.
        table = self.root / "etc/mx-smi.table"
        header, *rows = table.read_text().splitlines()
        numbers = []
        for row in rows:
            index = row.split(", ")[0]
            uevent = next(self.root.glob(f"sys/dev/char/*/../spu-e2e{index}/dev"))
            numbers.append(uevent.read_text().strip())
        lines = [f"{header}, number", *(f"{r}, {n}" for r, n in zip(rows, numbers, strict=True))]
        table.write_text("".join(line + "\n" for line in lines))

    def read(self, chip: Chip, field: str, value: str) -> None:
        """Let mx-smi read this of a chip."""
        table = self.root / "etc/mx-smi.table"
        names, *rows = [line.split(", ") for line in table.read_text().splitlines()]
        for row in rows:
            if row[0] == str(chip.index):
                row[names.index(field)] = value
        # In one step: it may be read at any moment.
        new = table.with_suffix(".new")
        new.write_text("".join(", ".join(words) + "\n" for words in (names, *rows)))
        new.rename(table)


@pytest.fixture(scope="module")
def cards(cluster: Cluster) -> Iterator[Cards]:
    major = free_major(Path("/proc/devices").read_text())
    fake = Cards(cluster.layout.state / "telemetry-host", two_s30_cards(major))
    fake.unmake()
    try:
        fake.make()
        yield fake
    finally:
        fake.unmake()
        shutil.rmtree(fake.root)


def values_of(cards: Cards, **telemetry: Any) -> helm.Values:
    """The default, but for a host whose files are in a folder."""
    return {
        "hostRoot": {"mode": "all", "path": str(cards.root)},
        "health": {"flappingSeconds": [0]},  # the same chip fails in several tests
        "extraVolumes": [{"name": "dev", "hostPath": {"path": "/dev"}}],
        "extraVolumeMounts": [{"name": "dev", "mountPath": "/host/dev", "readOnly": True}],
        "telemetry": {
            "mode": "monitoring",
            "hostParts": ["/sys", "/usr", "/etc"],
            "socketDir": str(cards.root.parent / "telemetry-socket"),
            **telemetry,
        },
    }


@pytest.fixture(scope="module")
def plugin(cluster: Cluster, plugin_image: Path, cards: Cards) -> Iterator[Plugin]:
    cluster.import_image(plugin_image)
    with installed(cluster, values_of(cards)) as running:
        wait_for_count(cluster, 6)
        yield running


def metrics(cluster: Cluster, plugin: Plugin) -> str:
    address = cluster.get("pod", plugin.pod(), NAMESPACE)["status"]["podIP"]
    url = f"http://{address}:9400/metrics"
    return output(inside(cluster.layout, ["busybox", "wget", "-qO-", url]))


def telemetry_processes(cluster: Cluster) -> list[int]:
    def is_it(pid: int) -> bool:
        try:
            words = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
        except OSError:
            return False
        return b"/usr/bin/moffett-device-plugin" in words and b"telemetry" in words

    return [pid for pid in host.processes(cluster.layout) if is_it(pid)]


def status_of(pid: int) -> dict[str, str]:
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return {name: value.strip() for name, _, value in (line.partition(":") for line in lines)}


def telemetry_pod(cluster: Cluster) -> dict[str, Any]:
    selector = f"app.kubernetes.io/name={TELEMETRY}"
    (pod,) = cluster.find("pods", NAMESPACE, selector)
    return pod


def wait_for_serials(cluster: Cluster, plugin: Plugin) -> None:
    def serials() -> bool:
        return {device["card"] for device in plugin.devices().values()} == {
            "2023243080100",
            "2023243080101",
        }

    wait_for("the serials", serials, seconds=SECONDS, describe=lambda: plugin.run("doctor"))


def test_temperature_memory_errors_and_serials_without_privileges(
    cluster: Cluster, plugin: Plugin, cards: Cards, measured: Callable[[str], None]
) -> None:
    wait_for_serials(cluster, plugin)

    def exported() -> bool:
        text = metrics(cluster, plugin)
        temperature = len(re.findall(r"^moffett_spu_temperature_celsius\{.*\} 43", text, re.M))
        return temperature == 6 and text.count("moffett_spu_ecc_errors_total{") >= 6

    wait_for("the readings", exported, seconds=SECONDS, describe=lambda: metrics(cluster, plugin))
    (telemetry,) = telemetry_processes(cluster)
    (serving,) = plugin_processes(cluster)
    for name, pid in (("plugin", serving), ("telemetry", telemetry)):
        status = status_of(pid)
        sets = ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb")
        assert {int(status[name], 16) for name in sets} == {0}
        assert status["NoNewPrivs"] == "1"
        assert status["Seccomp"] == "2"
        mounts = Path(f"/proc/{pid}/mountinfo").read_text()
        assert "serviceaccount" not in mounts
        measured(f"{name}: VmRSS {int(status['VmRSS'].split()[0]) / 1024:.1f} MiB")
    assert telemetry_pod(cluster)["spec"]["containers"][0]["resources"]["limits"][RESOURCE] == "1"
    # It holds no device.
    assert counts(cluster).allocatable == 6


def test_without_the_nodes_mx_smi_is_refused(
    cluster: Cluster, plugin: Plugin, cards: Cards
) -> None:
    """What the monitoring resource is for: in the plugin's own container the same fails."""
    wait_for_serials(cluster, plugin)
    words = ("python3", "/host/usr/bin/mx-smi", "select", "-f", "index")
    done = cluster.exec(plugin.pod(), *words, namespace=NAMESPACE, check=False)
    assert "Operation not permitted" in done.stderr, done


def test_a_memory_error_lowers_the_count(cluster: Cluster, plugin: Plugin, cards: Cards) -> None:
    wait_for_serials(cluster, plugin)
    chip = cards.chips[4]
    cards.read(chip, "ecc.errors.uncorrected.volatile.device_memory", "1")
    wait_for_count(cluster, 5, capacity=6)
    reasons = plugin.devices()[chip.bus_id]["reasons"]
    assert [reason["code"] for reason in reasons] == ["ecc-uncorrected"]
    cards.read(chip, "ecc.errors.uncorrected.volatile.device_memory", "0")
    wait_for_count(cluster, 6)


def test_either_side_restarts(cluster: Cluster, plugin: Plugin, cards: Cards) -> None:
    wait_for_serials(cluster, plugin)
    plugin.delete_pod()
    wait_for_count(cluster, 6)
    wait_for_serials(cluster, plugin)
    cluster.delete("pod", telemetry_pod(cluster)["metadata"]["name"], NAMESPACE)
    wait_for_serials(cluster, plugin)
    cards.read(cards.chips[0], "temperature", "44 C")
    pattern = r"moffett_spu_temperature_celsius\{.*\} 44"
    wait_for("a new reading", lambda: re.search(pattern, metrics(cluster, plugin)), seconds=SECONDS)
    wait_for_count(cluster, 6)


def test_other_namespaces_may_not_have_the_resource(cluster: Cluster, plugin: Plugin) -> None:
    if cluster.minor < (1, 30):
        pytest.skip("ValidatingAdmissionPolicy is from Kubernetes 1.30 on")

    def said(**where: str) -> str:
        pod = workload("tenant", 0)
        pod["spec"][where["list"]] = [
            {
                **pod["spec"]["containers"][0],
                "name": "asks",
                "resources": {"limits": {RESOURCE: "1"}},
            },
        ]
        words = ("create", "-n", where["namespace"], "--dry-run=server", "-f", "-")
        return cluster.kubectl(*words, stdin=json.dumps(pod), check=False).stderr

    refused = f"{RESOURCE} is for monitoring only"
    for containers in ("containers", "initContainers"):
        wait_for(
            "the policy",
            lambda: refused in said(namespace="default", list=containers),  # noqa: B023
            seconds=30,
            describe=lambda: said(namespace="default", list=containers),  # noqa: B023
        )
    assert refused not in said(namespace=NAMESPACE, list="containers")
    plain = json.dumps(workload("tenant", 1))
    words = ("create", "--dry-run=server", "-f", "-")
    assert cluster.kubectl(*words, stdin=plain, check=False).stderr == ""


def test_after_a_cards_reboot_the_container_is_started_again(
    cluster: Cluster, plugin: Plugin, cards: Cards
) -> None:
    """Its nodes have other numbers than the running container was given. Until it is started
    again nothing is known of the card, which condemns nobody."""
    wait_for_serials(cluster, plugin)
    before = telemetry_pod(cluster)
    old = [chip for chip in cards.chips if chip.card == 0]
    new = cards.rebooted(0)
    cards.remove(old)
    wait_for(
        "the other card's chips to be left",
        lambda: cluster.node()["status"]["allocatable"].get("moffett.ai/spu") == "3",
        seconds=30,
    )
    cards.add(new)
    wait_for_count(cluster, 6)

    def stale() -> str:
        return next(
            (
                line
                for line in cluster.logs(before["metadata"]["name"], NAMESPACE).splitlines()
                if "device-node-unusable" in line
            ),
            "",
        )

    said = wait_for("the telemetry to say so", stale, seconds=SECONDS)
    assert "it has another number on the host than in this container" in said
    wait_for("doctor to say so", lambda: "cannot reach" in doctor(cluster, plugin), seconds=SECONDS)
    assert counts(cluster).allocatable == 6, "unknown condemns nobody"

    def restarted() -> bool:
        (status,) = telemetry_pod(cluster)["status"].get("containerStatuses", [{}])
        return bool(status.get("restartCount", 0) >= 1 and status.get("ready"))

    wait_for("the container to be started again", restarted, seconds=150)
    assert telemetry_pod(cluster)["metadata"]["uid"] == before["metadata"]["uid"]
    wait_for_serials(cluster, plugin)
    wait_for_count(cluster, 6)


def doctor(cluster: Cluster, plugin: Plugin) -> str:
    words = ("moffett-device-plugin", "doctor")
    return cluster.exec(plugin.pod(), *words, namespace=NAMESPACE, check=False).stdout
