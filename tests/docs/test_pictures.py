"""The pictures of commands show what the commands print today."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from pathlib import Path

import pytest

from . import badges, pictures
from .node import node
from .screen import Line, drawn, shown
from .test_commands import compare

REMEDY = "run tools/pictures"


def words(lines: Sequence[str]) -> str:
    """Without line breaks: a time of one more digit moves them."""
    return " ".join(" ".join(lines).split())


@pytest.mark.parametrize("name", ["demo", "doctor"])
def test_a_picture_shows_what_is_printed(name: str, tmp_path: Path) -> None:
    if name == "demo":
        made = pictures.demo()
    else:
        with tempfile.TemporaryDirectory(prefix="spu-") as short, node(Path(short), tmp_path) as it:
            made = pictures.doctor(it)
    there = (pictures.FOLDER / f"{name}.svg").read_text()
    compare(words(shown(there)), words(shown(made)))


def test_a_picture_keeps_columns_colours_and_times() -> None:
    made = drawn("a title", [Line("a\x1b[31m  b\x1b[0m <c>"), Line(" d", 2.0)], 20)
    assert shown(made) == ["a  b <c>", " d"]
    assert 'fill="#ff7b72">b<' in made
    assert ".at1 { animation: a1 8s step-end infinite }" in made
    assert "http" not in made.replace("http://www.w3.org/2000/svg", "")  # loads nothing


def test_the_badges_say_what_is_true_today() -> None:
    assert (pictures.FOLDER / "badges.svg").read_text() == badges.drawn(badges.facts()), REMEDY
    assert all(value for _, value in badges.facts())
