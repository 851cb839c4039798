"""What the daemon itself takes on a node with 24 devices, with and without what uses the API:
a real process, a fake kubelet, and an API server that is real enough to talk TLS."""

from __future__ import annotations

import asyncio
import socket
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from moffett_device_plugin.fake_kubelet.dra import DraKubelet
from moffett_device_plugin.fake_kubelet.kubelet import FakeKubelet

from .. import processes
from ..processes import MemoryUse
from .fleet import SPEC

_DRA = (
    "--device-api=dra",
    "--plugins-registry-dir={folder}/registry",
    "--cdi-dir={folder}/cdi",
    "--pod-resources-socket={folder}/pods.sock",
)
#: Seconds in which it settles: several runs of mx-smi.
SETTLE = 12.0
_METRICS = "--metrics-address=127.0.0.1:{port}"
_API = ("--labels=api", "--events=true", "--condition=true")
FEATURES: Mapping[str, Sequence[str]] = {
    "as installed": (),
    "with metrics": (_METRICS,),
    "with labels, events and condition by the API": _API,
    "with all of these": (*_API, _METRICS),
    "with DRA": _DRA,
    "with DRA and all of these": (*_DRA, *_API, _METRICS),
}


async def resident(flags: Sequence[str]) -> MemoryUse:
    """After a time in which the kubelet and the API server were served."""
    # The API server of the tests: there is no need for a second one.
    from importlib import import_module

    apiserver: Any = import_module("tests.support.apiserver")
    with tempfile.TemporaryDirectory(prefix="spu-") as name:
        folder = Path(name)
        async with apiserver.api_server(folder) as server, asyncio.TaskGroup() as tasks:
            kubelet = FakeKubelet(folder / "dp", tasks)
            await kubelet.start()
            drivers = tasks.create_task(DraKubelet(folder / "registry").run())
            settings = server.settings()
            api = (
                f"--api-server={settings.url}",
                f"--api-token-file={settings.token_file}",
                f"--api-ca-file={settings.ca_file}",
                f"--node-name={settings.node}",
            )
            command = ["-m", "moffett_device_plugin", "serve", f"--simulate={SPEC}"]
            command += [f"--kubelet-dir={folder / 'dp'}", "--log-level=error"]
            command += [f"--simulate-control={folder / 'control'}", "--pod-resources-socket=none"]
            command += [flag.format(port=_free_port(), folder=folder) for flag in flags]
            process = await asyncio.create_subprocess_exec(sys.executable, *command, *api)
            try:
                if "--device-api=dra" in flags:
                    await server.until(lambda: bool(server.slices))
                else:
                    await kubelet.until_allocatable("moffett.ai/spu", 24)
                await asyncio.sleep(SETTLE)
                return processes.memory(process.pid)
            finally:
                process.kill()
                await process.wait()
                kubelet.kill()
                drivers.cancel()


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listening:
        return int(listening.getsockname()[1])
