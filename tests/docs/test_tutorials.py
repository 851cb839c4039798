"""What the pages for contributors tell to do is done, in a copy of the project, and the
test that each ends with is run there, with the linter.

`<!-- in: FILE -->` above a block: a new file. With `before: LINE` the block goes before the
line of the file that begins so.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from .documents import ROOT, Shown, shown

TUTORIALS = [ROOT / "docs/contributing/health-rule.md", ROOT / "docs/contributing/hardware.md"]


@pytest.mark.parametrize("page", TUTORIALS, ids=lambda page: page.stem)
def test_doing_what_it_says_works(page: Path, tmp_path: Path) -> None:
    copy = tmp_path / "project"
    ignored = shutil.ignore_patterns("__pycache__", "e2e", "fuzz", "corpus", "*.egg-info")
    for name in ("src", "tests", "docs"):
        shutil.copytree(ROOT / name, copy / name, ignore=ignored)
    shutil.copy(ROOT / "pyproject.toml", copy)
    steps = [it for it in shown([page]) if "in" in it.marks]
    for step in steps:
        carry_out(step, copy)
    changed = sorted({step.marks["in"] for step in steps})
    code = [name for name in changed if name.endswith(".py")]
    in_copy(copy, "ruff", "check", *code)
    in_copy(copy, "ruff", "format", "--check", *code)
    tests = [name for name in code if name.startswith("tests/")]
    assert tests
    in_copy(copy, "pytest", "-p", "no:cacheprovider", "tests/unit/test_health.py", *tests)


def carry_out(step: Shown, copy: Path) -> None:
    file = copy / step.marks["in"]
    before = step.marks.get("before")
    if before is None:
        assert not file.exists(), f"{file} is no new file"
        file.write_text(step.block.text + "\n")
        return
    lines = file.read_text().splitlines()
    places = [n for n, line in enumerate(lines) if line.strip().startswith(before)]
    assert len(places) == 1, f"{step}: {before!r} is {len(places)} times in {file.name}"
    lines[places[0] : places[0]] = step.block.text.split("\n")
    file.write_text("\n".join(lines) + "\n")


def in_copy(copy: Path, *words: str) -> None:
    env = {**os.environ, "PYTHONPATH": str(copy / "src")}
    done = subprocess.run(
        [sys.executable, "-m", *words], cwd=copy, env=env, check=False, text=True,
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=120,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout


def test_every_tutorial_is_tested() -> None:
    """A page that shows code for a file is in the list above."""
    assert {it.page for it in shown() if "in" in it.marks} == set(TUTORIALS)
