"""Errors of the API server: how they are logged, and when to retry."""

from __future__ import annotations

import logging
import random
from collections.abc import Callable
from dataclasses import dataclass, field

log = logging.getLogger(__name__)

_UNREACHABLE = "unreachable"


class ApiError(Exception):
    """A failed call. `status` is the HTTP status, 0 without a response; `kind` is stable
    for each cause; `retry_after` is in seconds, None where the server gave none."""

    def __init__(self, status: int, kind: str, text: str, retry_after: float | None = None) -> None:
        super().__init__(text)
        self.status = status
        self.kind = kind
        self.retry_after = retry_after


@dataclass(slots=True)
class Backoff:
    """Delays in seconds that double from `first` to `most`, with a jitter of one half, so
    that the nodes of a cluster do not retry all at once. A delay that the server asks for
    (Retry-After) is respected, up to `most`."""

    first: float = 1.0
    most: float = 300.0
    chance: Callable[[], float] = random.random
    failures: int = 0

    def failed(self, error: ApiError | None = None) -> float:
        """The delay before the next attempt."""
        delay = min(self.first * 2.0 ** min(self.failures, 30), self.most)
        if error is not None and error.status == 403:
            delay = max(delay, min(30.0, self.most))  # until someone changes the role
        self.failures += 1
        delay *= 0.5 + self.chance() / 2
        return max(delay, min((error and error.retry_after) or 0.0, self.most))

    def succeeded(self) -> None:
        self.failures = 0


@dataclass(slots=True)
class ErrorLog:
    """Logs each error once when it begins or its cause changes, and once when it ends."""

    server: str
    effect: str = "labels, events and the condition are delayed"  # of an outage
    _reported: dict[str, str] = field(default_factory=dict)
    _failures: int = 0

    def failed(self, verb: str, resource: str, error: ApiError) -> None:
        if error.status == 403:
            self._reached()
            if self._is_new(f"{verb} {resource}", "forbidden"):
                log.error("api-forbidden", extra=_forbidden(verb, resource, error))
        elif error.status in (0, 401, 429) or error.status >= 500:
            self._failures += 1
            if self._is_new(_UNREACHABLE, error.kind):
                log.warning(
                    "api-unavailable",
                    extra={
                        "server": self.server,
                        "error": error,
                        "effect": self.effect,
                        "remedy": _REMEDIES.get(
                            error.kind, "none if it is temporary; the plugin retries"
                        ),
                    },
                )
        else:
            self._reached()
            if self._is_new(f"{verb} {resource}", error.kind):
                details = {"verb": verb, "resource": resource, "error": error}
                log.warning("api-refused", extra={**details, "status": error.status})

    def succeeded(self, verb: str, resource: str) -> None:
        self._reached()
        if self._reported.pop(f"{verb} {resource}", None) is not None:
            log.info("api-accepted", extra={"verb": verb, "resource": resource})

    def _reached(self) -> None:
        if self._reported.pop(_UNREACHABLE, None) is not None:
            extra = {"server": self.server, "after_failures": self._failures}
            log.info("api-available", extra=extra)
        self._failures = 0

    def _is_new(self, what: str, cause: str) -> bool:
        new = self._reported.get(what) != cause
        self._reported[what] = cause
        return new


_REMEDIES = {
    "certificate": "check --api-ca-file, and that the certificate names this host or address",
    "ca-file": "check --api-ca-file",
    "token-file": "check --api-token-file",
    "Unauthorized": "check that the service account exists and its token is valid",
}


def _forbidden(verb: str, resource: str, error: ApiError) -> dict[str, object]:
    group = "resource.k8s.io" if resource.startswith("resource") else ""
    rule = f'{{apiGroups: ["{group}"], resources: ["{resource}"], verbs: ["{verb}"]}}'
    return {
        "verb": verb,
        "resource": resource,
        "error": error,
        "remedy": f"add to the rules of the service account's role: {rule}",
    }
