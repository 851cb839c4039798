"""`telemetry`: the entry point of the container that runs mx-smi for the plugin."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from ..runtime.log import set_up
from ..settings.options import Values
from ..settings.settings import LogSettings, hardware_settings

if TYPE_CHECKING:
    from ..hardware.settings import HardwareSettings

#: The exit code where a start of the container helps.
RESTART = 3


def run(values: Values, _: argparse.Namespace) -> int:
    path, name = values["--config"], values["--node-name"]
    if path is not None:
        from ..settings.load import read
        from ..settings.sections import NodeFacts

        values = read(path).values(values, NodeFacts(name))
    settings = hardware_settings(values)
    log = LogSettings(values["--log-format"], values["--log-level"])
    # As in `serve`: nothing here needs it, and it costs 4 MiB.
    sys.modules.setdefault("ssl", None)  # type: ignore[arg-type]
    set_up(log.form, log.level)
    import asyncio

    return asyncio.run(_serve(settings, own_mx_smi=settings.smi != ""))


async def _serve(settings: HardwareSettings, *, own_mx_smi: bool) -> int:
    """Until SIGTERM or SIGINT (0), or until only a start of the container helps."""
    import asyncio
    import logging
    import signal

    from ..hardware.factory import real_hardware
    from ..hardware.smi_source import NoSmi
    from ..hardware.sysfs_hardware import own_smi
    from ..hardware.telemetry.given_nodes import GivenNodes
    from ..hardware.telemetry.peer import UntrustedError
    from ..hardware.telemetry.server import TelemetryServer

    log = logging.getLogger(__name__)
    root = settings.host_root
    # A container sees the bus in its own /sys, where the host's is not mounted.
    seen_from = root if (root / "sys/bus/pci").is_dir() else Path("/")
    given = GivenNodes(real_hardware(replace_root(settings, seen_from), NoSmi()))
    smi = own_smi(root, settings.smi, settings.smi_timeout) if own_mx_smi else NoSmi()
    server = TelemetryServer(smi, given, settings.telemetry_socket)
    running = asyncio.ensure_future(server.run())
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, running.cancel)
    try:
        await running
    except asyncio.CancelledError:
        log.info("stopped")
        return 0
    except (OSError, UntrustedError) as error:
        extra = {"socket": settings.telemetry_socket, "error": str(error)}
        log.error("telemetry-cannot-listen", extra=extra)  # noqa: TRY400  (one line)
        return 1
    finally:
        given.close()
    return RESTART


def replace_root(settings: HardwareSettings, root: Path) -> HardwareSettings:
    from dataclasses import replace

    return replace(settings, host_root=root)
