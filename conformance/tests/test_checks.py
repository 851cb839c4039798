"""What the checks call legal, and the options of the command."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path

import pytest

import device_plugin_conformance.__main__ as program
from device_plugin_conformance.checks import CHECKS, name_of, rule_of, subject_of
from device_plugin_conformance.default_path import NOT_PERMITTED, WRAPPER
from device_plugin_conformance.grants import missing_paths, wrong_grant
from device_plugin_conformance.outcome import FailedError
from device_plugin_conformance.preference import check_choice
from device_plugin_conformance.registration import wrong_resource_name
from moffett_device_plugin.api import deviceplugin_v1beta1_pb2 as pb
from moffett_device_plugin.runtime.errors import ConfigurationError

GOOD = ["moffett.ai/spu", "nvidia.com/mig-1g.5gb", "a/b", "x.example.com/A_b.c-1"]
BAD = [
    "spu", "", "/", "a/", "/b", "a/b/c", "Moffett.ai/spu", "a..b/c", "-a/b", "a/-b", "a/b_",
    "kubernetes.io/spu", "x.kubernetes.io/spu", "requests.a/b", "a/" + "b" * 64, "a b/c",
    "a/spü", "x" * 254 + "/b", "moffett.ai/spu\n",
]  # fmt: skip


def test_resource_names_are_valid_where_kubelets_accept_them() -> None:
    assert [name for name in GOOD if wrong_resource_name(name)] == []
    assert [name for name in BAD if not wrong_resource_name(name)] == []


def grant(**fields: object) -> pb.ContainerAllocateResponse:
    good = {"host_path": "/dev/x", "container_path": "/dev/x", "permissions": "rw"}
    return pb.ContainerAllocateResponse(devices=[pb.DeviceSpec(**{**good, **fields})])  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "bad",
    [
        grant(host_path="dev/x"),
        grant(host_path=""),
        grant(container_path="/dev/../x"),
        grant(permissions=""),
        grant(permissions="rx"),
        pb.ContainerAllocateResponse(envs={"": "x"}),
        pb.ContainerAllocateResponse(envs={"A=B": "x"}),
        pb.ContainerAllocateResponse(mounts=[pb.Mount(host_path="/a", container_path="b")]),
        pb.ContainerAllocateResponse(
            mounts=[pb.Mount(host_path=path, container_path="/c") for path in ("/a", "/b")]
        ),
        pb.ContainerAllocateResponse(cdi_devices=[pb.CDIDevice(name="vendor.com=x")]),
    ],
)
def test_what_no_runtime_takes_is_found(bad: pb.ContainerAllocateResponse) -> None:
    assert wrong_grant(bad)


def test_what_runtimes_take_is_legal() -> None:
    good = grant()
    good.envs["A_1"] = "x=y"
    good.mounts.add(host_path="/a", container_path="/a", read_only=True)
    good.cdi_devices.add(name="moffett.ai/spu=0000:36:00.0")
    good.annotations["a/b"] = "c"
    assert wrong_grant(good) is None
    assert missing_paths(good) == ["/dev/x", "/a"]


@pytest.mark.parametrize(
    ("chosen", "must_include", "size"),
    [(["a"], [], 2), (["a", "a"], [], 2), (["a", "z"], [], 2), (["a", "b"], ["c"], 2)],
)
def test_a_wrong_preference_is_found(chosen: list[str], must_include: list[str], size: int) -> None:
    with pytest.raises(FailedError):
        check_choice(chosen, ["a", "b", "c"], must_include, size)


def test_each_check_says_whose_rule_it_is() -> None:
    names = [name_of(check) for check in CHECKS]
    assert len(set(names)) == len(names)
    assert not set(names) & {subject_of(check) for check in CHECKS}
    assert [name_of(check) for check in CHECKS if len(rule_of(check)) < 40] == []


# -- the command line ---------------------------------------------------------------------


def run(*words: str) -> int:
    return program.run(program.build_parser().parse_args(words))


@pytest.mark.parametrize(
    ("words", "says"),
    [
        ((), "COMMAND: '' is not valid"),
        (("--", "no-such-program-x"), "COMMAND: 'no-such-program-x'"),
        (("--only", "registrs", "--", "true"), "the nearest is registers"),
        (("--env", "X", "--", "true"), "--env: 'X'"),
        (("--inject", "a", "--", "true"), "--inject and --heal go together"),
        (("--inject", "'", "--heal", "b", "--", "true"), '--inject: "\'"'),
        (("--timeout", "soon", "--", "true"), "--timeout: 'soon'"),
        (("--grace", "0", "--", "true"), "--grace: '0'"),
    ],
)
def test_a_wrong_option_is_one_line(words: tuple[str, ...], says: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        run(*words)
    assert says in str(caught.value)
    assert "\n" not in str(caught.value)


def test_the_list_has_every_chosen_check_and_its_rule(capsys: pytest.CaptureFixture[str]) -> None:
    assert run("--list", "-o", "json", "--only", "listing", "--skip", "two-streams") == 0
    listed = json.loads(capsys.readouterr().out)
    assert [row["check"] for row in listed] == [
        name_of(check)
        for check in CHECKS
        if subject_of(check) == "listing" and name_of(check) != "two-streams"
    ]
    assert run("--list") == 0
    text = capsys.readouterr().out
    assert all(name_of(check) in text and rule_of(check) in text for check in CHECKS)


def test_nothing_registered_is_one_failure_and_the_rest_skipped(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert run("--timeout", "0.2", "--only", "registers", "--only", "list-ids", "--", "true") == 1
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[:2] for line in lines] == [
        ["fail", "registers"],
        ["skip", "list-ids"],
        ["2", "checks:"],
    ]
    assert "the plugin ended (code 0)" in lines[0]


# -- the default path ---------------------------------------------------------------------

MAY_MOUNT = os.geteuid() == 0


@pytest.mark.skipif(not MAY_MOUNT, reason="needs root")
def test_the_plugin_alone_sees_the_directory_at_the_default_path(tmp_path: Path) -> None:
    kubelet = Path("/var/lib/kubelet")
    before = (Path("/var/lib").stat().st_mtime_ns, kubelet.exists())
    (tmp_path / "here").touch()
    script = "ls /var/lib/kubelet/device-plugins; ls /var/lib; cat /proc/self/mountinfo | wc -l"
    done = subprocess.run(
        [*WRAPPER, str(tmp_path), "sh", "-c", script], capture_output=True, text=True, check=False
    )
    if done.returncode == NOT_PERMITTED:
        pytest.skip(done.stderr)
    listed = done.stdout.split()
    assert listed[0] == "here"
    assert set(os.listdir("/var/lib")) <= set(listed)
    assert (Path("/var/lib").stat().st_mtime_ns, kubelet.exists()) == before


def test_a_directory_that_does_not_exist_is_one_line() -> None:
    done = subprocess.run(
        [*WRAPPER, "/nonexistent", "true"], capture_output=True, text=True, check=False
    )
    assert done.returncode == NOT_PERMITTED
    assert done.stderr.startswith("--at-default-path: ")
    assert len(done.stderr.splitlines()) == 1
