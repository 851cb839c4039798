"""What no line of the source does."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SOURCES = sorted((ROOT / "src").rglob("*.py"))

#: What runs a text as a program, or makes objects from it.
FORBIDDEN = {
    "eval", "exec", "compile", "os.system", "os.popen", "os.spawnl", "os.spawnv", "os.spawnvp",
    "subprocess.getoutput", "subprocess.getstatusoutput", "asyncio.create_subprocess_shell",
    "yaml.load", "yaml.load_all", "yaml.unsafe_load", "yaml.full_load",
    "pickle.load", "pickle.loads", "marshal.loads", "shelve.open",
    "tempfile.mktemp", "os.tempnam", "ssl._create_unverified_context", "tarfile.extractall",
}  # fmt: skip


def calls() -> Iterator[tuple[Path, ast.Call, str]]:
    for path in SOURCES:
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call):
                yield path, node, ast.unparse(node.func)


def test_no_text_is_run_by_a_shell_or_as_python() -> None:
    for path, call, name in calls():
        assert name not in FORBIDDEN, f"{path}:{call.lineno}"
        for keyword in call.keywords:
            assert keyword.arg != "shell", f"{path}:{call.lineno}"


def test_certificates_are_never_taken_unread() -> None:
    for path in SOURCES:
        text = path.read_text()
        assert "CERT_NONE" not in text, path
        assert not re.search(r"check_hostname\s*=\s*False", text), path


@pytest.mark.parametrize(
    "lock", sorted([*ROOT.glob("*.lock"), *ROOT.glob("tests/*/*.lock")]), ids=lambda path: path.name
)
def test_every_package_is_locked_to_its_hashes(lock: Path) -> None:
    entries = re.split(r"\n(?=\S)", lock.read_text().strip())
    packages = [entry for entry in entries if not entry.startswith("#")]
    assert packages
    for entry in packages:
        assert re.match(r"[A-Za-z0-9._\[\]-]+==\S+", entry), entry
        assert "--hash=sha256:" in entry, entry


@pytest.mark.parametrize("script", ["run", "tests/fuzz/run", "tests/e2e/run"])
def test_what_installs_them_demands_the_hashes(script: str) -> None:
    text = (ROOT / script).read_text().replace("\\\n", " ")
    from_a_lock = [line for line in text.splitlines() if re.search(r"[\s\"]-r[\s\"]", line)]
    assert from_a_lock
    for line in from_a_lock:
        assert "--require-hashes" in line
