"""Names by CDI's rules, and the annotation that Kubernetes accepts."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from moffett_device_plugin.cdi.names import (
    IllegalNameError,
    annotation,
    check_kind,
    device_name,
    qualified,
    split_kind,
)
from moffett_device_plugin.runtime.errors import ConfigurationError

LEGAL_DEVICE = re.compile(r"[A-Za-z0-9]([-A-Za-z0-9_.:]*[A-Za-z0-9])?")
# https://kubernetes.io/docs/concepts/overview/working-with-objects/annotations/
LEGAL_KEY = re.compile(r"cdi\.k8s\.io/[A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?")
KIND = "moffett.ai/spu"


@pytest.mark.parametrize("kind", [KIND, "a/b", "foo.bar.baz/foo-bar123.B_az"])
def test_kinds_that_engines_accept(kind: str) -> None:
    assert check_kind(kind) == kind
    assert "/".join(split_kind(kind)) == kind


@pytest.mark.parametrize(
    "kind",
    [
        "",
        "spu",
        "/spu",
        "moffett.ai/",
        "moffett.ai/spu/",
        "moffett.ai/a/b",
        "moffett.ai/-spu",
        "moffett.ai/spu.",
        "moffett.ai/1spu",  # the library wants a letter
        "1moffett.ai/spu",
        "Moffett.ai/spu",  # the specification wants a DNS name
        "moffett..ai/spu",
        "moffett_ai/spu",
        "moffett.ai/spu=all",
        "moffett.ai/s pu",
        "moffett.ai/spu\n",
        "moffett.ai/" + "a" * 64,
        "a" * 254 + "/spu",
    ],
)
def test_kinds_that_some_engine_refuses(kind: str) -> None:
    with pytest.raises(ConfigurationError, match=r"--cdi-kind: .* such as moffett\.ai/spu"):
        check_kind(kind)
    with pytest.raises(IllegalNameError):
        qualified(kind, "all")


@pytest.mark.parametrize("name", ["0000:36:00.0", "card-0000:33:00.0", "10000:e1:00.7", "a"])
def test_legal_ids_are_their_own_names(name: str) -> None:
    assert device_name(name) == name
    assert qualified(KIND, device_name(name)) == f"{KIND}={name}"


@pytest.mark.parametrize("name", ["", "-a", "a-", "a/b", "a b", "a=b", "a,b", "ü", "a\n"])
def test_a_name_that_an_engine_refuses_is_refused(name: str) -> None:
    with pytest.raises(IllegalNameError):
        qualified(KIND, name)


@given(st.text())
def test_any_id_gets_a_legal_name(device_id: str) -> None:
    assert LEGAL_DEVICE.fullmatch(device_name(device_id))


def test_ids_that_differ_only_in_what_is_illegal_get_different_names() -> None:
    ids = ["spu/0", "spu_0", "spu 0", "spu=0", "/spu/0", "all", "", "/"]
    names = {device_name(device_id) for device_id in ids}
    assert len(names) == len(ids)
    assert "all" not in names  # an id must not pass for all devices


def test_the_annotation_is_as_cdi_writes_it() -> None:
    devices = [qualified(KIND, "0000:36:00.0"), qualified(KIND, "0000:37:00.0")]
    assert annotation("moffett-device-plugin", "moffett.ai/spu", devices) == (
        "cdi.k8s.io/moffett-device-plugin_moffett.ai_spu",
        "moffett.ai/spu=0000:36:00.0,moffett.ai/spu=0000:37:00.0",
    )


@given(st.text(), st.text())
def test_any_annotation_key_is_one_that_kubernetes_accepts(plugin: str, key: str) -> None:
    assert LEGAL_KEY.fullmatch(annotation(plugin, key, [f"{KIND}=all"])[0])


def test_long_keys_stay_apart() -> None:
    keys = {annotation("plugin", "x" * 80 + end, [f"{KIND}=all"])[0] for end in "ab"}
    assert len(keys) == 2


@pytest.mark.parametrize("devices", [[], ["all"], ["moffett.ai/spu"], [f"{KIND}=a,{KIND}=b"]])
def test_an_annotation_that_an_engine_could_not_read_is_refused(devices: list[str]) -> None:
    with pytest.raises(IllegalNameError):
        annotation("plugin", "key", devices)
