"""The calls of the Kubernetes API that the DRA driver makes: resource.k8s.io/v1."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Mapping
from contextlib import aclosing
from typing import Any
from urllib.parse import quote, urlencode

from .client import ApiClient
from .errors import ErrorLog
from .responses import Object, resource_version
from .settings import ApiSettings

_GROUP = "/apis/resource.k8s.io/v1"
_SLICES = f"{_GROUP}/resourceslices"
_MANAGER = "moffett-device-plugin"
APPLY = "application/apply-patch+yaml"  # JSON is YAML, too


class DraClient(ApiClient):
    """As `ApiClient`; a driver has connections of its own, so that no call of another
    feature holds up a claim."""

    def __init__(self, settings: ApiSettings) -> None:
        super().__init__(settings)
        effect = "no new claim is prepared, and the slices are those of before; pods end as usual"
        self.errors = ErrorLog(settings.url, effect)

    async def get_claim(self, namespace: str, name: str) -> Object:
        """A ResourceClaim. That there is none (404) is no error in the log."""
        path = (
            f"{_GROUP}/namespaces/{quote(namespace, safe='')}/resourceclaims/{quote(name, safe='')}"
        )
        return await self._call("get", "resourceclaims", "GET", path, expected=404)

    async def list_slices(self, driver: str) -> tuple[list[Object], str]:
        """The driver's slices of this node, and the resourceVersion to watch from. A server
        without the API answers 404."""
        target = f"{_SLICES}?{urlencode(self._selector(driver))}"
        found = await self._call("list", "resourceslices", "GET", target, expected=404)
        items = found.get("items")
        slices = [one for one in items if isinstance(one, dict)] if isinstance(items, list) else []
        return slices, resource_version(found)

    async def watch_slices(
        self, driver: str, version: str, seconds: int
    ) -> AsyncGenerator[tuple[str, Object], None]:
        """Changes of the driver's slices of this node, as for nodes."""
        selector = self._selector(driver)
        changes = self._watch("resourceslices", _SLICES, selector, version, seconds)
        async with aclosing(changes) as it:
            async for change in it:
                yield change

    async def apply_slice(self, slice_: Mapping[str, Any]) -> Object:
        """Creates or replaces it; returns what the server has now."""
        name = quote(str(slice_["metadata"]["name"]), safe="")
        target = f"{_SLICES}/{name}?{urlencode({'fieldManager': _MANAGER, 'force': 'true'})}"
        return await self._call(
            "patch", "resourceslices", "PATCH", target, slice_, APPLY, expected=404
        )

    async def delete_slice(self, name: str, uid: str) -> None:
        """Deletes this very object: a later one of the same name stays."""
        path = f"{_SLICES}/{quote(name, safe='')}"
        body = {"kind": "DeleteOptions", "apiVersion": "v1", "preconditions": {"uid": uid}}
        await self._call(
            "delete", "resourceslices", "DELETE", path, body, "application/json", expected=404
        )

    def _selector(self, driver: str) -> Mapping[str, str]:
        return {"fieldSelector": f"spec.driver={driver},spec.nodeName={self.settings.node}"}
