"""`serve`: the DaemonSet's entry point."""

from __future__ import annotations

import argparse
import os
import sys
from types import ModuleType
from typing import TYPE_CHECKING

from ..runtime.log import set_up
from ..settings.options import Values
from ..settings.settings import serve_settings

if TYPE_CHECKING:
    from ..kubernetes.settings import ApiSettings
    from ..settings.load import Configuration
    from ..settings.settings import ServeSettings


def run(values: Values, _: argparse.Namespace) -> int:
    path, name = values["--config"], values["--node-name"]
    configuration, node = None, None
    if path is None:
        settings = serve_settings(values)
    else:
        # YAML is loaded on nodes that have a file, and on no other.
        from ..settings.load import read
        from ..settings.sections import NodeFacts

        configuration, node = read(path), NodeFacts(name)
        settings = configuration.settings(values, node)
    api = None
    by_label = configuration is not None and configuration.needs_labels
    dra = _uses_dra(settings, configuration)
    if settings.integrations.api.any or by_label or dra:
        api = _api(settings, name)
    else:
        # asyncio works without ssl, which nothing else uses and which costs 4.1 MiB.
        # This has to come before anything imports asyncio.
        sys.modules.setdefault("ssl", None)  # type: ignore[arg-type]
    _use_protobuf_of_c_only()
    set_up(settings.log.form, settings.log.level)
    import asyncio

    from ..daemon import serve

    file = None
    if configuration is not None and node is not None:
        from ..settings.reload import ConfigFile

        file = ConfigFile(configuration, values, node)
    asyncio.run(serve(settings, file, api, dra=dra))
    return 0


def _uses_dra(settings: ServeSettings, configuration: Configuration | None) -> bool:
    """Whether devices are given out through DRA, the file has a section of this or other
    nodes where they are, or claims still have some from before."""
    if settings.dra_resources or (configuration and configuration.mentions("deviceApi")):
        return True
    return any(settings.cdi_dir.glob("spu.moffett.ai-claim-*.json"))


def _use_protobuf_of_c_only() -> None:
    """Leaves out protobuf's messages in Python (1.0 MiB, 13 ms), which it imports and does
    not use where its implementation is the one in C. To come before its other modules."""
    from google.protobuf.internal import api_implementation

    name = "google.protobuf.internal.python_message"
    if api_implementation.Type() == "upb":
        sys.modules.setdefault(name, ModuleType(name))


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
