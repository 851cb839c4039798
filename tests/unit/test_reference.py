"""The settings' reference in the manual, in English and translated, is that of the code."""

from __future__ import annotations

import importlib.util
import re
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[2]
DOCS = ROOT / "docs"
_spec = importlib.util.spec_from_file_location("reference", ROOT / "tools" / "reference.py")
assert _spec is not None
assert _spec.loader is not None
tool: Any = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(tool)
differences, reference, texts = tool.differences, tool.reference, tool.texts


@pytest.fixture(scope="module")
def chinese() -> dict[str, dict[str, str]]:
    text = (DOCS / "zh-CN/settings.yaml").read_text(encoding="utf-8")
    translation: dict[str, dict[str, str]] = yaml.safe_load(text)
    return translation


def test_the_documented_settings_are_those_of_the_code() -> None:
    text = (DOCS / "configuration.md").read_text(encoding="utf-8")
    assert reference() in text, "run: tools/reference"


def test_the_translation_is_of_the_settings_of_the_code(
    chinese: dict[str, dict[str, str]],
) -> None:
    assert not differences(chinese), "correct docs/zh-CN/settings.yaml, run: tools/reference"


def test_the_translated_settings_are_those_of_the_translation(
    chinese: dict[str, dict[str, str]],
) -> None:
    text = (DOCS / "zh-CN/configuration.md").read_text(encoding="utf-8")
    words = {key: entry["zh"] for key, entry in chinese.items()}
    assert reference(words) in text, "run: tools/reference"


def test_every_text_is_translated_and_keeps_its_words_of_the_program(
    chinese: dict[str, dict[str, str]],
) -> None:
    for key, entry in chinese.items():
        assert re.search(r"[\u4e00-\u9fff]", entry["zh"]) or entry["zh"] == "text 或 json", key
        assert literals(entry["zh"]) == literals(entry["en"]), key


def literals(text: str) -> set[str]:
    """What a reader types or looks for as it stands: values, paths, names with a digit."""
    return set(re.findall(r"`[^`]+`|[\w.:=/,-]*[\d/=][\w.:=/,-]*\w", text, re.ASCII))


@pytest.fixture
def right() -> dict[str, dict[str, str]]:
    return {key: {"en": text, "zh": "文字"} for key, text in texts().items()}


def test_a_setting_that_is_not_translated_is_named(right: dict[str, dict[str, str]]) -> None:
    assert not differences(right)
    del right["hostRoot"]
    assert differences(right) == ["hostRoot: has no translation"]


def test_a_translation_of_no_setting_is_named(right: dict[str, dict[str, str]]) -> None:
    right["hostRoots"] = {"en": "where", "zh": "哪里"}
    assert differences(right) == ["hostRoots: names no setting"]


def test_a_translation_of_what_was_put_in_other_words_is_named(
    right: dict[str, dict[str, str]],
) -> None:
    right["log.format"] = {"en": "plain or json", "zh": "plain 或 json"}
    assert differences(right) == [
        "log.format: was translated from 'plain or json', is 'text or json'"
    ]


def test_settings_of_the_same_name_in_a_resource_and_at_the_top_are_two_texts() -> None:
    known = texts()
    assert "resources.placement" in known
    assert "placement" not in known
