"""What a ResourceClaim of the API server asks of this node's driver. Pure.

https://kubernetes.io/docs/reference/kubernetes-api/workload-resources/resource-claim-v1/
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from .errors import ClaimRefusedError
from .names import DRIVER
from .parameters import Parameters, ParametersError, merged

_UID = re.compile(r"[A-Za-z0-9]([-A-Za-z0-9.]{0,61}[A-Za-z0-9])?")
Object = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class ClaimReference:
    """A claim as the kubelet names it."""

    namespace: str
    name: str
    uid: str

    def __str__(self) -> str:
        return f"{self.namespace}/{self.name}"

    @property
    def usable(self) -> bool:
        """Whether the uid can be the name of a file, and of a CDI device."""
        return _UID.fullmatch(self.uid) is not None


@dataclass(frozen=True, slots=True)
class Toleration:
    """Of a request, for taints of devices. An empty key or effect is any."""

    key: str = ""
    operator: str = "Equal"
    value: str = ""
    effect: str = ""

    def covers(self, key: str, effect: str, value: str = "") -> bool:
        if self.key not in ("", key) or self.effect not in ("", effect):
            return False
        return self.operator == "Exists" or (self.key != "" and self.value == value)


@dataclass(frozen=True, slots=True)
class DeviceResult:
    """A device that the scheduler chose for a request. `request` has no subrequest.
    `admin`: the claim watches the device and does not hold it."""

    request: str
    pool: str
    device: str
    share_id: str | None = None
    admin: bool = False
    tolerations: tuple[Toleration, ...] = ()


@dataclass(frozen=True, slots=True)
class AllocatedClaim:
    """A claim with our driver's results, and the parameters of each of their requests."""

    reference: ClaimReference
    results: tuple[DeviceResult, ...]
    parameters: Mapping[str, Parameters]


def parse_claim(claim: Object, reference: ClaimReference) -> AllocatedClaim:
    """The claim that the API server has under the name which the kubelet gave.
    Raises ClaimRefusedError."""
    uid = uid_of(claim)
    if uid != reference.uid:
        text = (
            f"claim {reference} was replaced: its uid is {uid or 'unknown'} and the pod's claim"
            f" had {reference.uid}; delete the pod"
        )
        raise ClaimRefusedError("claim-replaced", text)
    status = _mapping(claim.get("status"))
    allocation = _mapping(status.get("allocation"))
    if not allocation:
        text = f"claim {reference} has no allocation; the scheduler has to allocate it first"
        raise ClaimRefusedError("not-allocated", text)
    if not list(_mappings(status.get("reservedFor"))):
        text = f"claim {reference} is reserved for no pod; the scheduler has to reserve it first"
        raise ClaimRefusedError("not-reserved", text)
    devices = _mapping(allocation.get("devices"))
    results: list[DeviceResult] = []
    parameters: dict[str, Parameters] = {}
    for result in _mappings(devices.get("results")):
        if result.get("driver") != DRIVER:
            continue
        parsed, asked = _result(result), str(result.get("request") or "")
        results.append(parsed)
        try:
            parameters[parsed.request] = merged(_configs(devices, asked))
        except ParametersError as error:
            text = f"claim {reference}, request {asked}: {error}"
            raise ClaimRefusedError("parameters", text) from None
    if not results:
        text = f"claim {reference} has no device of {DRIVER}"
        raise ClaimRefusedError("not-allocated", text)
    return AllocatedClaim(reference, tuple(results), parameters)


def uid_of(claim: Object) -> str:
    return str(_mapping(claim.get("metadata")).get("uid") or "")


def allocated(claim: Object) -> frozenset[tuple[str, str]]:
    """Pool and name of each device of ours that it has."""
    allocation = _mapping(_mapping(claim.get("status")).get("allocation"))
    results = _mappings(_mapping(allocation.get("devices")).get("results"))
    return frozenset(
        (str(result.get("pool")), str(result.get("device")))
        for result in results
        if result.get("driver") == DRIVER
    )


def _result(result: Object) -> DeviceResult:
    return DeviceResult(
        request=_main(str(result.get("request") or "")),
        pool=str(result.get("pool") or ""),
        device=str(result.get("device") or ""),
        share_id=str(result["shareID"]) if result.get("shareID") else None,
        admin=result.get("adminAccess") is True,
        tolerations=tuple(
            Toleration(
                key=str(one.get("key") or ""),
                operator=str(one.get("operator") or "Equal"),
                value=str(one.get("value") or ""),
                effect=str(one.get("effect") or ""),
            )
            for one in _mappings(result.get("tolerations"))
        ),
    )


def _configs(devices: Object, request: str) -> Iterator[Any]:
    """The opaque parameters for `request`, the class's first: later ones win."""
    entries = sorted(
        _mappings(devices.get("config")), key=lambda entry: entry.get("source") == "FromClaim"
    )
    for entry in entries:
        names = entry.get("requests")
        opaque = _mapping(entry.get("opaque"))
        applies = not names or (
            isinstance(names, list) and (request in names or _main(request) in names)
        )
        if applies and opaque.get("driver") == DRIVER:
            yield opaque.get("parameters")


def _main(request: str) -> str:
    return request.partition("/")[0]


def _mapping(value: Any) -> Object:
    return value if isinstance(value, dict) else {}


def _mappings(value: Any) -> Iterator[Object]:
    return (
        (item for item in value if isinstance(item, dict)) if isinstance(value, list) else iter(())
    )
