"""Every setting as a table in Markdown, for docs/configuration.md. Pure."""

from __future__ import annotations

from collections.abc import Iterator

from ..options import CONFIG_OPTION, FILE_OPTIONS, RESOURCE_OPTIONS, Option
from ..settings import SELECTOR_KEYS
from .tree import ROOT, Branch, Items, Texts

_HEAD = "| in the file | flag | variable | default | |\n|---|---|---|---|---|"


def reference() -> str:
    return "\n".join(_lines()) + "\n"


def _lines() -> Iterator[str]:
    yield _HEAD
    for option in (CONFIG_OPTION, *sorted(FILE_OPTIONS, key=lambda option: option.path)):
        yield _row(option, option.path)
    yield ""
    yield (
        "Each item of `resources`; at the top of the file it holds for the items that say"
        " nothing else, as a flag or variable for all of them:"
    )
    yield ""
    yield _HEAD
    for option in RESOURCE_OPTIONS:
        yield _row(option, option.path)
    for name in ("select", "exclude"):
        for key in SELECTOR_KEYS:
            yield f"| `{name}.{key}` | | | | {_selector_help(name, key)} |"


def _row(option: Option, path: str) -> str:
    default = f"`{option.default}`" if option.default else ""
    where = f"`{path}`" if path else ""
    flag = f"`{option.flag} {option.metavar}`".replace("|", "\\|")
    text = option.help.replace("|", "\\|")
    return f"| {where} | {flag} | `{option.env}` | {default} | {text} |"


def _selector_help(name: str, key: str) -> str:
    resources = ROOT.keys["resources"]
    if isinstance(resources, Items):
        branch = resources.each.keys[name]
        if isinstance(branch, Branch) and isinstance(leaf := branch.keys[key], Texts):
            return f"{leaf.help}, one or a list"
    return ""
