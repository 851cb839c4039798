"""Pods, which come and go while all this happens."""

from __future__ import annotations

from ..invariants import InvariantError
from ..truth import Expect, expected
from ..world import World
from .registry import action


@action("pod-comes")
async def pod_comes(world: World) -> None:
    """When all is known to be well, it must be admitted, and get the right nodes."""
    world.need(world.plugin is not None and world.kubelet.running)
    count = world.chance.randint(1, 2)
    sure = world.settled and not world.open and world.differences() == []
    generation = {device.bus_id: device.node for device in world.machine.devices}
    free = _free(world)
    pod = await world.admit(count)
    if pod is None:
        if sure and free >= count:
            raise InvariantError("admits", f"a pod for {count} was refused, {free} are free")
        return
    given = {device.host_path for device in pod.response.devices}
    if sure and given != world.nodes_now(pod):
        text = f"{world.devices_of(pod)} were given with {sorted(given)}, not {generation}"
        raise InvariantError("right-nodes", text)


def _free(world: World) -> int:
    want = expected(world.machine.devices, world.shape, smi_ok=world.machine.smi_ok)
    sure = {i for i, what in want[world.shape.resource].items() if what is Expect.HEALTHY}
    pods = [pod for pod in world.kubelet.pods.values() if pod.resource == world.shape.resource]
    taken = {unit for pod in pods for unit in pod.device_ids}
    healthy = set(world.kubelet.healthy_ids(world.shape.resource))
    return len((sure & healthy) - taken)


@action("pod-goes")
async def pod_goes(world: World) -> None:
    world.end_pod(world.pick(world.kubelet.pods.values()))


@action("all-pods-go")
async def all_pods_go(world: World) -> None:
    for pod in list(world.kubelet.pods.values()):
        world.end_pod(pod)
