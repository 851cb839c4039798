"""From a configuration file to settings."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from ..runtime.errors import ConfigurationError
from .document import MAX_BYTES, Section, parse
from .options import Values
from .sections import (
    NodeFacts,
    Part,
    check_keys,
    for_node,
    needs_labels,
    needs_name,
    node_sections,
    sets_for_one_node,
    with_sections,
)
from .settings import ServeSettings, serve_settings


@dataclass(frozen=True, slots=True)
class Configuration:
    """A file whose form is right. `needs_labels`: whether what holds for a node depends
    on its labels."""

    file: str
    root: Section
    text: str

    @property
    def needs_labels(self) -> bool:
        return needs_labels(self.root, self.file)

    def mentions(self, key: str) -> bool:
        """Whether it has this key at the top, or in a section of some nodes."""
        sections = [section for _, section in node_sections(self.root, self.file)]
        parts = [Part(self.file, section) for section in (self.root, *sections)]
        parts += [item for part in parts for item in part.resources]
        return any(key in part.section.entries for part in parts)

    def check(self, values: Values, *, together: bool = False) -> None:
        """Raises ConfigurationError unless every part of it is right, on all nodes. With
        `together`, also the sections that can be for one node at once: there may be many
        such sets, which a daemon need not try."""
        serve_settings(values.over(for_node(self.root, self.file, NodeFacts()), here=False))
        sections = tuple(section for _, section in node_sections(self.root, self.file))
        for some in sets_for_one_node(sections) if together else ((one,) for one in sections):
            part = with_sections(self.root, self.file, some)
            try:
                serve_settings(values.over(part, here=False))
            except ConfigurationError as error:
                if len(some) == 1:
                    raise
                lines = ", ".join(str(section.line) for section in some)
                remedy = f"{error.remedy} (on a node that the sections on lines {lines} match)"
                raise ConfigurationError(error.key, error.value, remedy) from None

    def values(self, values: Values, node: NodeFacts) -> Values:
        return values.over(for_node(self.root, self.file, node))

    def settings(self, values: Values, node: NodeFacts) -> ServeSettings:
        """What holds for `node`, flags and variables over it. Raises ConfigurationError
        for whatever is wrong anywhere in the file."""
        if not node.name and needs_name(self.root, self.file):
            remedy = f"{self.file} has settings by node name; set SPU_NODE_NAME to this node's"
            raise ConfigurationError("--node-name", "", remedy)
        self.check(values)
        return serve_settings(self.values(values, node))


def read_text(path: Path) -> str:
    try:
        with path.open("rb") as file:
            data = file.read(MAX_BYTES + 1)
    except (OSError, ValueError) as error:  # the latter for what is no path
        why = error.strerror if isinstance(error, OSError) else error
        raise ConfigurationError("--config", str(path), f"{why}") from None
    try:
        return data.decode()
    except UnicodeDecodeError:
        raise ConfigurationError("--config", str(path), "use UTF-8") from None


def read(path: Path) -> Configuration:
    return parse_configuration(path, read_text(path))


def parse_configuration(path: Path, text: str) -> Configuration:
    root = parse(text, str(path))
    check_keys(root, str(path))
    return Configuration(str(path), root, text)
