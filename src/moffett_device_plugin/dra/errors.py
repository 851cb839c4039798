"""Why a claim was not prepared."""

from __future__ import annotations

from typing import Literal

Code = Literal[
    "api-unavailable",
    "claim-changed",
    "claim-gone",
    "claim-replaced",
    "device-gone",
    "device-held",
    "device-unhealthy",
    "device-unknown",
    "holders-unknown",
    "not-allocated",
    "not-reserved",
    "not-settled",
    "other-node",
    "other-side",
    "parameters",
    "records",
    "sola-missing",
    "withdrawn",
]


class ClaimRefusedError(Exception):
    """The claim cannot be prepared now. `code` is stable for each cause; the text is for
    the pod's events: which claim and chip, why, and what helps."""

    def __init__(self, code: Code, text: str) -> None:
        super().__init__(text)
        self.code: Code = code
