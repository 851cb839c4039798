"""The kubelet's pod-resources API: which devices it says each pod has."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import grpc

SOCKET = Path("/var/lib/kubelet/pod-resources/kubelet.sock")
VERSIONS = ("v1alpha1", "v1")

# Field numbers of the API's messages, the same in both versions.
_PODS, _POD_NAME, _POD_CONTAINERS, _CONTAINER_DEVICES = 1, 1, 3, 2
_RESOURCE_NAME, _DEVICE_ID = 1, 2


def listed(version: str, pod: str, resource: str, socket: Path = SOCKET) -> list[str]:
    """Return the ids that the kubelet lists for a pod, sorted."""
    with grpc.insecure_channel(f"unix://{socket}") as channel:
        method: grpc.UnaryUnaryMultiCallable[bytes, bytes] = channel.unary_unary(
            f"/{version}.PodResourcesLister/List"
        )
        answer = method(b"", timeout=10)
    return sorted(
        device.decode()
        for listed_pod in _fields(answer, _PODS)
        if pod.encode() in _fields(listed_pod, _POD_NAME)
        for container in _fields(listed_pod, _POD_CONTAINERS)
        for devices in _fields(container, _CONTAINER_DEVICES)
        if resource.encode() in _fields(devices, _RESOURCE_NAME)
        for device in _fields(devices, _DEVICE_ID)
    )


def _fields(message: bytes, number: int) -> list[bytes]:
    """Return the values of a length-delimited field of a protobuf message."""
    return [value for found, value in _read(message) if found == number]


def _read(message: bytes) -> Iterator[tuple[int, bytes]]:
    position = 0
    while position < len(message):
        tag, position = _varint(message, position)
        number, kind = tag >> 3, tag & 7
        if kind == 0:
            _, position = _varint(message, position)
        elif kind == 2:
            length, position = _varint(message, position)
            yield number, message[position : position + length]
            position += length
        else:
            raise ValueError(f"field {number} is of kind {kind}, which this API does not use")


def _varint(message: bytes, position: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = message[position]
        position += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, position
        shift += 7
