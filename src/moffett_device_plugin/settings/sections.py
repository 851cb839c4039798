"""A configuration file for one node: its keys checked, its sections for the node laid
over the rest. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from fnmatch import fnmatchcase
from itertools import chain, combinations, islice

from ..runtime.errors import ConfigurationError
from .document import Scalar, Section, Sequence, Value, shown
from .options import RENAMED_KEYS, Option, RawValue
from .tree import (
    ROOT,
    VERSION,
    Branch,
    Constant,
    Items,
    Node,
    Pairs,
    Texts,
    takes_list,
    takes_mapping,
)

#: How many sets of sections are checked, so that a long file does not take for ever.
MAX_SETS = 5000


@dataclass(frozen=True, slots=True)
class NodeFacts:
    """What sections are chosen by. `labels` is None while they are not known."""

    name: str = ""
    labels: Mapping[str, str] | None = None


@dataclass(frozen=True, slots=True)
class Part:
    """A part of a file: the root, or an item of `resources`. `key` says where."""

    file: str
    section: Section
    path: str = ""

    @property
    def key(self) -> str:
        return f"{self.file}:{self.section.line}: {self.path}"

    def get(self, path: str) -> RawValue | None:
        """What a setting is given; lists and mappings as one text, as a flag has them."""
        found = self._find(path)
        if found is None:
            return None
        value, line = found
        match value:
            case Scalar(text=text):
                texts = [text]
            case Sequence(items=items):
                texts = [item.text for item in items if isinstance(item, Scalar)]
            case Section(entries=entries):
                texts = [f"{k}={v.text}" for k, v in entries.items() if isinstance(v, Scalar)]
        text = ",".join(texts)
        return self._given(path, text, line) if text else None

    def several(self, path: str) -> tuple[RawValue, ...]:
        found = self._find(path)
        if found is None:
            return ()
        items = found[0].items if isinstance(found[0], Sequence) else (found[0],)
        return tuple(
            self._given(path, item.text, item.line) for item in items if isinstance(item, Scalar)
        )

    @property
    def resources(self) -> tuple[Part, ...]:
        listed = self.section.entries.get("resources")
        items = listed.items if isinstance(listed, Sequence) else ()
        return tuple(
            Part(self.file, item, f"resources[{number}]")
            for number, item in enumerate(items)
            if isinstance(item, Section)
        )

    def _find(self, path: str) -> tuple[Value, int] | None:
        section: Value = self.section
        line = 0
        for name in path.split("."):
            if not isinstance(section, Section) or name not in section.entries:
                return None
            line = section.lines[name]
            section = section.entries[name]
        return section, line

    def _given(self, path: str, text: str, line: int) -> RawValue:
        full = f"{self.path}.{path}" if self.path else path
        return RawValue(f"{self.file}:{line}: {full}", text, f"{self.file}:{line}")


def check_keys(root: Section, file: str) -> None:
    """Raises ConfigurationError for the first key that is unknown, or has a value of
    another form; what a value means is checked where it is used."""
    version = root.entries.get("version")
    if version is None:
        raise ConfigurationError(f"{file}: version", "", f"begin the file with version: {VERSION}")
    _check(root, ROOT, file, "")


def for_node(root: Section, file: str, node: NodeFacts) -> Part:
    """The file as this node has it."""
    merged = _without(root, "nodes")
    for _, section in node_sections(root, file):
        if matches(section, node):
            merged = _laid_over(merged, _without(section, "match"))
    return Part(file, merged)


def with_sections(root: Section, file: str, sections: Iterable[Section]) -> Part:
    """The file as a node has it that just these sections are for."""
    merged = _without(root, "nodes")
    for section in sections:
        merged = _laid_over(merged, _without(section, "match"))
    return Part(file, merged)


def sets_for_one_node(sections: tuple[Section, ...]) -> Iterator[tuple[Section, ...]]:
    """The sections alone, and every two and three of them that a node can match together.
    No setting depends on more than two others, so that larger sets have no other errors."""
    sets = chain.from_iterable(combinations(sections, size) for size in (1, 2, 3))
    for some in islice(sets, MAX_SETS):
        if all(_for_one_node(one, other) for one, other in combinations(some, 2)):
            yield some


def _for_one_node(one: Section, other: Section) -> bool:
    """Whether a node can match both. Two patterns are taken to have a name in common."""
    (names, labels), (others, other_labels) = _conditions(one), _conditions(other)
    if any(other_labels.get(key, value) != value for key, value in labels.items()):
        return False
    return not (names and others) or any(
        fnmatchcase(a, b) or fnmatchcase(b, a) or ("*" in a and "*" in b)
        for a in names
        for b in others
    )


def node_sections(root: Section, file: str) -> tuple[tuple[str, Section], ...]:
    """Those of `nodes`, each with its place. Raises ConfigurationError for one without
    conditions, which could be meant for all nodes or for none."""
    listed = root.entries.get("nodes")
    items = listed.items if isinstance(listed, Sequence) else ()
    found = tuple(
        (f"nodes[{number}]", item) for number, item in enumerate(items) if isinstance(item, Section)
    )
    for place, section in found:
        if not any(_conditions(section)):
            key = f"{file}:{section.line}: {place}.match"
            remedy = "say which nodes: names, labels or both; what is for all goes to the top"
            raise ConfigurationError(key, "", remedy)
    return found


def needs_name(root: Section, file: str) -> bool:
    return any(_conditions(section)[0] for _, section in node_sections(root, file))


def needs_labels(root: Section, file: str) -> bool:
    return any(_conditions(section)[1] for _, section in node_sections(root, file))


def matches(section: Section, node: NodeFacts) -> bool:
    names, labels = _conditions(section)
    known = node.labels or {}
    return (not names or any(fnmatchcase(node.name, name) for name in names)) and all(
        known.get(key) == value for key, value in labels.items()
    )


def _conditions(section: Section) -> tuple[tuple[str, ...], Mapping[str, str]]:
    match = section.entries.get("match")
    part = Part("", match) if isinstance(match, Section) else Part("", Section({}, {}, 0))
    labels = part.section.entries.get("labels")
    pairs = labels.entries if isinstance(labels, Section) else {}
    return (
        tuple(name.text for name in part.several("names") if name.text),
        {key: value.text for key, value in pairs.items() if isinstance(value, Scalar)},
    )


def _without(section: Section, key: str) -> Section:
    entries = {k: v for k, v in section.entries.items() if k != key}
    return Section(entries, section.lines, section.line)


def _laid_over(below: Section, above: Section) -> Section:
    """Mappings become one; of everything else, the upper one stands."""
    entries = dict(below.entries)
    lines = dict(below.lines)
    for key, value in above.entries.items():
        under = entries.get(key)
        both = isinstance(value, Section) and isinstance(under, Section)
        entries[key] = _laid_over(under, value) if both else value  # type: ignore[arg-type]
        lines[key] = above.lines[key]
    return Section(entries, lines, below.line)


# -- the form of a file ---------------------------------------------------------------


def _check(value: Value, node: Node, file: str, path: str) -> None:
    where = f"{file}:{value.line}: {path}" if path else f"{file}:{value.line}"
    if value == Scalar("", value.line) and not isinstance(node, Constant):
        return  # a key without a value says nothing
    match node, value:
        case Branch(keys=keys), Section():
            for key, entry in value.entries.items():
                below = f"{path}.{key}" if path else key
                if key not in keys:
                    raise _unknown(key, below, keys, f"{file}:{value.lines[key]}: {below}")
                _check(entry, keys[key], file, below)
        case Items(each=each), Sequence():
            for number, item in enumerate(value.items):
                if not isinstance(item, Section):
                    key = f"{file}:{item.line}: {path}[{number}]"
                    raise ConfigurationError(key, shown(item), _form(each))
                _check(item, each, file, f"{path}[{number}]")
        case Texts(), Scalar():
            pass
        case Texts(), Sequence():
            _check_scalars(value, file, path)
        case Pairs(), Section():
            for key, entry in value.entries.items():
                if not isinstance(entry, Scalar):
                    at = f"{file}:{entry.line}: {path}.{key}"
                    raise ConfigurationError(at, shown(entry), "use a text")
        case Constant(value=constant), Scalar(text=text):
            if text != constant:
                raise ConfigurationError(where, text, f"use {constant}")
        case Option() as option, _ if _fits(option, value):
            if isinstance(value, Sequence):
                _check_scalars(value, file, path)
            elif isinstance(value, Scalar) and takes_list(option):
                _check_item(value, where)
        case _:
            raise ConfigurationError(where, shown(value), _form(node))


def _check_scalars(value: Sequence, file: str, path: str) -> None:
    for number, item in enumerate(value.items):
        key = f"{file}:{item.line}: {path}[{number}]"
        if not isinstance(item, Scalar):
            raise ConfigurationError(key, shown(item), "use a single value")
        _check_item(item, key)


def _check_item(item: Scalar, key: str) -> None:
    if "," in item.text:
        raise ConfigurationError(key, item.text, "use an item of its own for each value")
    if not item.text or item.text != item.text.strip():
        raise ConfigurationError(key, item.text, "use a value, without space around it")


def _fits(option: Option, value: Value) -> bool:
    match value:
        case Scalar():
            return not takes_mapping(option)
        case Sequence():
            return takes_list(option)
        case Section(entries=entries):
            return takes_mapping(option) and all(isinstance(v, Scalar) for v in entries.values())


def _unknown(key: str, path: str, keys: Mapping[str, Node], where: str) -> ConfigurationError:
    renamed = RENAMED_KEYS.get(re.sub(r"^nodes\[\d+\]\.", "", path))
    if renamed is not None:
        return ConfigurationError(where, key, f"its name is now {renamed}")
    near = get_close_matches(key.lower(), [known.lower() for known in keys], 1)
    meant = [known for known in keys if known.lower() in near]
    hint = f"did you mean {meant[0]}?" if meant else f"keys: {', '.join(keys)}"
    elsewhere = None if meant else _place_of(key, ROOT, "")
    if elsewhere is not None:
        hint = f"it is {elsewhere}"
    return ConfigurationError(where, key, f"there is no such key; {hint}")


def _place_of(key: str, node: Node, path: str) -> str | None:
    """Where in a file there is such a key."""
    match node:
        case Items(each=each):
            return _place_of(key, each, f"{path}[]")
        case Branch(keys=keys):
            for name, below in keys.items():
                full = f"{path}.{name}" if path else name
                found = full if name == key else _place_of(key, below, full)
                if found is not None:
                    return found
    return None


def _form(node: Node) -> str:
    match node:
        case Branch(keys=keys):
            return f"use a mapping with {', '.join(keys)}"
        case Items():
            return "use a list of mappings"
        case Texts():
            return "use a single value or a list of them"
        case Pairs():
            return "use a mapping"
        case Option() as option if takes_mapping(option):
            return "use a mapping of single values"
        case Option() as option if takes_list(option):
            return "use a single value or a list of them"
        case _:
            return "use a single value"
