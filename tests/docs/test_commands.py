"""Every command of the documents is run or looked at, and every output is what it prints."""

from __future__ import annotations

import re
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path

import pytest
import yaml

from .documents import KNOWN, MARKS, ROOT, Command, Shown, shown
from .node import CONFORM, MODULES, PROGRAM, Node, node
from .outside import SLOW, WHY, problem, simple_commands

SHOWN = list(shown())
COMMANDS = [it for it in SHOWN if it.block.language in ("sh", "shell", "bash") or it.transcript]
RUN = [it for it in COMMANDS if "not run" not in it.marks]
OUTPUTS = [it for it in SHOWN if "output of" in it.marks]
#: Words that stand for something the reader puts in.
PLACEHOLDER = re.compile(r"(?<![\w$/{=-])[A-Z][A-Z_]{2,}(?![\w=.])|\.\.\.")
SHELL = {
    "alias",
    "spu",
    "cd",
    "echo",
    "cat",
    "ls",
    "grep",
    "sleep",
    "true",
    "curl",
    "jq",
    "P=$(kubectl",
    "tar",
}


@pytest.fixture(scope="module")
def machine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Node]:
    with tempfile.TemporaryDirectory(prefix="spu-") as short:  # sockets: paths below 108
        work = tmp_path_factory.mktemp("work")
        with node(Path(short), work) as ready:
            yield ready


@pytest.mark.parametrize("it", [it for it in SHOWN if it not in COMMANDS], ids=str)
def test_everything_shown_says_where_it_is_from(it: Shown) -> None:
    if it.block.language:
        return
    assert it.marks.keys() & KNOWN, "say above the block where it is from: tests/docs/__init__.py"
    source = it.marks.get("output from", "").split(",")[0]
    if source.startswith("tests/"):
        assert (ROOT / source).exists(), source


@pytest.mark.parametrize("it", [it for it in SHOWN if it.block.comment], ids=str)
def test_comments_are_understood(it: Shown) -> None:
    assert it.marks.keys() <= MARKS


@pytest.mark.parametrize("it", RUN, ids=str)
def test_commands_are_right(it: Shown, machine: Node) -> None:
    for command in it.commands:
        known = "output from" in it.marks
        ours = False
        for words in simple_commands(command.line):
            if _is_ours(words):
                ours = True
                _check_flags(words)
            elif words[0] in ("kubectl", "nsenter", "docker") and PROGRAM in words:
                _check_flags(words[words.index(PROGRAM) :])
            elif words[0].removeprefix("./") in SLOW:
                assert (ROOT / words[0]).is_file()
            else:
                assert words[0] in WHY or words[0] in SHELL, f"{words[0]}: see tests/docs"
                assert problem(words) is None, problem(words)
        assert known or ours or not command.output, "say where it is from: tests/docs/__init__.py"
        if ours and not known and not PLACEHOLDER.search(command.line) and _all_ours(command):
            _run(it, command, machine)


@pytest.mark.parametrize("it", OUTPUTS, ids=str)
def test_outputs_are_what_is_printed(it: Shown, machine: Node) -> None:
    with prepared(it, machine):
        done = machine.type(it.marks["output of"])
    compare(it.block.text, done.stdout, "cut" in it.marks)


@contextmanager
def prepared(it: Shown, machine: Node) -> Iterator[None]:
    """The node as the block wants it, and after that as it was."""
    before = it.marks.get("after")
    if before is None:
        yield
        return
    words = before.split()
    assert words[:2] == ["simulate", "inject"], "only what can be healed again"
    assert machine.type(f"{PROGRAM} {before}").returncode == 0
    machine.wait_for_healthy(5, without=words[2])
    try:
        yield
    finally:
        machine.type(f"{PROGRAM} simulate heal {words[2]}")
        machine.wait_for_healthy(6)


@pytest.mark.parametrize(
    "it", [it for it in SHOWN if it.block.language in ("yaml", "json")], ids=str
)
def test_values_can_be_read(it: Shown, machine: Node) -> None:
    if "figure" in it.marks:
        return
    text = "\n".join(
        line for line in it.block.text.splitlines() if line.strip() not in ("...", "…")
    )
    if it.block.language == "json" and text != it.block.text:
        return  # cut: no JSON any more
    documents = list(yaml.safe_load_all(text))
    assert documents
    first = documents[0]
    if isinstance(first, dict) and first.get("version") == "v1" and "apiVersion" not in first:
        file = machine.work / "shown.yaml"
        file.write_text(it.block.text)
        checked = machine.type(f"{PROGRAM} config check shown.yaml")
        assert checked.returncode == 0, checked.stdout


def _is_ours(words: list[str]) -> bool:
    if words[0] == "./run":
        return words[1:2] not in ([], ["test"], ["check"], ["conform"])
    return words[0] in (PROGRAM, CONFORM)


def _all_ours(command: Command) -> bool:
    return all(_is_ours(words) for words in simple_commands(command.line))


def _check_flags(words: list[str]) -> None:
    """Every flag of a command line of ours is one that the command has."""
    rest = words if words[0] == CONFORM else words[1:]
    if rest[:1] == ["--version"] or not rest:
        return
    known = _flags(rest[0])
    for word in rest[1:]:
        if word == "--":
            break
        if word.startswith("--"):
            assert word.partition("=")[0] in known, f"{rest[0]} has no {word}"


@cache
def _flags(command: str) -> frozenset[str]:
    words = [sys.executable, "-m", "moffett_device_plugin", command]
    if command == CONFORM:
        words = [sys.executable, "-m", MODULES[CONFORM]]
    text = subprocess.run([*words, "--help"], text=True, capture_output=True, check=True).stdout
    for action in re.findall(r"^    (check|show|schema|reference)\b", text, re.MULTILINE):
        done = subprocess.run(
            [*words, action, "--help"], text=True, capture_output=True, check=True
        )
        text += done.stdout
    return frozenset(re.findall(r"--[a-z][a-z-]*", text))


def _run(it: Shown, command: Command, machine: Node) -> None:
    line = command.line
    words = next(simple_commands(line))
    name = words[0] if words[0] == CONFORM else words[1]
    if name == "serve":
        return  # runs for ever: the fixture is one of it
    if name == "top" and "--once" not in line:
        line = line.replace(" top", " top --once", 1)
    if name == CONFORM and "--list" not in line:  # only what is shown of it: a minute else
        only = re.findall(r"^(?:pass|fail|info|skip)  ([a-z0-9-]+)", command.output, re.MULTILINE)
        flags = "".join(f" --only {check}" for check in only or ["registers"])
        line = line.replace(CONFORM, CONFORM + flags, 1)
    with prepared(it, machine):
        done = machine.type(line)
    # What the doctor and the checks say of this node may be bad news.
    allowed = (0, 1) if name in ("doctor", CONFORM, "config") else (0,)
    assert done.returncode in allowed, done.stdout
    if command.output:
        compare(command.output, done.stdout, "cut" in it.marks)


#: What differs from one run to the next.
VARYING = (
    (re.compile(r"(?<![\w:])\d\d:\d\d:\d\d(?![\w:.])"), "TIME"),
    (re.compile(r"\b\d+ (passed|warning|failed|skipped)s?\b"), r"N \1"),
    (re.compile(r"\b\d+(\.\d+)? (ms|s|MiB/s)\b"), r"N \2"),
    (re.compile(r"\bspu-[0-9a-f]{4}-[0-9a-f]{6}(\.\d+)?\b"), "spu-XXXX-XXXXXX"),
    (re.compile(r"[ \t─│├└]+"), " "),
)


def normal(text: str) -> list[str]:
    for pattern, instead in VARYING:
        text = pattern.sub(instead, text)
    return [line.strip() for line in text.splitlines() if line.strip()]


def compare(wanted: str, printed: str, cut: bool = False) -> None:
    """Every line that is shown was printed, in this order; something is left out only
    where `...` stands, or anywhere if it is `cut`."""
    found = normal(printed)
    at, skip = 0, cut
    for line in normal(wanted):
        if line in ("...", "…"):
            skip = True
            continue
        matching = [i for i in range(at, len(found)) if _same(line, found[i])]
        assert matching, f"not printed: {line}\nbut:\n" + "\n".join(found[at:])
        assert skip or matching[0] == at, "left out: " + "\n".join(found[at : matching[0]])
        at, skip = matching[0] + 1, cut
    assert skip or at == len(found), "left out: " + "\n".join(found[at:])


def _same(wanted: str, found: str) -> bool:
    parts = [re.escape(part.strip()) for part in wanted.split("...")]
    return re.fullmatch(r"\s*.*?\s*".join(parts), found) is not None
