"""Claims, slices and pods of DRA, as the tests ask for them."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from .cluster import Cluster, Object
from .plugin import SECONDS, workload
from .shell import wait_for

CLASS = "spu.moffett.ai"
LABEL = "moffett.ai/device-api"
CARD = "spu.moffett.ai/card"
PREFIX = "spu.moffett.ai-claim-"
CONFIG = f"""
version: v1
dra: {{evict: [bus-gone, over-temperature]}}
health: {{recoverySeconds: 1}}
mxSmi: {{intervalSeconds: 0.5}}
nodes:
- match: {{labels: {{{LABEL}: dra}}}}
  deviceApi: dra
"""


def exactly(name: str = "spus", count: int = 1, **fields: Any) -> Object:
    """Return a request for so many chips."""
    return {"name": name, "exactly": {"deviceClassName": CLASS, "count": count, **fields}}


def cel(expression: str) -> list[Object]:
    """Return selectors."""
    return [{"cel": {"expression": expression}}]


def claim(
    name: str,
    *requests: Object,
    constraints: Sequence[Object] = (),
    config: Sequence[Object] = (),
    namespace: str = "default",
) -> Object:
    """Return a claim."""
    devices = {
        "requests": list(requests) or [exactly()],
        "constraints": list(constraints),
        "config": list(config),
    }
    return {
        "apiVersion": "resource.k8s.io/v1",
        "kind": "ResourceClaim",
        "metadata": {"name": name, "namespace": namespace},
        "spec": {"devices": devices},
    }


def template(name: str, *requests: Object, constraints: Sequence[Object] = ()) -> Object:
    """Return a template of claims."""
    spec = claim(name, *requests, constraints=constraints)["spec"]
    return {
        "apiVersion": "resource.k8s.io/v1",
        "kind": "ResourceClaimTemplate",
        "metadata": {"name": name, "namespace": "default"},
        "spec": {"spec": spec},
    }


def pod_of(
    name: str,
    claim_name: str = "",
    *,
    from_template: str = "",
    containers: Mapping[str, str] | None = None,
    restarts: bool = False,
    namespace: str = "default",
) -> Object:
    """Return a pod that uses a claim, or one from a template. ``containers`` are their names
    and the request that each uses; empty for all."""
    pod = workload(name, restarts=restarts)
    pod["metadata"]["namespace"] = namespace
    (usual,) = pod["spec"]["containers"]
    source = (
        {"resourceClaimTemplateName": from_template}
        if from_template
        else {"resourceClaimName": claim_name}
    )
    pod["spec"]["resourceClaims"] = [{"name": "spus", **source}]
    pod["spec"]["containers"] = [
        {
            **usual,
            "name": container,
            "resources": {
                "claims": [{"name": "spus", **({"request": request} if request else {})}]
            },
        }
        for container, request in (containers or {"workload": ""}).items()
    ]
    return pod


def slices(cluster: Cluster) -> list[Object]:
    """Return the driver's slices of all nodes."""
    text = cluster.kubectl("get", "resourceslices", "-o", "json").stdout
    found: list[Object] = json.loads(text)["items"]
    return [one for one in found if one["spec"]["driver"] == CLASS]


def devices(cluster: Cluster) -> dict[str, Object]:
    """Return the published devices by their names."""
    node = cluster.layout.node
    return {
        str(device["name"]): device
        for one in slices(cluster)
        if one["spec"].get("nodeName") == node
        for device in one["spec"].get("devices", [])
    }


def taints(cluster: Cluster, device: str) -> set[tuple[str, str]]:
    """Return the keys, without their domain, and effects of a device's taints."""
    found = devices(cluster).get(device, {}).get("taints", [])
    return {(one["key"].partition("/")[2], one["effect"]) for one in found}


def wait_for_devices(cluster: Cluster, number: int, seconds: float = SECONDS) -> None:
    """Wait until so many devices are published."""
    wait_for(
        f"{number} devices", lambda: len(devices(cluster)) == number, seconds=seconds, every=0.02
    )


def allocated(cluster: Cluster, name: str, namespace: str = "default") -> list[str]:
    """Return the names of the devices that a claim has."""
    status = cluster.get("resourceclaim", name, namespace).get("status", {})
    results = status.get("allocation", {}).get("devices", {}).get("results", [])
    return [str(result["device"]) for result in results]


def claim_of(cluster: Cluster, pod: str) -> str:
    """Return the claim that was made for a pod."""
    status = cluster.get("pod", pod)["status"]
    made = status.get("resourceClaimStatuses") or [status["extendedResourceClaimStatus"]]
    return str(made[0]["resourceClaimName"])


def specs(cluster: Cluster) -> list[str]:
    """Return the uids of the claims that have a CDI spec."""
    found = cluster.layout.cdi.glob(f"{PREFIX}*.json")
    return sorted(path.stem.removeprefix(PREFIX) for path in found)


def event_messages(cluster: Cluster, pod: str, reason: str) -> list[str]:
    """Return the texts of a pod's events of a kind."""
    text = cluster.kubectl(
        "get",
        "events",
        "--field-selector",
        f"involvedObject.name={pod},reason={reason}",
        "-o",
        "json",
    ).stdout
    return [str(item["message"]) for item in json.loads(text)["items"]]


def refusal_of(cluster: Cluster, pod: str) -> str:
    """Return why a pod's claims were not prepared."""
    reason = "FailedPrepareDynamicResources"
    return wait_for(
        f"the refusal of {pod}",
        lambda: " ".join(event_messages(cluster, pod, reason)),
        seconds=SECONDS,
    )
