"""The plugin under test with a kubelet beside it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from .kubelet import Kubelet, running_kubelet
from .plugin import Plugin, running_plugin


@dataclass(frozen=True, slots=True)
class Node:
    """Both of them."""

    plugin: Plugin
    kubelet: Kubelet


@contextmanager
def running_node(
    folder: Path, *arguments: str, prefix: Sequence[str | Path] = ()
) -> Iterator[Node]:
    """The plugin with these arguments, behind a command that becomes it (`prefix`), and a
    kubelet, until the block ends. Both keep their files in `folder`."""
    directory = folder / "device-plugins"
    with (
        running_kubelet(directory) as kubelet,
        running_plugin(directory, folder / "log", *arguments, prefix=prefix) as plugin,
    ):
        yield Node(plugin, kubelet)
