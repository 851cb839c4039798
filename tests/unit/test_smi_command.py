"""Asking an mx-smi that nobody has documented, that is old, hangs, or lies."""

from __future__ import annotations

import asyncio
import os
import struct
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from moffett_device_plugin.hardware import SmiError
from moffett_device_plugin.hardware.smi_command import Launch, SmiCommand, launch_of
from moffett_device_plugin.hardware.sysfs_hardware import SysfsHardware
from moffett_device_plugin.hardware.types import SmiReport
from tests.support.fakehost import FakeHost

ROW = "0, 0:36:00.0, 2023"


def ask(host: FakeHost, times: int = 1, deadline: float = 5.0) -> list[SmiReport | SmiError]:
    async def run() -> list[SmiReport | SmiError]:
        hardware = SysfsHardware(host.root, smi_deadline=deadline)
        answers: list[SmiReport | SmiError] = []
        for _ in range(times):
            try:
                answers.append(await hardware.query_smi())
            except SmiError as error:
                answers.append(error)
        return answers

    return asyncio.run(run())


def runs(host: FakeHost) -> list[str]:
    return (host.root / "runs").read_text().splitlines()


#: Logs each run; `$fields` are the names asked for, whatever form they came in.
READ_ARGUMENTS = """
    echo "$*" >> {root}/runs
    shift 2
    {form}
"""
FORMS = {
    "words": 'fields=$(echo "$*" | tr " " "\\n")',
    "commas": '[ $# = 1 ] || exit 2; case "$1" in *\\{*) exit 2;; esac;'
    ' fields=$(echo "$1" | tr "," "\\n")',
    "braces": 'case "$1" in \\{*\\}) ;; *) exit 2;; esac; fields=$(echo "$1" | tr -d "{}" |'
    ' tr "," "\\n")',
    "first word only": 'fields=$(echo "$1" | tr "," "\\n")',
}
PRINT_ALL = """
    echo $fields | tr " " ","
    for f in $fields; do
        case $f in pci.bus_id) v=0:36:00.0;; index) v=0;; serial) v=2023;; *) v=7;; esac
        printf "%s%s" "$sep" "$v"; sep=", "
    done
    echo
"""


@pytest.mark.parametrize("form", FORMS)
def test_the_form_of_the_field_list_is_found_out_once(host: FakeHost, form: str) -> None:
    script = READ_ARGUMENTS.format(root=host.root, form=FORMS[form])
    host.smi(script + PRINT_ALL.replace("{", "{").replace("}", "}"))
    first, second = ask(host, times=2)
    assert isinstance(first, SmiReport)
    assert isinstance(second, SmiReport)
    assert first.devices[0].serial == "2023"
    assert first.devices[0].telemetry.ecc_uncorrected_volatile == 7
    tried = runs(host)
    assert tried[-1] == tried[-2], "the second question is the one that was answered"
    assert len(tried) <= 4


def test_an_older_mx_smi_is_asked_for_less(host: FakeHost) -> None:
    refuse = 'case "$*" in *ecc*|*mcu*) echo "unknown field" >&2; exit 1;; esac'
    script = READ_ARGUMENTS.format(root=host.root, form=f"{refuse}\n    {FORMS['words']}")
    host.smi(script + PRINT_ALL)
    first, second = ask(host, times=2)
    assert isinstance(first, SmiReport)
    device = first.devices[0]
    assert (device.serial, device.cores, device.mcu_version) == ("2023", 7, None)
    assert device.telemetry.temperature_celsius == 7
    assert device.telemetry.ecc_uncorrected_volatile is None
    assert first == second


def test_an_mx_smi_that_hangs_is_killed_with_its_children(host: FakeHost, tmp_path: Path) -> None:
    host.smi(f"sleep 1000 & echo $! > {tmp_path}/child; wait")
    (error,) = ask(host, deadline=0.3)
    assert "no end after 0.3 s" in str(error)
    child = int((tmp_path / "child").read_text())
    state = Path(f"/proc/{child}/stat")
    assert not state.exists() or state.read_text().rsplit(")", 1)[1].split()[0] == "Z"


@pytest.mark.parametrize(
    ("script", "text"),
    [
        ("echo no such device; exit 3", "exit status 3: 'no such device'"),
        ("kill -SEGV $$", "signal 11"),
        ("echo hello world", "no table in its output: 'hello world'"),
        ("exit 0", "it printed nothing"),
        ("yes | head -c 3000000", "bytes of output"),
        ("head -c 300 /dev/urandom | tr -d ','", "no table"),
    ],
)
def test_a_broken_mx_smi_is_told_in_one_line(host: FakeHost, script: str, text: str) -> None:
    host.smi(script)
    (error,) = ask(host)
    assert isinstance(error, SmiError)
    assert text in str(error)
    assert "\n" not in str(error)
    assert len(str(error)) < 200


def test_a_broken_mx_smi_costs_few_runs_and_is_heard_when_mended(host: FakeHost) -> None:
    host.smi(f"echo x >> {host.root}/runs; exit 1")

    async def run() -> tuple[int, SmiReport]:
        hardware = SysfsHardware(host.root)
        for _ in range(11):
            with pytest.raises(SmiError):
                await hardware.query_smi()
        broken = len(runs(host))
        host.smi_table(ROW)
        return broken, await hardware.query_smi()

    broken, report = asyncio.run(run())
    assert broken <= 6 + 10 * 2
    assert report.devices[0].serial == "2023"


def test_a_host_without_mx_smi_has_none_until_it_is_installed(host: FakeHost) -> None:
    hardware = SysfsHardware(host.root)
    assert not hardware.has_smi
    host.smi_table(ROW)
    assert hardware.has_smi
    assert not SysfsHardware(host.root, smi="").has_smi


def test_a_configured_command_is_run_with_its_arguments(tmp_path: Path) -> None:
    tool = tmp_path / "tool"
    tool.write_text('#!/bin/sh\n[ "$1" = "two words" ] && printf "pci.bus_id\\n0:36:00.0\\n"\n')
    tool.chmod(0o755)
    command = f"{tool} 'two words'"
    smi = SmiCommand(lambda: launch_of(Path("/x"), command, can_chroot=False), 5.0)
    assert asyncio.run(smi.query()).devices[0].bus_id == "0000:36:00.0"


def test_a_command_that_is_not_there_is_an_error_not_a_crash(tmp_path: Path) -> None:
    smi = SmiCommand(lambda: Launch((str(tmp_path / "none"),)), 5.0)
    with pytest.raises(SmiError, match="No such file"):
        asyncio.run(smi.query())


# -- a program of another root --------------------------------------------------------


def elf(interpreter: str) -> bytes:
    """The smallest file that has a dynamic loader's name where ELF files have it."""
    name = interpreter.encode() + b"\0"
    header = b"\x7fELF\x02\x01\x01" + bytes(9) + struct.pack("<HHIQQQIHHHHHH", 3, 62, 1, 0, 64, 0,
             0, 64, 56, 1, 64, 0, 0)  # fmt: skip
    return header + struct.pack("<IIQQQQQQ", 3, 4, 120, 0, 0, len(name), len(name), 1) + name


def install(root: Path, content: bytes, loader: str | None) -> Path:
    program = root / "usr/bin/mx-smi"
    program.parent.mkdir(parents=True, exist_ok=True)
    program.write_bytes(content)
    program.chmod(0o755)
    if loader:
        (root / loader).parent.mkdir(parents=True, exist_ok=True)
        (root / loader).touch()
    return program


def test_a_binary_of_the_host_is_run_in_the_hosts_root(tmp_path: Path) -> None:
    install(tmp_path, elf("/lib64/ld-linux-x86-64.so.2"), "lib64/ld-linux-x86-64.so.2")
    launch = launch_of(tmp_path, None, can_chroot=True)
    assert launch == Launch(("/usr/bin/mx-smi",), chroot=str(tmp_path))


def test_without_the_right_to_change_root_the_hosts_loader_finds_its_libraries(
    tmp_path: Path,
) -> None:
    loader = "lib64/ld-linux-x86-64.so.2"
    program = install(tmp_path, elf("/" + loader), loader)
    (tmp_path / "opt/sola/lib").mkdir(parents=True)
    (tmp_path / "usr/local/sola/lib").mkdir(parents=True)
    (tmp_path / "etc/ld.so.conf.d").mkdir(parents=True)
    (tmp_path / "etc/ld.so.conf.d/sola.conf").write_text("/opt/sola/lib\n")
    launch = launch_of(tmp_path, None, can_chroot=False)
    assert launch is not None
    assert launch.argv[0] == str(tmp_path / loader)
    assert launch.argv[1] == "--library-path"
    folders = launch.argv[2].split(":")
    assert folders[:2] == [str(tmp_path / "opt/sola/lib"), str(tmp_path / "usr/local/sola/lib")]
    assert launch.argv[3] == str(program)


@pytest.mark.parametrize("content", [b"#!/usr/bin/env bash\n", elf("/lib64/ld.so"), b"static"])
def test_what_needs_nothing_of_the_other_root_is_run_as_it_is(
    tmp_path: Path, content: bytes
) -> None:
    program = install(tmp_path, content, None)
    assert launch_of(tmp_path, None, can_chroot=True) == Launch((str(program),))


@pytest.mark.skipif(os.geteuid() != 0, reason="chroot needs root")
def test_a_script_of_the_host_really_runs_in_its_root(host: FakeHost) -> None:
    """With a static busybox or nothing: the shell has to be the other root's own."""
    busybox = Path("/bin/busybox")
    if not busybox.exists():
        pytest.skip("no static busybox on this machine")
    (host.root / "bin").mkdir()
    (host.root / "bin/sh").write_bytes(busybox.read_bytes())
    (host.root / "bin/sh").chmod(0o755)
    host.smi(
        'printf "pci.bus_id, serial\\n0:36:00.0, "; cd /; for f in *; do printf $f; done; echo'
    )
    (report,) = ask(host)
    assert isinstance(report, SmiReport)
    assert report.devices[0].serial == "binprocsysusr"


# -- what it refused, and its other form ---------------------------------------------------


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def refusing(host: FakeHost) -> SmiCommand:
    """An mx-smi that refuses what the file `refused` names, with the rows of `rows`."""
    host.smi(
        f"""
        echo "$*" >> {host.root}/runs
        shift 2
        for f in $(cat {host.root}/refused); do
            case " $* " in *" $f "*) exit 1;; esac
        done
        case "$1" in *,*) exit 2;; esac
        echo "$*" | tr " " ","
        while read -r bus; do
            sep=
            for f in $*; do
                case $f in pci.bus_id) v=$bus;; index) v=0;; *) v=7;; esac
                printf "%s%s" "$sep" "$v"; sep=", "
            done
            echo
        done < {host.root}/rows
        """
    )
    (host.root / "rows").write_text("0:36:00.0\n")
    (host.root / "refused").write_text("temperature mcu_version\n")
    return SmiCommand(lambda: launch_of(host.root, None, can_chroot=False), 30.0, Clock())


def understand(host: FakeHost) -> None:
    (host.root / "refused").write_text("\n")


def replace_program(host: FakeHost, smi: SmiCommand) -> None:
    program = host.root / "usr/bin/mx-smi"
    program.write_text(program.read_text() + "# another version\n")


def another_card(host: FakeHost, smi: SmiCommand) -> None:
    (host.root / "rows").write_text("0:36:00.0\n0:37:00.0\n")


def an_hour_later(host: FakeHost, smi: SmiCommand) -> None:
    smi._clock.now = 3600.0  # type: ignore[attr-defined]


@pytest.mark.parametrize("happens", [replace_program, another_card, an_hour_later])
def test_what_was_refused_is_asked_for_again(
    host: FakeHost, happens: Callable[[FakeHost, SmiCommand], None]
) -> None:
    async def run() -> None:
        smi = refusing(host)
        first = await smi.query()
        assert first.refused == ("mcu_version", "temperature")
        assert first.devices[0].telemetry.temperature_celsius is None
        assert first.devices[0].serial == "7"
        settled = len(runs(host))
        understand(host)
        await smi.query()
        assert len(runs(host)) == settled + 1, "for no reason it is not asked again"
        happens(host, smi)
        again = await smi.query()
        assert again.refused == ()
        assert again.devices[0].telemetry.temperature_celsius == 7

    asyncio.run(run())


def test_query_is_the_second_source_where_select_is_not_understood(host: FakeHost) -> None:
    """And shows the devices one by one, where it does not show all of them at once."""
    host.smi(
        """
        [ "$1" = query ] || { echo "???"; exit 0; }
        n=${3:-0}
        echo "SOLA Version                          : 3.5.3"
        echo "Attached Devices                      : 2"
        echo "Device $n"
        echo "    PCI"
        echo "        Bus Id                        : 0:3$((n + 6)):00.0"
        echo "    Temperature                       : 4$n C"
        """
    )
    (report,) = ask(host)
    assert isinstance(report, SmiReport)
    found = [(d.bus_id, d.telemetry.temperature_celsius) for d in report.devices]
    assert found == [("0000:36:00.0", 40), ("0000:37:00.0", 41)]
    assert report.sola_version == "3.5.3"
    assert not report.complete


# -- what it leaves behind -----------------------------------------------------------------


def test_no_zombie_is_left_where_orphans_become_our_children() -> None:
    """As for the first process of a container: here, for a subreaper."""
    source = """
import asyncio, ctypes, os, sys
ctypes.CDLL(None).prctl(36, 1, 0, 0, 0)
from moffett_device_plugin.hardware.process import CommandError, Runner

async def run():
    runner = Runner(reap=True)
    for _ in range(5):
        try:
            await runner.run(["sh", "-c", "sleep 600 & sleep 600 & wait"], 0.2)
        except CommandError:
            pass
    await runner.run(["true"], 5.0)
    children = open(f"/proc/self/task/{os.getpid()}/children").read().split()
    print([open(f"/proc/{child}/stat").read().split()[2] for child in children])

asyncio.run(run())
"""
    done = subprocess.run(
        [sys.executable, "-c", source], capture_output=True, text=True, timeout=60, check=False
    )
    if "children" in done.stderr:
        pytest.skip("this kernel does not list children")
    assert done.returncode == 0, done.stderr
    assert "Z" not in done.stdout
