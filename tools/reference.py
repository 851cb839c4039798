"""Every setting as a table in Markdown, for docs/configuration.md and its translation.

`tools/reference` runs it, and writes both pages.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping
from pathlib import Path

import yaml

from moffett_device_plugin.settings.options import (
    CONFIG_OPTION,
    FILE_OPTIONS,
    RESOURCE_OPTIONS,
    Option,
)
from moffett_device_plugin.settings.settings import SELECTOR_KEYS
from moffett_device_plugin.settings.tree import ROOT, Branch, Items, Texts

DOCS = Path(__file__).resolve().parents[1] / "docs"

#: What the tables say besides the settings' own texts. The keys are no setting's.
_AROUND = {
    "(columns)": "in the file | flag | variable | default",
    "(resources)": (
        "Each item of `resources`; at the top of the file it holds for the items that say"
        " nothing else, as a flag or variable for all of them:"
    ),
    "(selector)": "{}, one or a list",
}


def texts() -> dict[str, str]:
    """All that the reference has in English and a translation has to have, by key: a
    setting's path in the file (its flag, when it has none), `resources.` before those of a
    resource, and names in parentheses for what is around the settings."""
    found = dict(_AROUND)
    for option in (CONFIG_OPTION, *_by_path()):
        found[_key(option)] = option.help
    for option in RESOURCE_OPTIONS:
        found[_key(option, "resources.")] = option.help
    for key in SELECTOR_KEYS:
        found[_selector_key(key)] = _selector_help(key)
    return found


def differences(translation: Mapping[str, Mapping[str, str]]) -> list[str]:
    """What keeps a translation from being one of `texts`: a line for each key that is
    missing, that names nothing, or whose English (`en`) is no longer what was translated."""
    english = texts()
    found = [f"{key}: has no translation" for key in english if key not in translation]
    for key, entry in translation.items():
        if key not in english:
            found.append(f"{key}: names no setting")
        elif entry.get("en") != english[key]:
            found.append(f"{key}: was translated from {entry.get('en')!r}, is {english[key]!r}")
    return found


def reference(words: Mapping[str, str] | None = None) -> str:
    """The tables, in English or in the `words` that stand for it, by the keys of `texts`."""
    return "\n".join(_lines(texts() if words is None else words)) + "\n"


def _lines(words: Mapping[str, str]) -> Iterator[str]:
    head = f"| {words['(columns)']} | |\n|---|---|---|---|---|"
    yield head
    for option in (CONFIG_OPTION, *_by_path()):
        yield _row(option, words[_key(option)])
    yield ""
    yield words["(resources)"]
    yield ""
    yield head
    for option in RESOURCE_OPTIONS:
        yield _row(option, words[_key(option, "resources.")])
    for name in ("select", "exclude"):
        for key in SELECTOR_KEYS:
            text = words["(selector)"].format(words[_selector_key(key)])
            yield f"| `{name}.{key}` | | | | {text} |"


def _by_path() -> list[Option]:
    return sorted(FILE_OPTIONS, key=lambda option: option.path)


def _key(option: Option, before: str = "") -> str:
    return f"{before}{option.path}" if option.path else option.flag


def _selector_key(key: str) -> str:
    return f"resources.select.{key}"


def _row(option: Option, text: str) -> str:
    default = f"`{option.default}`" if option.default else ""
    where = f"`{option.path}`" if option.path else ""
    flag = f"`{option.flag} {option.metavar}`".replace("|", "\\|")
    text = text.replace("|", "\\|")
    return f"| {where} | {flag} | `{option.env}` | {default} | {text} |"


def _selector_help(key: str) -> str:
    """What `select` and `exclude` both say of a key."""
    resources = ROOT.keys["resources"]
    if isinstance(resources, Items):
        branch = resources.each.keys["select"]
        if isinstance(branch, Branch) and isinstance(leaf := branch.keys[key], Texts):
            return leaf.help
    return ""


def _rewrite(page: str, heading: str, after: str, tables: str) -> None:
    path = DOCS / page
    text = path.read_text(encoding="utf-8")
    start = text.index(heading) + len(heading)
    end = text.index(after, start)
    path.write_text(f"{text[:start]}\n\n{tables}{text[end:]}", encoding="utf-8")


def main() -> None:
    _rewrite("configuration.md", "## All settings", "\n`devices`, `explain`", reference())
    settings = DOCS / "zh-CN/settings.yaml"
    translation = yaml.safe_load(settings.read_text(encoding="utf-8"))
    if wrong := differences(translation):
        sys.exit("\n".join(f"{settings}: {line}" for line in wrong))
    words = {key: entry["zh"] for key, entry in translation.items()}
    page = "zh-CN/configuration.md"
    _rewrite(page, "## 全部设置", "\n`devices`、`explain`", reference(words))


if __name__ == "__main__":
    main()
