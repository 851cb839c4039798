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

from moffett_device_plugin.__main__ import build_parser
from moffett_device_plugin.doctor import container, plugin, pods
from moffett_device_plugin.doctor.checks import all_checks
from moffett_device_plugin.doctor.context import Context, Environment
from moffett_device_plugin.doctor.examine import examine
from moffett_device_plugin.doctor.findings import Finding, Level
from moffett_device_plugin.doctor.holders import Held
from moffett_device_plugin.doctor.report import as_json, line
from moffett_device_plugin.doctor.run import run_checks
from moffett_device_plugin.hardware.simulation import NODE, Faults
from moffett_device_plugin.podresources.client import Holder
from moffett_device_plugin.resources.pools import Resource, Sharing
from moffett_device_plugin.runtime.errors import ConfigurationError
from tests.support.fakehost import FakeHost
from tests.support.values import state_of

RESOURCE = "moffett.ai/spu"


def parsed(*flags: str) -> argparse.Namespace:
    return build_parser("doctor").parse_args(["doctor", *flags])


def rescan(*flags: str, **env: str) -> Context:
    return examine(parsed(*flags), env, flags)


def findings_of(context: Context) -> dict[str, list[Finding]]:
    found: dict[str, list[Finding]] = {}
    for finding in run_checks(all_checks(context), context):
        found.setdefault(finding.check, []).append(finding)
    return found


def on_host(host: FakeHost, *flags: str, **env: str) -> dict[str, list[Finding]]:
    kubelet = host.root / "kubelet"
    kubelet.mkdir(exist_ok=True)
    return findings_of(
        rescan("--host-root", str(host.root), "--kubelet-dir", str(kubelet), *flags, **env)
    )


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
    later = [only(found[name]).level for name in ("driver", "links", "firmware", "health")]
    assert later == [Level.SKIP] * 4


def test_a_bus_that_cannot_be_read_is_told_from_an_empty_one(host: FakeHost) -> None:
    host.sys.joinpath("bus/pci/devices").rmdir()
    assert "cannot be read" in only(on_host(host)["cards"]).found


def test_the_vendors_function_of_another_class_is_no_missing_card(host: FakeHost) -> None:
    host.function("0000:36:00.0", pci_class="0x058000")
    cards = only(on_host(host)["cards"])
    assert "0000:36:00.0" in cards.found
    assert "058000" in cards.found


def test_a_good_node_passes_every_check_of_its_hardware(host: FakeHost) -> None:
    ids = host.s30(0x34)
    host.sola("3.5.3")
    host.smi_table(
        *(f"{n}, {i}, 2023, 3.5.3, 3.5.2" for n, i in enumerate(ids)),
        columns="index, pci.bus_id, serial, sola_version, driver_version",
    )
    found = on_host(host)
    names = (
        "cards", "complete-cards", "config-space", "links", "driver", "device-nodes", "firmware",
        "sola", "sola-agrees", "mx-smi", "health",
    )  # fmt: skip
    levels = {name: only(found[name]).level for name in names}
    assert levels == dict.fromkeys(names, Level.PASS)
    assert "3 SPUs on 1 card (S30)" in only(found["cards"]).found
    assert "3 devices" in only(found["mx-smi"]).found


def test_each_fault_of_a_function_names_it_and_a_remedy(host: FakeHost) -> None:
    host.function("0000:36:00.0", driver=None, node=None)
    host.function("0000:37:00.0", driver="vfio-pci", node=None)
    host.function("0000:38:00.0")
    host.set("0000:38:00.0", "config", b"\xff" * 64)
    host.set("0000:38:00.0", "current_link_width", "8\n")
    host.set("0000:38:00.0", "aer_dev_fatal", "TOTAL_ERR_FATAL 2\n")
    found = on_host(host)
    assert {f.subject: "virtual machine" in f.found for f in found["driver"]} == {
        "0000:36:00.0": False,
        "0000:37:00.0": True,
    }
    assert [f.subject for f in found["device-nodes"]] == ["0000:36:00.0", "0000:37:00.0"]
    for name, level in (("config-space", "fail"), ("links", "warn"), ("pcie-errors", "fail")):
        finding = only(found[name])
        assert (finding.level, finding.subject) == (level, "0000:38:00.0")
        assert finding.remedy
    assert "8 GT/s x8 where 8 GT/s x16" in only(found["links"]).found


def test_a_chip_that_left_the_bus_makes_its_card_incomplete(tmp_path: Path) -> None:
    context = simulated(tmp_path, Faults().with_fault("0000:37:00.0", "gone"))
    finding = only(findings_of(context)["complete-cards"])
    assert (finding.level, finding.subject) == (Level.WARN, "2023243080101")
    assert "2 devices of 3" in finding.found


def test_firmware_that_is_not_loaded_is_told_from_a_silent_mx_smi(host: FakeHost) -> None:
    host.s30(0x34)
    host.smi_table("0, 0:36:00.0, 2023", "1, 0:37:00.0, 2023")
    finding = only(on_host(host)["firmware"])
    assert (finding.level, finding.subject) == (Level.FAIL, "0000:38:00.0")
    host.smi("exit 1\n")
    assert only(on_host(host)["firmware"]).level is Level.SKIP


@pytest.mark.parametrize(
    ("script", "level", "says"),
    [
        ("exit 3\n", "fail", "status 3"),
        ("sleep 60\n", "fail", "no end after 0.3 s"),
        ("echo Segmentation fault\n", "fail", "Segmentation fault"),
        # One that takes the list as one word, and no other.
        (
            'case "$3" in index,pci*) printf "index, pci.bus_id\\n0, 0:36:00.0\\n";; *) exit 1;;'
            " esac\n",
            "pass", "'-f a,b'",
        ),
    ],
)  # fmt: skip
def test_mx_smi(host: FakeHost, script: str, level: str, says: str) -> None:
    host.function("0000:36:00.0")
    host.smi(script)
    finding = only(on_host(host, "--mx-smi-timeout", "0.3")["mx-smi"])
    assert finding.level == level
    assert says in finding.found


def test_an_older_mx_smi_answers_and_is_told_to_be_old(host: FakeHost) -> None:
    host.function("0000:36:00.0")
    host.smi(
        'case "$*" in *serial*) echo "unknown field"; exit 2;; esac\n'
        'printf "index, pci.bus_id\\n0, 0:36:00.0\\n"\n'
    )
    answers, fields = on_host(host)["mx-smi"]
    assert (answers.level, fields.level) == (Level.PASS, Level.WARN)
    assert "refuses some of the fields" in fields.found


def test_sola_that_is_old_or_half_upgraded(host: FakeHost) -> None:
    host.function("0000:36:00.0")
    host.sola("3.4.2")
    found = on_host(host)
    assert only(found["sola"]).level is Level.FAIL
    assert "sola-too-old" in only(found["health"]).found
    host.smi_table("0, 0:36:00.0, 3.5.3", columns="index, pci.bus_id, sola_version")
    found = on_host(host)
    assert only(found["sola"]).level is Level.PASS
    assert "3.4.2" in only(found["sola-agrees"]).found


def test_what_all_devices_suffer_from_is_one_line(tmp_path: Path) -> None:
    context = simulated(tmp_path, Faults().with_fault(NODE, "sola-old"), "8xS30")
    finding = only(findings_of(context)["health"])
    assert finding.level is Level.FAIL
    assert "and 20 more" in finding.subject


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
    assert (finding.level, finding.subject) == (Level.WARN, "other.sock")
    assert (short_dir / "other.sock").exists()


def test_another_plugin_for_spus_is_suspected_by_its_socket(short_dir: Path) -> None:
    with socket.socket(socket.AF_UNIX) as other:
        other.bind(str(short_dir / "moffett-spu.sock"))
        other.listen()
        finding = only(findings_of(simulated(short_dir))["other-plugins"])
    assert (finding.level, finding.subject) == (Level.WARN, "moffett-spu.sock")


@pytest.mark.parametrize(
    ("registered", "level", "says"),
    [
        (None, "skip", "no plugin has registered yet"),
        ({"nvidia.com/gpu": ["a"]}, "fail", "knows no such resource"),
        ({RESOURCE: ["SPU-0", "SPU-1"]}, "fail", "another plugin has registered last"),
        ({RESOURCE: ["0000:36:00.0"]}, "warn", "1 healthy unit where 6 are"),
        ({RESOURCE: None}, "warn", "0 healthy units where 6 are"),
    ],
)
def test_what_the_kubelet_wrote_down(
    tmp_path: Path, registered: Mapping[str, list[str]] | None, level: str, says: str
) -> None:
    if registered is not None:
        text = json.dumps({"Data": {"RegisteredDevices": registered}, "Checksum": 1})
        (tmp_path / "kubelet_internal_checkpoint").write_text(text)
    finding = only(list(plugin.registration(simulated(tmp_path))))
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
        return only(list(plugin.cdi(rescan("--simulate", "1xS4", *where, *flags))))

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


# -- pods -----------------------------------------------------------------------------


def held_by(context: Context, units: Mapping[str, tuple[Holder, ...]]) -> list[Finding]:
    return list(pods.held_devices(replace(context, held=Held({RESOURCE: units}))))


def test_a_pod_on_an_unhealthy_device_fails_with_both_named(tmp_path: Path) -> None:
    context = simulated(tmp_path, Faults().with_fault("0000:36:00.0", "ecc"))
    training = Holder("ml", "training-0", "main")
    finding = only(held_by(context, {"0000:36:00.0": (training,), "0000:37:00.0": (training,)}))
    assert (finding.level, finding.subject) == (Level.FAIL, "0000:36:00.0")
    assert "ecc-uncorrected" in finding.found
    assert "ml/training-0" in finding.found


def test_replicas_and_cards_count_for_their_devices(tmp_path: Path) -> None:
    context = simulated(tmp_path, Faults().with_fault("0000:36:00.0", "ecc"))
    for unit_id in ("0000:36:00.0::7", "card-0000:34:00.0"):
        first = held_by(context, {unit_id: (Holder("a", "b", "c"),)})[0]
        assert (first.level, first.subject) == (Level.FAIL, "0000:36:00.0")


def test_a_device_that_is_held_under_another_name_is_not_offered(tmp_path: Path) -> None:
    context = simulated(tmp_path)
    cards = {"moffett.ai/spu-card": {"card-0000:34:00.0": (Holder("a", "b", "c"),)}}
    found = list(pods.held_devices(replace(context, held=Held(cards))))
    assert {f.subject for f in found} == {"0000:36:00.0", "0000:37:00.0", "0000:38:00.0"}
    assert {f.level for f in found} == {Level.WARN}
    assert "held by pod a/b as moffett.ai/spu-card" in found[0].found


def test_units_of_nobody_knows_what_and_units_held_twice(tmp_path: Path) -> None:
    context = simulated(tmp_path)
    one, two = Holder("a", "one", "c"), Holder("a", "two", "c")
    unknown = only(held_by(context, {"SPU-3": (one,)}))
    assert (unknown.level, unknown.subject) == (Level.WARN, "SPU-3")
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
    outside = replace(context, place=Environment(root=host.root))
    assert only(list(container.device_access(outside))).level is Level.SKIP
    inside = Environment(root=host.root, environment={"KUBERNETES_SERVICE_HOST": "10.0.0.1"})
    absent = only(list(container.device_access(replace(context, place=inside))))
    assert (absent.level, absent.subject) == (Level.WARN, "/dev/spu0")
    given = {**inside.environment, "MOFFETT_SPU_BUS_IDS": "0000:36:00.0"}
    owner = replace(context, place=replace(inside, environment=given))
    assert only(list(container.device_access(owner))).level is Level.FAIL
    (host.root / "dev").mkdir()
    (host.root / "dev/spu0").write_text("")
    assert only(list(container.device_access(owner))).level is Level.PASS


def test_a_pod_answers_for_its_own_devices_only(host: FakeHost) -> None:
    host.s30(0x34)
    host.control_node("spuctl")
    context = rescan("--host-root", str(host.root))
    given = replace(context.place, environment={"MOFFETT_SPU_BUS_IDS": "0000:37:00.0"})
    assert container.expected_nodes(replace(context, place=given)) == ["/dev/spu1", "/dev/spuctl"]


@pytest.mark.parametrize(
    ("number", "owner", "level", "says"),
    [
        (errno.EPERM, True, "fail", "device cgroup"),
        (errno.EPERM, False, "warn", "device cgroup"),
        (errno.EACCES, True, "fail", "permissions"),
        (errno.ENXIO, False, "fail", "the driver has no device behind the node"),
        (errno.ENOENT, True, "fail", "no such node"),
        (errno.EIO, True, "fail", "EIO"),
        (None, True, "fail", "hangs"),
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
    assert (finding.level, finding.subject) == (Level.WARN, "SPU_KUBELET_DRI")
    assert "SPU_KUBELET_DIR" in finding.remedy


def test_a_daemon_with_other_flags_is_noticed(tmp_path: Path) -> None:
    process = tmp_path / "proc/42"
    process.mkdir(parents=True)
    words = ("python3", "-m", "moffett_device_plugin", "serve", "--simulate", "1xS4")
    (process / "cmdline").write_bytes("\0".join(words).encode() + b"\0")
    (process / "status").write_text("Name:\tpython3\nVmRSS:\t  24576 kB\n")
    context = rescan("--simulate", "1xS4")
    same = only(findings_of(replace(context, place=Environment(root=tmp_path)))["daemon"])
    assert (same.level, same.found) == (Level.PASS, "process 42, 24 MiB")
    other = replace(context, place=Environment(root=tmp_path), arguments=())
    assert "--simulate 1xS4" in only(findings_of(other)["daemon"]).found


# -- the report -----------------------------------------------------------------------


def test_a_finding_is_one_line_whatever_is_in_it() -> None:
    text = line(Finding(Level.FAIL, "two\nlines", "do\nthis", "spu", "driver", "driver"))
    assert text == "fail  driver            spu: two lines -> do this"


def test_json_says_whether_all_is_well(tmp_path: Path) -> None:
    context = simulated(tmp_path)
    found = list(run_checks(all_checks(context), context))
    told = json.loads(as_json(found))
    assert told["ok"] is False
    assert {finding["check"] for finding in told["findings"]} == {
        c.name for c in all_checks(context)
    }
    assert set(told["findings"][0]) == {"layer", "check", "level", "subject", "found", "remedy"}


def test_nothing_is_changed_in_the_kubelets_directory(short_dir: Path) -> None:
    (short_dir / "kubelet_internal_checkpoint").write_text("{}")
    before = {path: path.stat().st_mtime_ns for path in (short_dir, *short_dir.iterdir())}
    findings_of(simulated(short_dir))
    assert {path: path.stat().st_mtime_ns for path in (short_dir, *short_dir.iterdir())} == before
    assert os.listdir(short_dir) == ["kubelet_internal_checkpoint"]
