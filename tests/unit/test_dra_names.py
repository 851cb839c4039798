"""Device names are DNS labels, and no two ids have one name."""

from __future__ import annotations

import re

from hypothesis import example, given
from hypothesis import strategies as st

from moffett_device_plugin.dra.names import device_name
from tests.support.values import ids_of

LABEL = re.compile(r"[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?")


def test_bus_ids_read_like_themselves() -> None:
    assert device_name("0000:36:00.0") == "0000-36-00-0"
    assert device_name("card-0000:34:00.0") == "card-0000-34-00-0"
    ids = ids_of("8xS30")
    assert len({device_name(i) for i in ids}) == len(ids) == 24


@given(st.text(max_size=100))
@example("")
@example("-")
@example("0000-36-00-0")
@example("SPU 0")
def test_every_id_has_a_legal_name_that_no_bus_id_has(device_id: str) -> None:
    name = device_name(device_id)
    assert LABEL.fullmatch(name)
    assert name != "0000-36-00-0"
