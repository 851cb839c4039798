"""What the doctor finds on nodes that are broken in one way each."""

from __future__ import annotations

import argparse
import errno
import json
import os
import socket
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import pytest

from moffett_device_plugin.commands.line import build_parser
from moffett_device_plugin.doctor import (
    configuration,
    container,
    dra,
    hardware,
    nodes,
    plugin,
    pods,
)
from moffett_device_plugin.doctor.checks import ALL_CHECKS
from moffett_device_plugin.doctor.context import Context, Environment
from moffett_device_plugin.doctor.examine import examine
from moffett_device_plugin.doctor.findings import Finding, Findings, Level
from moffett_device_plugin.doctor.holders import Held
from moffett_device_plugin.doctor.report import as_json, in_order, line, summary
from moffett_device_plugin.doctor.run import run_checks
from moffett_device_plugin.hardware.simulation import NODE, Faults
from moffett_device_plugin.podresources.client import ClaimUse, Holder
from moffett_device_plugin.resources.pools import Resource, Sharing
from moffett_device_plugin.runtime.errors import ConfigurationError
from tests.support.fakehost import FakeHost
from tests.support.values import state_of

RESOURCE = "moffett.ai/spu"
CHECKS = {check.name: check for check in ALL_CHECKS}


def parsed(*flags: str) -> argparse.Namespace:
    return build_parser("doctor").parse_args(["doctor", *flags])


def rescan(*flags: str, **env: str) -> Context:
    return examine(parsed(*flags), env, flags)


def findings_of(context: Context) -> dict[str, list[Finding]]:
    found: dict[str, list[Finding]] = {}
    for finding in run_checks(ALL_CHECKS, context):
        found.setdefault(finding.check, []).append(finding)
    return found


def on_host(host: FakeHost, *flags: str, **env: str) -> dict[str, list[Finding]]:
    kubelet = host.root / "kubelet"
    kubelet.mkdir(exist_ok=True)
    return findings_of(
        rescan("--host-root", str(host.root), "--kubelet-dir", str(kubelet), *flags, **env)
    )


def looked(findings: Findings) -> list[Finding]:
    """What a check returned, as a list."""
    return [findings] if isinstance(findings, Finding) else list(findings)


def only(findings: list[Finding]) -> Finding:
    (finding,) = findings
    return finding


def simulated(kubelet: Path, faults: Faults | None = None, spec: str = "2xS30") -> Context:
    context = rescan("--simulate", spec, "--kubelet-dir", str(kubelet))
    return replace(context, state=state_of(spec, faults))


# -- hardware -------------------------------------------------------------------------


def test_a_node_without_cards_fails_once_and_says_how_to_look(host: FakeHost) -> None:
    found = on_host(host)
    cards = only(found["cards"])
    assert cards.level is Level.FAIL
    assert "lspci -d 1f36:" in cards.remedy
    later = [only(found[name]).level for name in ("driver", "pcie-errors", "health", "resources")]
    assert later == [Level.SKIP] * 4


def test_a_bus_that_cannot_be_read_is_told_from_an_empty_one(host: FakeHost) -> None:
    host.sys.joinpath("bus/pci/devices").rmdir()
    assert "cannot be read" in only(on_host(host)["cards"]).found


def test_the_vendors_function_of_another_class_is_no_missing_card(host: FakeHost) -> None:
    host.function("0000:36:00.0", pci_class="0x058000")
    cards = only(on_host(host)["cards"])
    assert cards.subjects == ("0000:36:00.0",)
    assert "058000" in cards.found


COLUMNS = (
    "index, pci.bus_id, serial, sola_version, driver_version, temperature,"
    " ecc.errors.uncorrected.volatile.device_memory"
)


def test_a_good_node_passes_every_check_of_its_hardware(host: FakeHost) -> None:
    ids = host.s30(0x34)
    host.sola("3.5.3")
    host.smi_table(
        *(f"{n}, {i}, 2023, 3.5.3, 3.5.2, 43, 0" for n, i in enumerate(ids)), columns=COLUMNS
    )
    found = on_host(host)
    names = ("cards", "complete-cards", "driver", "sola", "mx-smi", "health", "resources")
    levels = {name: only(found[name]).level for name in names}
    assert levels == dict.fromkeys(names, Level.PASS)
    assert "3 SPUs on 1 card (S30)" in only(found["cards"]).found
    assert "moffett 3.5.2" in only(found["driver"]).found
    assert "3 devices" in only(found["mx-smi"]).found


def test_each_fault_of_a_device_is_reported_once_with_one_remedy(host: FakeHost) -> None:
    host.function("0000:36:00.0", driver=None, node=None)
    host.function("0000:38:00.0")
    host.set("0000:38:00.0", "config", b"\xff" * 64)
    host.set("0000:38:00.0", "current_link_width", "8\n")
    host.set("0000:38:00.0", "aer_dev_fatal", "TOTAL_ERR_FATAL 2\n")
    host.set("0000:38:00.0", "aer_dev_nonfatal", "TOTAL_ERR_NONFATAL 3\n")
    found = on_host(host)
    reasons = {f.found.partition(":")[0]: f for f in found["health"]}
    assert {code: (f.level.value, *f.subjects) for code, f in reasons.items()} == {
        "no-driver": ("fail", "0000:36:00.0"),
        "no-device-node": ("fail", "0000:36:00.0"),
        "config-unreadable": ("fail", "0000:38:00.0"),
        "aer-fatal": ("fail", "0000:38:00.0"),
        "link-degraded": ("warn", "0000:38:00.0"),
    }
    assert all(finding.remedy for finding in reasons.values())
    assert "x8 of x16" in reasons["link-degraded"].found
    assert "3 uncorrected" in only(found["pcie-errors"]).found
    others = ("cards", "driver", "sola", "dev", "node-permissions", "container")
    told = [f for name in others for f in found[name] if f.level in (Level.WARN, Level.FAIL)]
    assert not told


def test_a_foreign_driver_is_reported_once(host: FakeHost) -> None:
    host.function("0000:36:00.0")
    host.function("0000:37:00.0", driver="vfio-pci", node=None)
    found = on_host(host)
    reason = only(found["health"])
    assert (reason.level, reason.subjects) == (Level.FAIL, ("0000:37:00.0",))
    assert "foreign-driver" in reason.found
    assert only(found["driver"]).level is Level.PASS


def test_virtual_functions_that_are_left_out_are_no_missing_card(host: FakeHost) -> None:
    path = host.function("0000:36:00.1")
    (path / "physfn").symlink_to("../0000:36:00.0")
    cards = only(on_host(host)["cards"])
    assert (cards.level, cards.subjects) == (Level.FAIL, ("0000:36:00.1",))
    assert "--virtual-functions" in cards.remedy


def test_a_device_that_was_never_seen_makes_its_card_incomplete(tmp_path: Path) -> None:
    context = simulated(tmp_path, Faults().with_fault("0000:37:00.0", "gone"))
    finding = only(findings_of(context)["complete-cards"])
    assert (finding.level, finding.subjects) == (Level.WARN, ("2023243080101",))
    assert "2 devices of 3" in finding.found


def test_firmware_that_is_not_loaded_is_distinguished_from_a_silent_mx_smi(host: FakeHost) -> None:
    host.s30(0x34)
    host.smi_table("0, 0:36:00.0, 2023", "1, 0:37:00.0, 2023")
    finding = only(on_host(host)["health"])
    assert (finding.level, finding.subjects) == (Level.FAIL, ("0000:38:00.0",))
    assert "firmware-not-loaded" in finding.found
    host.smi("exit 1\n")
    assert "mx-smi-unresponsive" in only(on_host(host)["health"]).found


@pytest.mark.parametrize(
    ("script", "says"),
    [
        ("exit 3\n", "status 3"),
        ("sleep 60\n", "no end after 0.3 s"),
        ("echo Segmentation fault\n", "Segmentation fault"),
    ],
)
def test_an_mx_smi_that_fails_is_one_warning_for_all_devices(
    host: FakeHost, script: str, says: str
) -> None:
    ids = host.s30(0x34)
    host.smi(script)
    found = on_host(host, "--mx-smi-timeout", "0.3")
    reason = only(found["health"])
    assert (reason.level, list(reason.subjects)) == (Level.WARN, ids)
    assert says in reason.found
    assert only(found["mx-smi"]).level is Level.SKIP


def test_fields_that_health_rules_need_and_mx_smi_does_not_have_are_reported(
    host: FakeHost,
) -> None:
    host.function("0000:36:00.0")
    host.smi_table("0, 0:36:00.0, 43", columns="index, pci.bus_id, temperature")
    finding = only(on_host(host)["mx-smi"])
    assert finding.level is Level.WARN
    assert "without memory errors" in finding.found


def test_sola_that_is_old_or_half_upgraded(host: FakeHost) -> None:
    host.function("0000:36:00.0")
    host.sola("3.4.2")
    found = on_host(host)
    assert only(found["sola"]).level is Level.SKIP
    assert "sola-too-old" in only(found["health"]).found
    host.smi_table("0, 0:36:00.0, 3.5.3", columns="index, pci.bus_id, sola_version")
    differs = only(on_host(host)["sola"])
    assert differs.level is Level.WARN
    assert "3.5.3" in differs.found
    assert "3.4.2" in differs.found


def test_what_all_devices_have_is_one_line(tmp_path: Path) -> None:
    context = simulated(tmp_path, Faults().with_fault(NODE, "sola-old"), "8xS30")
    finding = only(findings_of(context)["health"])
    assert finding.level is Level.FAIL
    assert len(finding.subjects) == 24
    assert "and 20 more" in line(finding)


# -- device nodes ---------------------------------------------------------------------


def with_host_dev(host: FakeHost, *devices: str) -> Context:
    """A host whose /dev is visible, with these nodes."""
    (host.root / "dev/char").mkdir(parents=True)
    for name in devices:  # an ordinary file: its number is 0:0
        (host.root / "dev" / name).write_text("")
    status = (host.root / "dev").stat()
    number = f"{os.major(status.st_dev)}:{os.minor(status.st_dev)}"
    (host.root / "proc/self").mkdir(parents=True)
    (host.root / "proc/self/mountinfo").write_text(f"1 2 {number} / /dev rw - devtmpfs dev rw\n")
    context = rescan("--host-root", str(host.root))
    return replace(context, environment=Environment(root=host.root))


def test_a_node_without_its_link_in_dev_char_is_reported(host: FakeHost) -> None:
    host.s30(0x34)
    context = with_host_dev(host, "spu0", "spu1", "spu2")
    missing = only(list(run_checks([CHECKS["char-links"]], context)))
    assert (missing.level, missing.subjects) == (
        Level.WARN,
        ("/dev/spu0", "/dev/spu1", "/dev/spu2"),
    )
    assert "daemon-reload" in missing.found
    (host.root / "dev/char/0:0").symlink_to("/dev/spu0")
    assert only(looked(nodes.char_links(context))).level is Level.PASS
    # A copy of /dev, as in a container, says nothing of the host's links.
    (host.root / "proc/self/mountinfo").write_text("")
    assert only(looked(nodes.char_links(context))).level is Level.SKIP


def process(proc: Path, pid: int, name: str, cgroup: str, *opened: str) -> None:
    folder = proc / str(pid)
    (folder / "fd").mkdir(parents=True)
    (folder / "comm").write_text(name + "\n")
    (folder / "cgroup").write_text(f"0::{cgroup}\n")
    for number, path in enumerate(opened):
        (folder / "fd" / str(number)).symlink_to(path)


def test_processes_outside_kubernetes_that_have_a_device_open(host: FakeHost) -> None:
    host.s30(0x34)
    host.control_node("spuctl")
    context = rescan("--host-root", str(host.root))
    proc = host.root / "proc"
    process(proc, 9, "train", "/kubepods.slice/pod1", "/dev/spu0")
    assert only(looked(nodes.users(context))).level is Level.SKIP  # not the host's processes
    process(proc, 2, "kthreadd", "/")
    process(proc, 10, "mx-daemon", "/system.slice/mx-daemon.service", "/dev/spu1")
    process(proc, 11, "bash", "/user.slice", "/dev/null", "/dev/spuctl")
    assert only(looked(nodes.users(context))).level is Level.PASS
    process(proc, 12, "python3", "/user.slice", "/dev/spu1", "/dev/spu2", "pipe:[7]")
    finding = only(list(run_checks([CHECKS["device-users"]], context)))
    assert (finding.level, finding.subjects) == (Level.WARN, ("/dev/spu1", "/dev/spu2"))
    assert "process 12 (python3)" in finding.found


def test_a_healthy_node_seen_from_an_unprivileged_pod_has_no_warnings(
    host: FakeHost, monkeypatch: pytest.MonkeyPatch
) -> None:
    for bus in (0x34, 0x44):
        host.s30(bus)
    host.sola("3.5.3")
    kubelet = host.root / "kubelet"
    kubelet.mkdir()
    context = rescan("--host-root", str(host.root), "--kubelet-dir", str(kubelet))
    inside = Environment(root=host.root, variables={"KUBERNETES_SERVICE_HOST": "10.0.0.1"})
    for number in (errno.EPERM, errno.ENOENT):
        monkeypatch.setattr(
            container, "open_all", lambda paths, number=number: dict.fromkeys(paths, number)
        )
        found = findings_of(replace(context, environment=inside))
        access = only(found["device-access"])
        assert (access.level, len(access.subjects)) == (Level.PASS, 6)
        warned = [f.check for fs in found.values() for f in fs if f.level is Level.WARN]
        assert warned == ["mx-smi"]


# -- the kubelet and the plugin -------------------------------------------------------


def test_the_kubelets_directory_and_socket(short_dir: Path) -> None:
    missing = findings_of(rescan("--simulate", "1xS4", "--kubelet-dir", str(short_dir / "none")))
    assert only(missing["kubelet-dir"]).level is Level.FAIL
    assert only(missing["kubelet-socket"]).level is Level.SKIP
    absent = findings_of(simulated(short_dir))
    assert "No such file" in only(absent["kubelet-socket"]).found
    path = short_dir / "kubelet.sock"
    listening = socket.socket(socket.AF_UNIX)
    listening.bind(str(path))
    refused = only(findings_of(simulated(short_dir))["kubelet-socket"])
    assert "systemctl status kubelet" in refused.remedy
    assert "refused" in refused.found
    listening.listen()
    assert only(findings_of(simulated(short_dir))["kubelet-socket"]).level is Level.PASS
    listening.close()


def test_a_socket_that_nobody_listens_on_is_left_behind(short_dir: Path) -> None:
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(short_dir / "other.sock"))
    finding = only(findings_of(simulated(short_dir))["stale-sockets"])
    assert (finding.level, finding.subjects) == (Level.WARN, ("other.sock",))
    assert (short_dir / "other.sock").exists()


def test_another_plugin_for_spus_is_suspected_by_its_socket(short_dir: Path) -> None:
    with socket.socket(socket.AF_UNIX) as other:
        other.bind(str(short_dir / "moffett-spu.sock"))
        other.listen()
        finding = only(findings_of(simulated(short_dir))["other-plugins"])
    assert (finding.level, finding.subjects) == (Level.WARN, ("moffett-spu.sock",))


@pytest.mark.parametrize(
    ("registered", "level", "says"),
    [
        (None, "skip", "no plugin has registered yet"),
        ({"nvidia.com/gpu": ["a"]}, "fail", "does not know this resource"),
        ({RESOURCE: ["SPU-0", "SPU-1"]}, "fail", "another plugin has registered last"),
        ({RESOURCE: ["0000:36:00.0"]}, "warn", "1 healthy device, and 6 are"),
        ({RESOURCE: None}, "warn", "0 healthy devices, and 6 are"),
    ],
)
def test_what_the_kubelet_wrote_down(
    tmp_path: Path, registered: Mapping[str, list[str]] | None, level: str, says: str
) -> None:
    if registered is not None:
        text = json.dumps({"Data": {"RegisteredDevices": registered}, "Checksum": 1})
        (tmp_path / "kubelet_internal_checkpoint").write_text(text)
    finding = only(looked(plugin.registration(simulated(tmp_path))))
    assert finding.level == level
    assert says in finding.found


@pytest.mark.parametrize("text", ["", "{", "[]", '{"Data": 3}', '{"Data": {}}'])
def test_a_damaged_checkpoint_is_a_warning_and_no_error(tmp_path: Path, text: str) -> None:
    (tmp_path / "kubelet_internal_checkpoint").write_text(text)
    finding = only(findings_of(simulated(tmp_path))["registration"])
    assert finding.level is Level.WARN
    assert "could not be checked" not in finding.found


def test_a_cdi_spec_is_looked_for_when_containers_need_it(tmp_path: Path) -> None:
    def cdi(*flags: str) -> Finding:
        where = ("--kubelet-dir", str(tmp_path), "--cdi-dir", str(tmp_path))
        return only(looked(plugin.cdi(rescan("--simulate", "1xS4", *where, *flags))))

    assert cdi().level is Level.SKIP
    strategy = ("--device-list-strategy", "cdi-cri")
    absent = cdi(*strategy)
    assert absent.level is Level.FAIL
    assert "unresolvable CDI devices" in absent.found
    file = tmp_path / "moffett.ai-spu.json"
    for text, level in (
        ("[]", Level.FAIL),
        ('{"devices": [{"name": "0000:99:00.0"}]}', Level.FAIL),
        ('{"devices": [{"name": "0000:34:00.0"}, {"name": "all"}]}', Level.PASS),
    ):
        file.write_text(text)
        assert cdi(*strategy).level is level


def test_a_pod_of_a_claim_holds_its_device_as_any_other(tmp_path: Path) -> None:
    context = simulated(tmp_path, Faults().with_fault("0000:36:00.0", "ecc"))
    pod = Holder("ml", "train", "main")
    uses = (
        ClaimUse(pod, "ml", "spus", "spu.moffett.ai", "node", "0000-36-00-0"),
        ClaimUse(pod, "ml", "spus", "gpu.example.com", "node", "0000-37-00-0"),
    )
    finding = only(looked(pods.held_devices(replace(context, held=Held(claims=uses)))))
    assert (finding.level, finding.subjects) == (Level.FAIL, ("0000:36:00.0",))
    assert "held by ml/train" in finding.found


def test_the_dra_driver_is_looked_for_where_the_kubelet_does(tmp_path: Path) -> None:
    registry = tmp_path / "plugins_registry"
    where = ("--kubelet-dir", str(tmp_path), "--cdi-dir", str(tmp_path / "cdi"))
    where = (*where, "--plugins-registry-dir", str(registry), "--simulate", "2xS30")
    assert only(looked(dra.dra(rescan(*where)))).level is Level.SKIP
    context = rescan(*where, "--device-api", "dra")
    assert "cannot find the driver" in only(looked(dra.dra(context))).found
    registry.mkdir()
    nobody = only(looked(dra.dra(context)))
    assert nobody.level is Level.FAIL
    assert "neither start nor end" in nobody.found
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(registry / "spu-dra-0a0a0a-reg.sock"))
        listener.listen()
        assert only(looked(dra.dra(context))).found.endswith("listens; 0 claims prepared")
        (tmp_path / "cdi").mkdir()
        (tmp_path / "cdi" / "spu.moffett.ai-claim-x.json").write_text("{")
        assert only(looked(dra.dra(context))).level is Level.WARN
    # Nothing is missing that this node does not advertise.
    found = findings_of(context)
    assert only(found["plugin"]).level is only(found["registration"]).level is Level.SKIP


# -- pods -----------------------------------------------------------------------------


def held_by(context: Context, units: Mapping[str, tuple[Holder, ...]]) -> list[Finding]:
    return looked(pods.held_devices(replace(context, held=Held({RESOURCE: units}))))


def test_a_pod_on_an_unhealthy_device_fails_with_both_named(tmp_path: Path) -> None:
    context = simulated(tmp_path, Faults().with_fault("0000:36:00.0", "ecc"))
    training = Holder("ml", "training-0", "main")
    finding = only(held_by(context, {"0000:36:00.0": (training,), "0000:37:00.0": (training,)}))
    assert (finding.level, finding.subjects) == (Level.FAIL, ("0000:36:00.0",))
    assert "ml/training-0" in finding.found


def test_replicas_and_cards_count_for_their_devices(tmp_path: Path) -> None:
    context = simulated(tmp_path, Faults().with_fault("0000:36:00.0", "ecc"))
    for unit_id in ("0000:36:00.0::7", "card-0000:34:00.0"):
        first = held_by(context, {unit_id: (Holder("a", "b", "c"),)})[0]
        assert (first.level, first.subjects) == (Level.FAIL, ("0000:36:00.0",))


def test_a_device_that_is_held_under_another_name_is_not_offered(tmp_path: Path) -> None:
    context = simulated(tmp_path)
    cards = {"moffett.ai/spu-card": {"card-0000:34:00.0": (Holder("a", "b", "c"),)}}
    found = looked(pods.held_devices(replace(context, held=Held(cards))))
    assert [f.subjects[0] for f in found] == ["0000:36:00.0", "0000:37:00.0", "0000:38:00.0"]
    assert {f.level for f in found} == {Level.WARN}
    assert "held by pod a/b as moffett.ai/spu-card" in found[0].found


def test_units_of_nobody_knows_what_and_units_held_twice(tmp_path: Path) -> None:
    context = simulated(tmp_path)
    one, two = Holder("a", "one", "c"), Holder("a", "two", "c")
    unknown = only(held_by(context, {"SPU-3": (one,)}))
    assert (unknown.level, unknown.subjects) == (Level.WARN, ("SPU-3",))
    twice = only(held_by(context, {"0000:36:00.0": (one, two)}))
    assert "a/one, a/two" in twice.found
    shares = replace(context, resources=(Resource(sharing=Sharing(2)),))
    shared = held_by(shares, {"0000:36:00.0::0": (one,), "0000:36:00.0::1": (two,)})
    assert only(shared).level is Level.PASS


def test_why_pods_are_not_known_is_said_with_the_mount_that_is_missing(tmp_path: Path) -> None:
    finding = only(findings_of(simulated(tmp_path / "device-plugins"))["pod-resources"])
    assert finding.level is Level.SKIP
    assert str(tmp_path / "pod-resources") in finding.remedy


# -- inside a container ---------------------------------------------------------------


def test_nodes_are_opened_in_a_container_only(host: FakeHost) -> None:
    host.function("0000:36:00.0")
    context = rescan("--host-root", str(host.root))
    outside = replace(context, environment=Environment(root=host.root))
    assert only(looked(container.device_access(outside))).level is Level.SKIP
    inside = Environment(root=host.root, variables={"KUBERNETES_SERVICE_HOST": "10.0.0.1"})
    absent = only(looked(container.device_access(replace(context, environment=inside))))
    assert (absent.level, absent.subjects) == (Level.PASS, ("/dev/spu0",))
    given = {**inside.variables, "MOFFETT_SPU_BUS_IDS": "0000:36:00.0"}
    owner = replace(context, environment=replace(inside, variables=given))
    assert only(looked(container.device_access(owner))).level is Level.FAIL
    (host.root / "dev").mkdir()
    (host.root / "dev/spu0").write_text("")
    assert only(looked(container.device_access(owner))).level is Level.PASS


def test_a_pod_answers_for_its_own_devices_only(host: FakeHost) -> None:
    host.s30(0x34)
    host.control_node("spuctl")
    context = rescan("--host-root", str(host.root))
    given = replace(context.environment, variables={"MOFFETT_SPU_BUS_IDS": "0000:37:00.0"})
    assert container.expected_nodes(replace(context, environment=given)) == [
        "/dev/spu1",
        "/dev/spuctl",
    ]


@pytest.mark.parametrize(
    ("number", "owner", "level", "says"),
    [
        (errno.EPERM, True, "fail", "device cgroup"),
        (errno.EPERM, False, "pass", "not given to this container"),
        (errno.EACCES, True, "fail", "permissions"),
        (errno.ENXIO, False, "fail", "the driver has no device behind the node"),
        (errno.ENOENT, True, "fail", "no such node"),
        (errno.EIO, True, "fail", "EIO"),
        (None, True, "fail", "open blocks"),
    ],
)
def test_what_the_error_of_an_open_means(
    number: int | None, owner: bool, level: str, says: str
) -> None:
    finding = container._evaluate("/dev/spu0", number, owner=owner)
    assert finding is not None
    assert finding.level == level
    assert says in finding.found


def test_a_driver_that_hangs_in_open_holds_up_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # A process that prints one answer and then hangs, as one does in a driver's open.
    hang = (
        "import json, sys, signal; print(json.dumps([sys.argv[1], 0]), flush=True); signal.pause()"
    )
    monkeypatch.setattr(container, "_OPEN", hang)
    monkeypatch.setattr(container, "OPEN_TIMEOUT", 0.5)
    assert container.open_all(["/dev/a", "/dev/b"]) == {"/dev/a": 0}


# -- the configuration ----------------------------------------------------------------


def test_a_wrong_variable_is_a_finding_and_the_rest_is_looked_at(tmp_path: Path) -> None:
    env = {"SPU_LOG_LEVEL": "loud", "SPU_MX_SMI_TIMEOUT": "never", "SPU_SIMULATE": "1xS4"}
    found = findings_of(rescan("--kubelet-dir", str(tmp_path), **env))
    texts = [finding.found for finding in found["settings"]]
    assert [text.split(":")[0] for text in texts] == ["SPU_MX_SMI_TIMEOUT", "SPU_LOG_LEVEL"]
    assert {finding.level for finding in found["settings"]} == {Level.FAIL}
    assert only(found["cards"]).found.startswith("1 SPU")


def test_a_variable_of_an_earlier_version_is_a_finding() -> None:
    found = findings_of(rescan(SPU_SIMULATE="1xS4", SPU_CONTROL_NODE="/dev/a"))
    assert "SPU_CONTROL_DEVICE" in only(found["settings"]).found
    assert only(found["variables"]).level is Level.PASS


def test_a_wrong_flag_is_the_doctors_own_usage() -> None:
    with pytest.raises(ConfigurationError, match="--mx-smi-timeout"):
        rescan("--mx-smi-timeout", "never")


def test_a_wrong_configuration_file_is_a_finding(tmp_path: Path) -> None:
    file = tmp_path / "config.yaml"
    file.write_text("version: v1\nkubeletDri: /x\n")
    found = findings_of(rescan("--simulate", "1xS4", SPU_CONFIG=str(file)))
    assert "did you mean kubeletDir?" in only(found["settings"]).found


def test_the_files_settings_are_used(tmp_path: Path) -> None:
    file = tmp_path / "config.yaml"
    file.write_text(
        f"version: v1\nkubeletDir: {tmp_path}\nsimulate: {{cards: 1xS4}}\n"
        "resources: [{name: example.com/a}]\n"
    )
    context = rescan("--config", str(file))
    assert context.kubelet_dir == tmp_path
    assert plugin.expected_names(context) == ("example.com/a",)
    assert len(context.state.snapshot.devices) == 1


def test_a_mistyped_variable_does_nothing_and_is_told() -> None:
    found = findings_of(rescan(SPU_SIMULATE="1xS4", SPU_KUBELET_DRI="/x"))
    finding = only(found["variables"])
    assert (finding.level, finding.subjects) == (Level.WARN, ("SPU_KUBELET_DRI",))
    assert "SPU_KUBELET_DIR" in finding.remedy


def test_a_control_device_pattern_that_matches_nothing_is_reported(host: FakeHost) -> None:
    host.function("0000:36:00.0")
    host.control_node("spuctl")
    flags = ("--control-device", "/dev/spuctl", "--control-device", "/dev/spu-ctl*")
    found = on_host(host, *flags)["settings"]
    assert [f.subjects for f in found if f.level is Level.WARN] == [("/dev/spu-ctl*",)]


def configured(host: FakeHost, resources: str) -> list[Finding]:
    file = host.root / "config.yaml"
    file.write_text(f"version: v1\nhostRoot: {host.root}\nresources: [{resources}]\n")
    return looked(configuration.resources(rescan("--config", str(file))))


def test_selections_without_effect_are_reported(host: FakeHost) -> None:
    ids = host.s30(0x34)
    known = "{name: example.com/a, select: {busId: ['0000:36:00.0', '0000:99:00.0']}}"
    assert only(configured(host, known)).level is Level.PASS  # one file for many nodes
    unknown = only(configured(host, "{name: example.com/a, select: {busId: '0000:99:00.0'}}"))
    assert unknown.level is Level.WARN
    assert "no device of this node is selected by 0000:99:00.0" in unknown.found
    for key in ("select", "exclude"):
        by_serial = configured(host, f"{{name: example.com/a, {key}: {{serial: '2023'}}}}")[0]
        assert by_serial.level is Level.WARN
        assert "the serial is not known" in by_serial.found
        assert by_serial.subjects == tuple(ids)
    part = configured(host, "{granularity: card, exclude: {busId: '0000:36:00.0'}}")
    assert {f.level for f in part} == {Level.WARN}
    assert "only some" in part[0].found


def test_a_daemon_with_other_flags_is_noticed(tmp_path: Path) -> None:
    folder = tmp_path / "proc/42"
    folder.mkdir(parents=True)
    words = ("python3", "-m", "moffett_device_plugin", "serve", "--simulate", "1xS4")
    (folder / "cmdline").write_bytes("\0".join(words).encode() + b"\0")
    (folder / "status").write_text("Name:\tpython3\nVmRSS:\t  24576 kB\n")
    context = rescan("--simulate", "1xS4")
    same = only(findings_of(replace(context, environment=Environment(root=tmp_path)))["daemon"])
    assert (same.level, same.found) == (Level.PASS, "process 42, 24 MiB")
    other = replace(context, environment=Environment(root=tmp_path), arguments=())
    assert "--simulate 1xS4" in only(findings_of(other)["daemon"]).found


# -- the report -----------------------------------------------------------------------


def test_a_finding_is_one_line_whatever_is_in_it() -> None:
    text = line(Finding(Level.FAIL, "two\nlines", "do\nthis", ("spu",), "driver", "driver"))
    assert text == "fail  driver            spu: two lines -> do this"


def test_what_was_skipped_for_one_cause_is_one_line_at_the_end() -> None:
    def finding(level: Level, check: str, found: str) -> Finding:
        return Finding(level, found, check=check, layer="l")

    found = [
        finding(Level.SKIP, "a", "no SPU was found"),
        finding(Level.FAIL, "b", "broken"),
        finding(Level.SKIP, "c", "no SPU was found"),
        finding(Level.SKIP, "d", "another reason"),
        finding(Level.PASS, "e", "works"),
    ]
    shown = [(f.check, f.found) for f in in_order(found)]
    assert shown == [
        ("b", "broken"),
        ("e", "works"),
        ("a", "no SPU was found (also c)"),
        ("d", "another reason"),
    ]
    counts, failed = summary(found)
    assert counts == "1 passed, 0 warnings, 1 failed, 3 skipped"
    assert failed == [found[1]]


def test_json_says_whether_all_is_well(tmp_path: Path) -> None:
    context = simulated(tmp_path)
    found = list(run_checks(ALL_CHECKS, context))
    told = json.loads(as_json(found))
    assert told["ok"] is False
    assert {finding["check"] for finding in told["findings"]} == {c.name for c in ALL_CHECKS}
    assert set(told["findings"][0]) == {"layer", "check", "level", "subjects", "found", "remedy"}


def test_nothing_is_changed_in_the_kubelets_directory(short_dir: Path) -> None:
    (short_dir / "kubelet_internal_checkpoint").write_text("{}")
    before = {path: path.stat().st_mtime_ns for path in (short_dir, *short_dir.iterdir())}
    findings_of(simulated(short_dir))
    assert {path: path.stat().st_mtime_ns for path in (short_dir, *short_dir.iterdir())} == before
    assert os.listdir(short_dir) == ["kubelet_internal_checkpoint"]


def test_what_an_operator_cordoned_is_no_failure(tmp_path: Path) -> None:
    flags = ("--simulate", "1xS4", "--kubelet-dir", str(tmp_path), "--cordon", "all")
    context = rescan(*flags)
    found = only(looked(hardware.health(context)))
    assert found.level is Level.WARN
    assert "by the configuration" in found.found
    holders = {context.devices[0].id: (Holder("ml", "train", "main"),)}
    assert all(finding.level is not Level.FAIL for finding in held_by(context, holders))
