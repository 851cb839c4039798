"""`serve`: the DaemonSet's entry point."""

from __future__ import annotations

import sys

from ..log import set_up
from ..settings import Values, serve_settings


def run(values: Values) -> int:
    settings = serve_settings(values)
    set_up(settings.log.form, settings.log.level)
    # asyncio works without ssl, which nothing here uses and which costs 4.5 MiB.
    sys.modules.setdefault("ssl", None)  # type: ignore[arg-type]
    import asyncio

    from ..daemon import serve

    asyncio.run(serve(settings))
    return 0
