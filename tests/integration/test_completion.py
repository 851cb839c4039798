"""Shells complete the command line with the scripts of `completion`."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from moffett_device_plugin.__main__ import main

PROGRAM = "moffett-device-plugin"
#: What readline does: it calls the function that is registered for the program.
_BASH = """
source "$1"; shift
COMP_WORDS=("$@"); COMP_CWORD=$(($# - 1))
registered=$(complete -p moffett-device-plugin); registered=${registered#*-F }
${registered%% *}
printf '%s\\n' "${COMPREPLY[@]}"
"""


def completed(shell: str, script: Path, *words: str) -> set[str]:
    """What `shell` offers for the last of the words."""
    if shutil.which(shell) is None:
        pytest.skip(f"{shell} is not installed")
    if shell == "bash":
        command = ["bash", "--norc", "-c", _BASH, "bash", str(script), PROGRAM, *words]
    else:
        line = " ".join([PROGRAM, *words])
        command = ["fish", "--no-config", "-c", f'source {script}; complete -C "{line}"']
    result = subprocess.run(command, capture_output=True, text=True, check=True)
    return {line.split("\t")[0] for line in result.stdout.splitlines()}


@pytest.fixture
def script(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """The script of the test's shell."""
    shell = request.getfixturevalue("shell")
    path = tmp_path / f"completion.{shell}"
    command = [sys.executable, "-m", "moffett_device_plugin", "completion", shell]
    path.write_bytes(subprocess.run(command, capture_output=True, check=True).stdout)
    return path


@pytest.mark.parametrize("shell", ["bash", "fish"])
@pytest.mark.parametrize(
    ("words", "offered"),
    [
        (["unc"], {"uncordon"}),
        (["serve", "--plac"], {"--placement"}),
        (["devices", "--telemetry-so"], {"--telemetry-source", "--telemetry-socket"}),
        (["serve", "--placement", ""], {"compact", "spread", "none"}),
        (["top", "--inject-sola", "t"], {"true"}),
        (["config", "sch"], {"schema"}),
    ],
)
def test_commands_options_and_values_are_offered(
    shell: str, script: Path, words: list[str], offered: set[str]
) -> None:
    assert completed(shell, script, *words) == offered


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_the_shell_reads_the_script_without_an_error(shell: str, script: Path) -> None:
    if shutil.which(shell) is None:
        pytest.skip(f"{shell} is not installed")
    result = subprocess.run([shell, "-n", script], capture_output=True, text=True, check=True)
    assert result.stderr == ""


def test_another_shell_is_refused_in_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["completion", "tcsh"]) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert "use one of bash, zsh, fish" in error


def test_without_the_package_it_is_named(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "shtab", None)
    assert main(["completion", "bash"]) == 2
    assert "[completion]" in capsys.readouterr().err
