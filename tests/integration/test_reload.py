"""A configuration file that changes under a running plugin."""

from __future__ import annotations

import asyncio
import logging
import os
import shutil
from pathlib import Path

import pytest

from moffett_device_plugin.commands.line import build_parser
from moffett_device_plugin.runtime.errors import ConfigurationError
from moffett_device_plugin.settings import reload
from moffett_device_plugin.settings.load import read
from moffett_device_plugin.settings.options import Values
from moffett_device_plugin.settings.reload import ConfigFile
from moffett_device_plugin.settings.sections import NodeFacts

from ..support.running import RESOURCE, Running, on_a_loop, running, simulated, until, within

SPLIT = """
version: v1
resources:
- select: {numaNode: 0}
- granularity: card
  select: {numaNode: 1}
"""


class Mounted:
    """A ConfigMap as the kubelet mounts it: the file is a link into a directory that is
    swapped as a whole."""

    def __init__(self, folder: Path, text: str) -> None:
        self.folder = folder
        self.file = folder / "config.yaml"
        self._generation = 0
        folder.mkdir(exist_ok=True)
        self.write(text)
        self.file.symlink_to("..data/config.yaml")

    def write(self, text: str) -> None:
        self._generation += 1
        old, fresh = self._data(self._generation - 1), self._data(self._generation)
        fresh.mkdir()
        (fresh / "config.yaml").write_text(text)
        link = self.folder / "..data_tmp"
        link.symlink_to(fresh.name)
        os.replace(link, self.folder / "..data")
        shutil.rmtree(old, ignore_errors=True)

    def _data(self, generation: int) -> Path:
        return self.folder / f"..2026_{generation}"


class Heard(logging.Handler):
    """Sets `event` when the log says `what`."""

    def __init__(self, what: str) -> None:
        super().__init__()
        self.what = what
        self.event = asyncio.Event()
        logging.getLogger(reload.__name__).addHandler(self)

    def emit(self, record: logging.LogRecord) -> None:
        if record.getMessage() == self.what:
            self.event.set()


def follow(directory: Path, mounted: Mounted) -> ConfigFile:
    flags = ["serve", "--kubelet-dir", str(directory), "--mx-smi-interval", "0.5"]
    flags += ["--pod-resources-socket", "none"]  # not the kubelet that this machine may have
    values = Values(build_parser().parse_args(flags), os.environ)
    return ConfigFile(read(mounted.file), values, NodeFacts())


async def advertised(it: Running, **resources: int) -> None:
    """Waits for exactly these names to have so many units each."""
    wanted = {f"moffett.ai/{name.replace('_', '-')}": n for name, n in resources.items()}
    await it.until(
        lambda: {r: n for r in it.kubelet.resources() if (n := it.kubelet.allocatable(r))} == wanted
    )


@on_a_loop
async def test_another_division_of_the_node_leaves_a_pod_its_devices(
    short_dir: Path, tmp_path: Path
) -> None:
    mounted = Mounted(tmp_path / "config", "version: v1")
    async with running(short_dir) as it:
        daemon = it.start_plugin(file=follow(short_dir, mounted))
        await advertised(it, spu=6)
        registrations = len(it.kubelet.registrations)
        pod = await it.kubelet.admit("inference", RESOURCE, 2)
        mounted.write(SPLIT)
        await advertised(it, spu=3, spu_card=1)
        told = [r.resource_name for r in it.kubelet.registrations[registrations:]]
        assert told == ["moffett.ai/spu-card"], "the name that stays is not registered again"
        assert set(pod.device_ids) <= set(it.kubelet.healthy_ids(RESOURCE))
        card = await it.kubelet.admit("whole", "moffett.ai/spu-card", 1)
        assert card.device_ids == ("card-0000:b4:00.0",)
        it.kubelet.delete("whole")
        mounted.write("version: v1")
        await advertised(it, spu=6)
        await until(
            daemon.plugin_manager.changed,
            lambda: daemon.plugin_manager.changed.value == (RESOURCE,),
        )
        assert daemon.counters.reloads == 2


@on_a_loop
async def test_an_invalid_file_is_told_once_and_the_old_one_stays(
    short_dir: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    refused = Heard("configuration-refused")
    mounted = Mounted(tmp_path / "config", SPLIT)
    async with running(short_dir) as it:
        daemon = it.start_plugin(file=follow(short_dir, mounted))
        await advertised(it, spu=3, spu_card=1)
        mounted.write("version: v1\nresources: [{name: moffett.ai/spu-2}]")
        await advertised(it, spu_2=6)
        mounted.write("version: v1\nresources: [{nam: a.io/b}]")
        await within(refused.event.wait(), refused.what)
        assert it.kubelet.allocatable("moffett.ai/spu-2") == 6
        (told,) = [r for r in caplog.records if r.getMessage() == refused.what]
        assert "resources[0].nam" in told.why  # type: ignore[attr-defined]
        assert "did you mean name?" in told.why  # type: ignore[attr-defined]
        assert daemon.counters.reload_failures == 1
        assert daemon.counters.reload_last_ok is False
        mounted.write("version: v1")
        await advertised(it, spu=6)
        assert daemon.counters.reload_last_ok is True


@on_a_loop
async def test_a_file_that_is_missing_while_it_is_replaced_is_not_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    mounted = Mounted(tmp_path / "config", SPLIT)
    file = follow(tmp_path, mounted)
    missing = ConfigurationError("--config", str(mounted.file), "No such file or directory")
    answers: list[str | ConfigurationError] = [missing, "version: v1", "version: v1"]

    def read_text(path: Path) -> str:
        answer = answers.pop(0)
        if isinstance(answer, ConfigurationError):
            raise answer
        return answer

    monkeypatch.setattr(reload, "read_text", read_text)
    settings = await within(anext(file.changes()), "the new configuration")
    assert [str(resource) for resource in settings.plugin_config.resources] == [RESOURCE]
    assert file.counters.reload_failures == 0


@on_a_loop
async def test_a_pre_start_check_that_is_turned_on_is_told_to_the_kubelet(
    short_dir: Path, tmp_path: Path
) -> None:
    mounted = Mounted(tmp_path / "config", "version: v1")
    async with running(short_dir) as it:
        it.start_plugin(file=follow(short_dir, mounted))
        await it.allocatable(6)
        assert not it.kubelet.options(RESOURCE).pre_start_required
        mounted.write("version: v1\npreStartCheck: true")
        await it.until(lambda: it.kubelet.options(RESOURCE).pre_start_required)
        await it.allocatable(6)


@on_a_loop
async def test_health_rules_change_without_a_restart(short_dir: Path, tmp_path: Path) -> None:
    mounted = Mounted(tmp_path / "config", "version: v1\nhealth: {recoverySeconds: 0}")
    node = simulated()
    async with running(short_dir) as it:
        it.start_plugin(node, file=follow(short_dir, mounted))
        await it.allocatable(6)
        node.set(node.faults.with_fault("0000:36:00.0", "ecc"))
        await it.allocatable(5)
        mounted.write("version: v1\nhealth: {recoverySeconds: 0, rules: {ecc-uncorrected: off}}")
        await it.allocatable(6)
