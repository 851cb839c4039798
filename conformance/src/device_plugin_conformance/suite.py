"""Runs checks one after the other against one plugin."""

from __future__ import annotations

import asyncio
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from moffett_device_plugin.grpc.messages import StatusError

from .checks import Check, name_of, subject_of
from .outcome import ExitedError, FailedError, NotReadyError, Outcome, Result, SkippedError
from .rig import Options, Rig, ms


async def run_suite(
    options: Options,
    checks: Sequence[Check],
    started: Callable[[str], object],
    finished: Callable[[Result], object],
    log: Path | None = None,
) -> list[Result]:
    """Calls `started` and `finished` for each check. What the plugin prints goes to `log`."""
    results: list[Result] = []
    # Short: a socket's path has a limit of 107 bytes.
    with tempfile.TemporaryDirectory(prefix="conform-") as folder:
        async with asyncio.TaskGroup() as tasks:
            rig = Rig(options, Path(folder), tasks)
            if log is not None:
                rig.log = log
            try:
                for check in checks:
                    started(name_of(check))
                    results.append(await _run(rig, check))
                    finished(results[-1])
                if rig.injected:  # no fault that we injected stays
                    await rig.run(options.heal_command)
            finally:
                await rig.stop()
                rig.kubelet.kill()
    return results


async def _run(rig: Rig, check: Check) -> Result:
    began = time.perf_counter()
    try:
        outcome = await check(rig)
    except (FailedError, ExitedError) as error:
        outcome = Outcome("fail", str(error))
    except SkippedError as error:
        outcome = Outcome("skip", str(error))
    except NotReadyError as error:
        outcome = Outcome("skip", f"not checked: {error}")
    except StatusError as error:
        outcome = Outcome("fail", f"refused: {error}")
    except OSError as error:
        outcome = Outcome("fail", f"its socket: {error}")
    return Result(
        name_of(check),
        subject_of(check),
        outcome.level,
        outcome.detail,
        outcome.measured_ms,
        ms(began),
    )
