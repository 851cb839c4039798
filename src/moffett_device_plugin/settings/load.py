"""From a configuration file to settings."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from ..runtime.errors import ConfigurationError
from .document import MAX_BYTES, Section, parse
from .options import NODE_NAME, Values
from .sections import (
    NodeFacts,
    check_keys,
    for_node,
    needs_labels,
    needs_name,
    node_sections,
    with_section,
)
from .settings import ServeSettings, serve_settings


@dataclass(frozen=True, slots=True)
class Configuration:
    """A file whose form is right. `needs_labels`: whether what holds for a node depends
    on its labels."""

    file: str
    root: Section

    @property
    def needs_labels(self) -> bool:
        return needs_labels(self.root, self.file)

    def check(self, values: Values) -> None:
        """Raises ConfigurationError unless every part of it is right, on all nodes."""
        serve_settings(values.over(for_node(self.root, self.file, NodeFacts()), here=False))
        for _, section in node_sections(self.root, self.file):
            part = with_section(self.root, self.file, section)
            serve_settings(values.over(part, here=False))

    def values(self, values: Values, node: NodeFacts) -> Values:
        return values.over(for_node(self.root, self.file, node))

    def settings(self, values: Values, node: NodeFacts) -> ServeSettings:
        """What holds for `node`, flags and variables over it. Raises ConfigurationError
        for whatever is wrong anywhere in the file."""
        if not node.name and needs_name(self.root, self.file):
            remedy = f"{self.file} has settings by node name; set {NODE_NAME.env} to this node's"
            raise ConfigurationError(NODE_NAME.flag, "", remedy)
        self.check(values)
        return serve_settings(self.values(values, node))


def read_text(path: Path) -> str:
    try:
        with path.open("rb") as file:
            data = file.read(MAX_BYTES + 1)
    except OSError as error:
        raise ConfigurationError("--config", str(path), f"{error.strerror}") from None
    try:
        return data.decode()
    except UnicodeDecodeError:
        raise ConfigurationError("--config", str(path), "use UTF-8") from None


def read(path: Path) -> Configuration:
    return understood(path, read_text(path))


def understood(path: Path, text: str) -> Configuration:
    root = parse(text, str(path))
    check_keys(root, str(path))
    return Configuration(str(path), root)
