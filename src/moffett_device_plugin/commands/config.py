"""`config`: checks a configuration file, shows the settings of a node, prints the schema."""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from ..settings.options import FILE_OPTIONS, RESOURCE_OPTIONS, Option, Values
from . import node
from .output import print_json
from .parser import Parser

if TYPE_CHECKING:
    from ..resources.pools import Resource
    from ..settings.sections import Part

_PAGE = "configuration.md"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    actions = parser.add_subparsers(
        dest="action", metavar="ACTION", required=True, prog=parser.prog, parser_class=Parser
    )

    def add(name: str, what: str, rest: str, *examples: str) -> Parser:
        return actions.add_parser(
            name, help=what, description=what, usage=f"{parser.prog} {name}{rest}",
            examples=[f"config {name}{example}" for example in examples], page=_PAGE,
        )  # fmt: skip

    check = add("check", "whether a file is valid, for every node", " FILE", " config.yaml")
    check.add_argument("file", metavar="FILE", help="the configuration file")
    show = add(
        "show", "the settings of a node, and where each is from", " [options]",
        "", " --config config.yaml --node-name train-1 --node-label zone=a",
    )  # fmt: skip
    node.add_arguments(show)
    show.add_settings(explained=False)
    add("schema", "the JSON schema of the file, for editors", "", " > config.schema.json")


def run(values: Values, arguments: argparse.Namespace) -> int:
    match arguments.action:
        case "check":
            return _check(Path(arguments.file))
        case "show":
            return _show(values, arguments)
        case _:
            from ..settings.schema import schema

            print_json(schema())
            return 0


def _check(path: Path) -> int:
    from ..settings.load import read
    from ..settings.sections import node_sections

    configuration = read(path)
    # What this machine's environment says is not what the file is checked for.
    configuration.check(Values(argparse.Namespace(), {}, here=False), together=True)
    sections = len(node_sections(configuration.root, configuration.file))
    print(f"{path}: valid" + (f", {sections} of its sections for some nodes" if sections else ""))
    return 0


def _show(values: Values, arguments: argparse.Namespace) -> int:
    from ..settings.settings import serve_settings

    values = node.effective(values.over(None, here=False), arguments)
    for line in _lines(values, serve_settings(values).plugin_config.resources):
        print(line)
    return 0


def _section_of(option: Option) -> str:
    return option.path.rpartition(".")[0]


def _lines(values: Values, resources: tuple[Resource, ...]) -> Iterator[str]:
    """A file with these settings, and a comment on where each value is from."""
    from ..settings.sections import Part

    yield "version: v1"
    section = ""
    for option in sorted(FILE_OPTIONS, key=_section_of):
        above, _, key = option.path.rpartition(".")
        if above != section:
            section = above
            yield f"{section}:"
        given = values.given(option)
        yield from _entry(option, "  " if above else "", key, given.text, given.origin)
    yield "resources:"
    part = values.file if isinstance(values.file, Part) else None
    items = (part.resources if part else ()) or (None,)
    for item, resource in zip(items, resources, strict=True):
        yield from _resource_lines(values, item, resource)


def _resource_lines(values: Values, item: Part | None, resource: Resource) -> Iterator[str]:
    from ..settings.settings import SELECTOR_KEYS

    start, section = "- ", ""
    for option in RESOURCE_OPTIONS:
        above, _, key = option.path.rpartition(".")
        if above != section:
            section = above
            yield f"  {above}:"
        own = None if values.override(option) or item is None else item.get(option.path)
        given = own or values.given(option)
        text, origin = given.text, given.origin
        if option.path == "name":
            origin += f"; advertised as {resource}"
        for line in _entry(option, "    " if above else "  ", key, text, origin):
            yield start + line[2:] if start == "- " else line
            start = ""
    if item is None:
        return
    for name in ("select", "exclude"):
        found = {key: item.several(f"{name}.{key}") for key in SELECTOR_KEYS}
        if any(found.values()):
            yield f"  {name}:"
        for key, several in found.items():
            if several:
                texts = ", ".join(json.dumps(given.text) for given in several)
                yield f"    {key}: [{texts}]  # {several[0].origin}"


def _entry(option: Option, indent: str, key: str, text: str, origin: str) -> Iterator[str]:
    from ..settings.tree import takes_list, takes_mapping
    from ..settings.types import SWITCH, number_of

    parts = [part.strip() for part in text.split(",") if part.strip()]
    if takes_mapping(option) and parts:
        yield f"{indent}{key}:  # {origin}"
        for part in parts:
            rule, _, value = part.partition("=")
            yield f"{indent}  {rule}: {json.dumps(value)}"
        return
    if takes_list(option) or takes_mapping(option):
        shown = "[" + ", ".join(json.dumps(part) for part in parts) + "]" if parts else ""
    elif option.type is SWITCH or number_of(option.type):
        shown = text
    else:
        shown = json.dumps(text, ensure_ascii=False) if text else ""
    yield f"{indent}{key}:{' ' + shown if shown else ''}  # {origin}"
