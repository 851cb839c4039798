"""What a configuration file may have: every key, from the options of `options.py`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from .options import FILE_OPTIONS, RESOURCE_OPTIONS, RULES, Option
from .settings import SELECTOR_KEYS

VERSION = "v1"


@dataclass(frozen=True, slots=True)
class Branch:
    """A mapping with these keys."""

    keys: Mapping[str, Node]
    help: str = ""


@dataclass(frozen=True, slots=True)
class Items:
    """A list of what `each` says."""

    each: Branch
    help: str = ""


@dataclass(frozen=True, slots=True)
class Texts:
    """A text, or a list of texts."""

    help: str = ""
    type: str = "string"  # as JSON schema has it


@dataclass(frozen=True, slots=True)
class Pairs:
    """A mapping of any texts to texts."""

    help: str = ""


@dataclass(frozen=True, slots=True)
class Constant:
    value: str
    help: str = ""


Node = Branch | Items | Texts | Pairs | Constant | Option

_SELECTOR_HELP = {
    "product": "product names, such as S30",
    "serial": "serial numbers of cards",
    "busId": "bus ids of devices, such as 0000:36:00.0",
    "numaNode": "numbers of NUMA nodes",
    "index": "indexes, as mx-smi numbers devices",
}


def takes_mapping(option: Option) -> bool:
    """Whether the option's text is written as a mapping: RULE: VALUE."""
    return option.type is RULES


def takes_list(option: Option) -> bool:
    return option.repeatable and not takes_mapping(option)


def _nest(options: tuple[Option, ...], more: Mapping[str, Node]) -> dict[str, Node]:
    keys: dict[str, Node] = {}
    for option in options:
        section, dot, last = option.path.rpartition(".")
        if not dot:
            keys[last] = option
            continue
        branch = keys.get(section)
        others = branch.keys if isinstance(branch, Branch) else {}
        keys[section] = Branch({**others, last: option})
    return keys | dict(more)


def _selector(help_text: str) -> Branch:
    numbers = ("numaNode", "index")
    return Branch(
        {
            key: Texts(_SELECTOR_HELP[key], "integer" if key in numbers else "string")
            for key in SELECTOR_KEYS
        },
        help_text,
    )


_RESOURCE = Branch(
    _nest(
        RESOURCE_OPTIONS,
        {
            "select": _selector("which devices: those that have one of the values of every key"),
            "exclude": _selector("which not: those that have one of the values of any key"),
        },
    )
)
#: What holds for every item of `resources` that does not say otherwise, and for the one
#: resource of a file without items. A name is not among it: no two may have the same.
_OF_ALL = tuple(option for option in RESOURCE_OPTIONS if option.path != "name")
_SETTINGS: Mapping[str, Node] = _nest(
    (*FILE_OPTIONS, *_OF_ALL),
    {"resources": Items(_RESOURCE, "the resources of the node; flags and variables win")},
)
MATCH = Branch(
    {
        "names": Texts("names of nodes; * stands for any part"),
        "labels": Pairs("labels that the node has to have, all of them"),
    },
    "which nodes: those with one of the names and all of the labels",
)
#: What a node's own section may have: all settings but those that say which node it is.
_NODE = Branch(
    {"match": MATCH, **{key: node for key, node in _SETTINGS.items() if key != "nodeName"}}
)
ROOT = Branch(
    {
        "version": Constant(VERSION, "the version of this file's format"),
        **_SETTINGS,
        "nodes": Items(_NODE, "settings of some nodes; a later match overrides an earlier one"),
    }
)
