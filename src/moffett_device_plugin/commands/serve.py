"""`serve`: the DaemonSet's entry point."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from ..log import set_up
from ..options import CONFIG_OPTION, Values
from ..settings import serve_settings

if TYPE_CHECKING:
    from pathlib import Path

    from ..config.reload import ConfigFile


def run(values: Values) -> int:
    # asyncio works without ssl, which nothing here uses and which costs 4.1 MiB. This
    # has to come before anything imports asyncio.
    sys.modules.setdefault("ssl", None)  # type: ignore[arg-type]
    path = values[CONFIG_OPTION]
    file = None if path is None else _config_file(path, values)
    settings = serve_settings(values) if file is None else file.settings
    set_up(settings.log.form, settings.log.level)
    import asyncio

    from ..daemon import serve

    asyncio.run(serve(settings, file))
    return 0


def _config_file(path: Path, values: Values) -> ConfigFile:
    # YAML is loaded on nodes that have a file, and on no other.
    from ..config.reload import ConfigFile
    from ..config.sections import NodeFacts
    from ..options import NODE_NAME

    return ConfigFile(path, values, NodeFacts(values[NODE_NAME]))
