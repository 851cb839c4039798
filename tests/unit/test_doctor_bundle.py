"""What a bug report may and may not have in it."""

from __future__ import annotations

import json
import os
import stat
import tarfile
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from moffett_device_plugin.commands.doctor import run
from moffett_device_plugin.doctor import bundle, facts
from moffett_device_plugin.doctor.checks import ALL_CHECKS
from moffett_device_plugin.doctor.examine import examine
from moffett_device_plugin.doctor.findings import fail
from moffett_device_plugin.doctor.holders import Held
from moffett_device_plugin.doctor.redact import MASK, Redactor
from moffett_device_plugin.doctor.run import run_checks
from moffett_device_plugin.podresources.client import Holder
from moffett_device_plugin.settings.options import Values
from tests.support.fakehost import FakeHost
from tests.unit.test_doctor_checks import parsed

JWT = "eyJhbGciOiJSUzI1NiJ9.eyJzdWIiOiJzeXN0ZW0ifQ.c2lnbmF0dXJlLWlzLWhlcmU"


@pytest.mark.parametrize(
    ("text", "secret"),
    [
        (f"found {JWT} in the log", JWT),
        ("Authorization: Bearer abc.def-ghi", "abc.def-ghi"),
        ("proxy=http://joe:hunter2@proxy.local:3128/", "hunter2"),
        ("GET https://x.local/?token=s3cr3t&x=1", "s3cr3t"),
        ('{"password": "correct horse"}', "correct horse"),
        ("SPU_TOKEN=abcdef", "abcdef"),
        ("api-key: 0123", "0123"),
        ("AKIAIOSFODNN7EXAMPLE", "AKIAIOSFODNN7EXAMPLE"),
        ("ghp_0123456789abcdefghijABCDEFGHIJ012345", "ghp_0123456789"),
        ("-----BEGIN RSA PRIVATE KEY-----\nMIIEow\n-----END RSA PRIVATE KEY-----", "MIIEow"),
        ("cut off: -----BEGIN PRIVATE KEY-----\nMIIEow", "MIIEow"),
        ("k=Zm9vYmFyYmF6cXV4Zm9vYmFyYmF6cXV4Zm9vYmFyYmF6MTIz", "Zm9vYmFyYmF6"),
    ],
)
def test_secrets_are_masked(text: str, secret: str) -> None:
    redacted = Redactor()(text)
    assert secret not in redacted
    assert MASK in redacted


@pytest.mark.parametrize(
    "text",
    [
        "time=2026-01-02T03:04:05.678Z level=info event=device-found device=0000:36:00.0",
        "/sys/devices/pci0000:33/0000:33:01.0/0000:34:00.0/0000:35:00.0/0000:36:00.0",
        "    00: 36 1f 30 70 06 04 10 00 00 00 00 12 10 00 00 00",
        "spu-4be5-0a1b2c.sock",
        "no tokens: 5 pages; https://kubernetes.io/docs",
        "the token of the pod; --api-token-file /var/run/secrets/token",
        "uptime 123456.789012345 s; card=card-0000:34:00.0",
    ],
)
def test_other_text_is_unchanged(text: str) -> None:
    assert Redactor()(text) == text


def test_a_serial_is_the_same_word_throughout_a_bundle_and_another_in_the_next() -> None:
    redact = Redactor(frozenset({"2023243080104"}))
    one = redact("Serial Number : 2023243080104")
    two = redact('"card": "2023243080104"')
    word = one.rpartition(" ")[2]
    assert word.startswith("serial-")
    assert word in two
    other = Redactor(frozenset({"2023243080104"}))("2023243080104")
    assert other != word


def test_serials_and_uuids_nobody_listed_are_found_by_their_form() -> None:
    redact = Redactor()
    text = redact("Serial Number : 2023243089999\nUUID : 01000000-0000-0000-0000-00AKS0216498\n")
    assert "2023243089999" not in text
    assert "AKS0216498" not in text
    assert Redactor(hide_serials=False)("serial: 2023243089999") == "serial: 2023243089999"


@pytest.mark.parametrize(
    ("text", "serial"),
    [
        ("SN: AK2023S0104", "AK2023S0104"),
        ("S/N = AK2023S0104", "AK2023S0104"),
        ("    SN      : 2023243089999", "2023243089999"),
        ('"serial_number": "AK2023S0104"', "AK2023S0104"),
        ("0, 0:36:00.0, 2023243089999, 0 %, 0 %", "2023243089999"),
        ("event=device-found card=2023243089999 index=0", "2023243089999"),
    ],
)
def test_serials_in_the_forms_of_tools_and_logs(text: str, serial: str) -> None:
    assert serial not in Redactor()(text)
    assert Redactor(hide_serials=False)(text) == text


word = st.from_regex(r"[a-zA-Z][a-zA-Z0-9]{7,30}", fullmatch=True)


@given(
    secret=word,
    flag=st.sampled_from(["--token", "--api-token", "-password", "--client-secret", "--api-key"]),
    form=st.sampled_from(["{f} {s}", "{f}={s}", "{f} '{s}'", '["{f}", "{s}"]', '"{f}": "{s}"']),
    before=st.text(alphabet=" \n,;[(", min_size=0, max_size=3),
)
def test_the_word_after_a_secret_flag_is_masked(
    secret: str, flag: str, form: str, before: str
) -> None:
    text = f"started with{before} " + form.format(f=flag, s=secret) + " --log-level info"
    redacted = Redactor()(text)
    assert secret not in redacted
    assert redacted.endswith("--log-level info")


@given(
    serial=st.from_regex(r"[A-Z]{2}[0-9]{6,12}", fullmatch=True),
    node=st.from_regex(r"node-[a-z]{4,12}(\.[a-z]{3,8}){0,2}", fullmatch=True),
    pod=st.from_regex(r"[a-z]{5,10}-[a-z0-9]{5}", fullmatch=True),
    token=st.from_regex(r"[A-Za-z0-9]{12,36}", fullmatch=True),
)
@settings(max_examples=25, deadline=None)
def test_nothing_that_the_settings_or_pods_name_is_in_a_bundle(
    tmp_path_factory: pytest.TempPathFactory, serial: str, node: str, pod: str, token: str
) -> None:
    folder = tmp_path_factory.mktemp("bundle")
    config = folder / "config.yaml"
    config.write_text(
        f"version: v1\nsimulate: {{cards: 1xS4}}\nnodeName: {node}\nresources:\n"
        f"- {{name: example.com/a, select: {{serial: [{serial}]}}}}\n"
    )
    log = folder / "log"
    log.write_text(f"card={serial} on {node}, pod {pod}; SN: {serial}\n--token {token} end\n")
    flags = ("--config", str(config), "--kubelet-dir", str(folder))
    units = {"0000:34:00.0": (Holder("default", pod, "main"),)}
    context = replace(examine(parsed(*flags), {}, flags), held=Held({"example.com/a": units}))
    findings = [
        fail(f"started with --token {token}", f"delete {pod}"),
        *run_checks([check for check in ALL_CHECKS if check.name == "resources"], context),
    ]
    assert any(serial in finding.found for finding in findings)
    redact = bundle.redactor_for(context, with_serials=False, with_names=False)
    bundle.write(folder / "b.tgz", facts.gather(context, findings, log), redact)
    whole = "\n".join(packed(folder / "b.tgz").values())
    assert "SPU_NODE_NAME" in whole
    for secret in (serial, node, node.partition(".")[0], pod, token):
        assert secret not in whole, secret


def packed(path: Path) -> dict[str, str]:
    with tarfile.open(path) as archive:
        return {
            member.name: archive.extractfile(member).read().decode()  # type: ignore[union-attr]
            for member in archive.getmembers()
        }


def test_a_bundle_of_a_whole_node(
    host: FakeHost, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    ids = host.s30(0x34)
    host.sola("3.5.3")
    host.smi_table(*(f"{n}, {i}, 2023243080104" for n, i in enumerate(ids)))
    host.set(ids[0], "uevent", "DRIVER=moffett\nPCI_ID=1F36:7030\n")
    log = host.root / "daemon.log"
    log.write_text("event=starting\n" * 3000 + f"why=dead token={JWT} card=2023243080104\n")
    for name in [name for name in os.environ if name.startswith("SPU_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "must-not-be-there")
    monkeypatch.setenv("SPU_MX_SMI_TIMEOUT", "3")
    target = host.root / "report.tgz"
    target.write_text("an older one")
    flags = ("--host-root", str(host.root), "--kubelet-dir", str(host.root))
    arguments = parsed(*flags, "--bundle", str(target), "--log", str(log))
    assert run(Values(arguments, os.environ), arguments) == 1
    assert stat.S_IMODE(target.stat().st_mode) == 0o600
    files = packed(target)
    told = capsys.readouterr().err
    for name in files:
        assert name.removeprefix("moffett-doctor/") in told
    whole = "\n".join(files.values())
    for secret in ("must-not-be-there", "AWS_SECRET", JWT, "2023243080104", os.uname().nodename):
        assert secret not in whole, secret
    sysfs = files[f"moffett-doctor/sysfs/{ids[0]}.txt"]
    assert "PCI_ID=1F36:7030" in sysfs
    assert "config:\n    36 1f 30 70" in sysfs
    assert "current_link_speed: 8.0 GT/s PCIe" in sysfs
    assert json.loads(files["moffett-doctor/doctor.json"])["ok"] is False
    assert len(json.loads(files["moffett-doctor/devices.json"])) == 3
    told_settings = json.loads(files["moffett-doctor/settings.json"])
    assert told_settings["effective"]["SPU_MX_SMI_TIMEOUT"] == {
        "value": "3",
        "from": "SPU_MX_SMI_TIMEOUT",
    }
    assert "report.tgz" in files["moffett-doctor/kubelet-dir.txt"]
    assert files["moffett-doctor/log.txt"].count("\n") == 2000
    assert "pci.bus_id" in files["moffett-doctor/mx-smi/query.txt"]
    assert "exit status 0" in files["moffett-doctor/mx-smi/select3.txt"]
    assert not [path for path in host.root.iterdir() if path.name.startswith(".report")]


def test_names_of_pods_are_replaced_unless_asked_for(tmp_path: Path) -> None:
    arguments = parsed("--simulate", "1xS30", "--kubelet-dir", str(tmp_path))
    units = {
        "0000:36:00.0": (Holder("team-red", "train", "main"),),
        "0000:37:00.0": (Holder("ml", "train-7f9c", "c"),),
    }
    context = replace(examine(arguments, {}, ()), held=Held({"moffett.ai/spu": units}))
    findings = [fail("held by ml/train-7f9c and team-red/train", "delete train-7f9c")]
    texts = {}
    for with_names in (False, True):
        path = tmp_path / f"{with_names}.tgz"
        redact = bundle.redactor_for(context, with_serials=True, with_names=with_names)
        bundle.write(path, facts.gather(context, findings, None), redact)
        texts[with_names] = "\n".join(packed(path).values())
    assert "team-red/train/main" in texts[True]
    assert "2023243080101" in texts[True]
    assert "held by namespace-2/pod-2 and namespace-1/pod-1" in texts[False]
    assert '"delete pod-2"' in texts[False]
    assert "namespace-1/pod-1/container-1" in texts[False]
    for name in ("team-red", "train", "ml/", "7f9c"):
        assert name not in texts[False]


def test_a_bundle_is_bounded_and_says_what_it_cut(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bundle, "MAX_FILE", 100)
    monkeypatch.setattr(bundle, "MAX_ALL", 150)
    files = [("a", "x y " * 100), ("b", "x y " * 100), ("c", "")]
    members = bundle.write(tmp_path / "b.tgz", files, Redactor())
    assert [(m.name, m.size, m.cut) for m in members] == [
        ("a", 100, True),
        ("b", 50, True),
        ("c", 0, False),
    ]


def test_a_bundle_that_fails_leaves_what_was_there(tmp_path: Path) -> None:
    target = tmp_path / "b.tgz"
    target.write_text("older")

    def files() -> object:
        yield "a", "text"
        raise OSError("the disk is full")

    with pytest.raises(OSError, match="disk is full"):
        bundle.write(target, files(), Redactor())  # type: ignore[arg-type]
    assert os.listdir(tmp_path) == ["b.tgz"]
    assert target.read_text() == "older"


def test_the_end_of_a_long_log(tmp_path: Path) -> None:
    log = tmp_path / "log"
    log.write_text("".join(f"line {number}\n" for number in range(100)))
    assert facts.last_lines(log, most=2) == "line 98\nline 99\n"
    # Half a line could be half a secret, which nobody would know for one.
    assert facts.last_lines(log, size=10) == "line 99\n"
    assert "No such file" in facts.last_lines(tmp_path / "none")
