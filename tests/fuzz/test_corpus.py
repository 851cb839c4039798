"""Every input that the fuzzer kept, without the fuzzer."""

from __future__ import annotations

import pytest

from tests.fuzz.archives import FOLDER, read
from tests.fuzz.targets import TARGETS


@pytest.mark.parametrize("name", TARGETS)
def test_no_kept_input_shows_a_bug(name: str) -> None:
    inputs = read(name)
    assert inputs
    for input_name, data in inputs.items():
        try:
            TARGETS[name](data)
        except Exception as error:
            raise AssertionError(f"{name}.zip, {input_name}: {error!r}") from error


def test_every_archive_is_of_a_target() -> None:
    assert {path.name for path in FOLDER.iterdir()} == {f"{name}.zip" for name in TARGETS}
