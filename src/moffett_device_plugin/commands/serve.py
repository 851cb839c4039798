"""`serve`: the DaemonSet's entry point."""

from __future__ import annotations

import sys

from ..log import set_up
from ..settings import Values, serve_settings


def run(values: Values) -> int:
    # asyncio works without ssl, which nothing here uses and which costs 4.1 MiB. This
    # has to come before anything imports asyncio.
    sys.modules.setdefault("ssl", None)  # type: ignore[arg-type]
    settings = serve_settings(values)
    set_up(settings.log.form, settings.log.level)
    import asyncio

    from ..daemon import serve

    asyncio.run(serve(settings))
    return 0
