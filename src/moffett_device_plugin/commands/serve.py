"""`serve`: the DaemonSet's entry point."""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING

from ..runtime.log import set_up
from ..settings.options import CONFIG_OPTION, NODE_NAME, Values
from ..settings.settings import serve_settings

if TYPE_CHECKING:
    from pathlib import Path

    from ..kubernetes.settings import ApiSettings
    from ..settings.reload import ConfigFile
    from ..settings.settings import ServeSettings


def run(values: Values) -> int:
    path, node = values[CONFIG_OPTION], values[NODE_NAME]
    text = ""
    if path is None:
        settings, by_label = serve_settings(values), False
    else:
        settings, by_label, text = _configured(path, values, node)
    api = None
    if settings.integrations.api.any or by_label:
        api = _api(settings, node)
    else:
        # asyncio works without ssl, which nothing else uses and which costs 4.1 MiB.
        # This has to come before anything imports asyncio.
        sys.modules.setdefault("ssl", None)  # type: ignore[arg-type]
    set_up(settings.log.form, settings.log.level)
    import asyncio

    from ..daemon import serve

    file = None if path is None else _config_file(path, values, node, text)
    asyncio.run(serve(settings, file, api))
    return 0


# YAML is loaded on nodes that have a file, and on no other.


def _configured(path: Path, values: Values, node: str) -> tuple[ServeSettings, bool, str]:
    """What the file comes to, whether that depends on the node's labels, and its text."""
    from ..settings.load import read_text, understood
    from ..settings.sections import NodeFacts

    text = read_text(path)
    configuration = understood(path, text)
    return configuration.settings(values, NodeFacts(node)), configuration.needs_labels, text


def _config_file(path: Path, values: Values, node: str, text: str) -> ConfigFile:
    from ..settings.reload import ConfigFile
    from ..settings.sections import NodeFacts

    return ConfigFile(path, values, NodeFacts(node), text)


def _api(settings: ServeSettings, node: str) -> ApiSettings:
    from ..kubernetes.settings import api_settings

    integrations = settings.integrations
    return api_settings(
        os.environ,
        node,
        server=integrations.api_server,
        token_file=integrations.api_token_file,
        ca_file=integrations.api_ca_file,
    )
