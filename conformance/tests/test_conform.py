"""The program as its users run it: against our own plugin, and against a defective one."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from device_plugin_conformance.checks import CHECKS, name_of
from device_plugin_conformance.default_path import DEFAULT_PATH, NOT_PERMITTED, WRAPPER
from device_plugin_conformance.outcome import Result
from device_plugin_conformance.rig import Options
from device_plugin_conformance.suite import run_suite

CONFORM = [sys.executable, "-m", "device_plugin_conformance"]
OURS = [sys.executable, "-m", "moffett_device_plugin"]
TINY = Path(__file__).with_name("tiny_plugin.py")
#: Waits for what our own plugin does only after 12 s, by design.
SLOW = "never-dialled"


def conform(*options: str) -> subprocess.Popen[str]:
    """Begins to check our own plugin on a simulated node."""
    node = ["--simulate", "2xS30", "--simulate-control", "{tmp}/node.json"]
    simulate = [*OURS, "simulate"]
    command = [
        *CONFORM, "-o", "json", "--timeout", "20", *options,
        "--inject", " ".join([*simulate, "inject", "0000:36:00.0", "ecc", *node]),
        "--heal", " ".join([*simulate, "heal", "0000:36:00.0", *node]),
        "--", *OURS, "serve", *node, "--kubelet-dir", "{dir}", "--recovery-seconds", "0.1",
        "--flapping-seconds", "none",  # the same device fails in several checks
        "--pod-resources-socket", "none",  # not the kubelet that this machine may have
        "--mx-smi-interval", "0.5",
    ]  # fmt: skip
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def test_our_own_plugin_fails_nothing() -> None:
    runs = [
        conform("--only", "transitions", "--only", "shutdown"),
        conform("--skip", "transitions", "--skip", "shutdown", "--skip", SLOW),
    ]
    results = []
    for process in runs:
        out, errors = process.communicate(timeout=120)
        found = json.loads(out)["results"]
        wrong = [result for result in found if result["level"] == "fail"]
        assert (wrong, process.returncode, errors) == ([], 0, "")
        results += found
    level = {result["check"]: result["level"] for result in results}
    assert len(level) == len(CHECKS) - 1
    # Our own plugin also passes these, which the API leaves open.
    for check in ("own-socket-removed", "stream-cut", "health-seen-by-all", "options-agree"):
        assert level[check] == "pass"
    assert [name for name, one in level.items() if one == "skip" and "inode" not in name] == [
        "preferred-not-advertised"
    ]


#: What each run of the tiny plugin has wrong, and which checks have to fail for it.
DEFECTS: list[dict[str, str]] = [
    {},
    {"version": "register-version"},
    {"resource-name": "register-resource-name"},
    {"endpoint": "register-endpoint"},
    {"serves-late": "serves-before-registering"},
    {"same-id": "list-ids", "health-word": "list-health", "topology": "list-topology"},
    {"ends-stream": "list-stays-open"},
    {"too-few": "preferred-size", "any-device": "preferred-part"},
    {"no-must": "preferred-must-include", "half": "allocate-half"},
    {
        "unknown": "allocate-unknown",
        "one-response": "allocate-containers",
        "relative-path": "allocate-contents",
    },
    {"never-again": "allocate-each"},
    {
        "ignores-restart": "kubelet-restart",
        "dies-of-garbage": "garbage-messages",
        "ignores-sigterm": "sigterm",
        "stale-socket": "start-after-sigkill",
    },
]


@pytest.mark.parametrize("defects", DEFECTS, ids=lambda defects: "+".join(defects) or "none")
def test_a_defect_is_found(defects: dict[str, str], tmp_path: Path) -> None:
    looked_at = set(defects.values()) or {check for each in DEFECTS for check in each.values()}
    results = run_tiny(defects, looked_at, tmp_path / "log")
    assert {result.check for result in results} == looked_at
    failed = {result.check: result.detail for result in results if result.level == "fail"}
    assert set(failed) == set(defects.values()), failed


def run_tiny(defects: dict[str, str], looked_at: set[str], log: Path) -> list[Result]:
    options = Options(
        command=(sys.executable, str(TINY), "{dir}", *defects),
        environment={"PYTHONPATH": os.pathsep.join(sys.path)},
        timeout=3.0 if "ignores-restart" in defects or "serves-late" in defects else 10.0,
        settle=0.05,
        # Long enough for an interpreter to end in, on a machine that is busy.
        grace=0.5 if "ignores-sigterm" in defects else 10.0,
    )
    checks = [check for check in CHECKS if name_of(check) in looked_at]
    return asyncio.run(run_suite(options, checks, lambda _: None, lambda _: None, log))


def test_a_plugin_that_ends_fails_with_its_last_output(tmp_path: Path) -> None:
    options = Options(command=(sys.executable, "-c", "raise SystemExit('no licence')"))
    (result,) = asyncio.run(
        run_suite(options, CHECKS[:1], lambda _: None, lambda _: None, tmp_path / "log")
    )
    assert result.level == "fail"
    assert "code 1" in result.detail and "no licence" in result.detail


def test_a_plugin_that_counts_on_being_restarted_is_reported_and_not_failed() -> None:
    """It registers with the kubelet that is there, and ends with it."""
    code = (
        "import sys, time; sys.argv = [sys.argv[0], sys.argv[1], 'ignores-restart']; "
        f"sys.path.insert(0, {str(TINY.parent)!r}); import asyncio, tiny_plugin as tiny; "
        "from moffett_device_plugin.deviceplugin.kubelet_directory import KubeletDirectory\n"
        "async def main():\n"
        "    async with asyncio.TaskGroup() as tasks:\n"
        "        plugin = tiny.Plugin(tiny.Path(sys.argv[1]), frozenset())\n"
        "        tasks.create_task(plugin.run())\n"
        "        first = None\n"
        "        version = -1\n"
        "        while True:\n"
        "            listing, version = await plugin.kubelet.listing.after(version)\n"
        "            first = first or listing.kubelet\n"
        "            if listing.kubelet not in (None, first): sys.exit(7)\n"
        "asyncio.run(main())\n"
    )
    options = Options(
        command=(sys.executable, "-c", code, "{dir}"),
        environment={"PYTHONPATH": os.pathsep.join(sys.path)},
        timeout=5.0,
    )
    checks = [check for check in CHECKS if name_of(check) == "kubelet-restart"]
    (result,) = asyncio.run(run_suite(options, checks, lambda _: None, lambda _: None))
    assert (result.level, "code 7" in result.detail) == ("info", True), result


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root")
def test_a_plugin_with_a_built_in_directory_is_checked_at_the_default_path() -> None:
    options = Options(
        command=(sys.executable, str(TINY), str(DEFAULT_PATH)),
        environment={"PYTHONPATH": os.pathsep.join(sys.path)},
        at_default_path=True,
        timeout=5.0,
    )
    trial = subprocess.run([*WRAPPER, "/", "true"], capture_output=True, check=False)
    if trial.returncode == NOT_PERMITTED:
        pytest.skip(trial.stderr.decode())
    checks = [check for check in CHECKS if name_of(check) in ("registers", "kubelet-restart")]
    results = asyncio.run(run_suite(options, checks, lambda _: None, lambda _: None))
    assert [result.level for result in results] == ["pass", "pass"], results
