"""ResourceClaims as an API server has them."""

from __future__ import annotations

from typing import Any

from moffett_device_plugin.api import dra_pb2 as pb
from moffett_device_plugin.dra.claims import ClaimReference
from moffett_device_plugin.dra.names import DRIVER, device_name
from tests.support.apiserver import NODE

CONFIG = {"apiVersion": "spu.moffett.ai/v1alpha1", "kind": "SpuConfig"}


def uid_of(number: int) -> str:
    return f"00000000-0000-4000-8000-{number:012d}"


def reference(name: str = "train", number: int = 1, namespace: str = "ml") -> ClaimReference:
    return ClaimReference(namespace, name, uid_of(number))


def result(chip: str, request: str = "spus", **fields: Any) -> dict[str, Any]:
    return {
        "request": request,
        "driver": DRIVER,
        "pool": NODE,
        "device": device_name(chip),
        **fields,
    }


def claim(
    claimed: ClaimReference, *results: dict[str, Any], config: list[dict[str, Any]] | None = None
) -> dict[str, Any]:
    """A claim that was allocated `results` and reserved for a pod."""
    return {
        "kind": "ResourceClaim",
        "metadata": {"namespace": claimed.namespace, "name": claimed.name, "uid": claimed.uid},
        "status": {
            "allocation": {"devices": {"results": list(results), "config": config or []}},
            "reservedFor": [{"resource": "pods", "name": "pod", "uid": "a-pod"}],
        },
    }


def parameters(
    source: str = "FromClaim",
    requests: list[str] | None = None,
    driver: str = DRIVER,
    **values: Any,
) -> dict[str, Any]:
    """An entry of an allocation's config."""
    opaque = {"driver": driver, "parameters": {**CONFIG, **values}}
    return {"source": source, "requests": requests or [], "opaque": opaque}


def message(claimed: ClaimReference) -> pb.Claim:
    """As the kubelet names it."""
    return pb.Claim(namespace=claimed.namespace, name=claimed.name, uid=claimed.uid)
