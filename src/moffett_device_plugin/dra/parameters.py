"""The opaque parameters of classes and claims: SpuConfig. Pure, and strict.

apiVersion: spu.moffett.ai/v1alpha1
kind: SpuConfig
injectSola: true
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Any

from .names import PARAMETERS_API, PARAMETERS_KIND


class ParametersError(Exception):
    """The parameters are not valid; the text has the field and the remedy."""


@dataclass(frozen=True, slots=True)
class Parameters:
    """`inject_sola`: whether the host's SOLA is mounted into containers, read-only; None:
    as the node's configuration says."""

    inject_sola: bool | None = None


def merged(configs: Iterable[Any]) -> Parameters:
    """Of several, in order: a later one wins in the fields that it has.
    Raises ParametersError."""
    parameters = Parameters()
    for config in configs:
        if not isinstance(config, dict):
            raise ParametersError(f"the parameters are no object: use kind {PARAMETERS_KIND}")
        expected = {"apiVersion": PARAMETERS_API, "kind": PARAMETERS_KIND}
        for field, value in expected.items():
            if config.get(field) != value:
                text = f"parameters.{field} is {config.get(field)!r}: use {value}"
                raise ParametersError(text)
        unknown = sorted(str(key) for key in config.keys() - expected.keys() - {"injectSola"})
        if unknown:
            text = f"parameters.{unknown[0]} is not known: {PARAMETERS_KIND} has injectSola"
            raise ParametersError(text)
        if "injectSola" in config:
            if not isinstance(config["injectSola"], bool):
                text = f"parameters.injectSola is {config['injectSola']!r}: use true or false"
                raise ParametersError(text)
            parameters = replace(parameters, inject_sola=config["injectSola"])
    return parameters
