from __future__ import annotations

import json
import logging
import re
import sys

import pytest

from moffett_device_plugin.runtime.log import set_up

EVIL = 'serial "x"\nlevel=error event=fake \x1b[31m'


@pytest.fixture(autouse=True)
def restored(monkeypatch: pytest.MonkeyPatch) -> None:
    root = logging.getLogger()
    monkeypatch.setattr(root, "handlers", [])
    monkeypatch.setattr(root, "level", root.level)


def tell(form: str, capsys: pytest.CaptureFixture[str]) -> str:
    set_up(form, "info")  # type: ignore[arg-type]
    log = logging.getLogger("test")
    log.debug("not-told")
    log.error("device-unhealthy", extra={"device": "0000:36:00.0", "text": EVIL, "none": None})
    return capsys.readouterr().err


def test_text_is_one_line_of_keys_and_values(capsys: pytest.CaptureFixture[str]) -> None:
    line = tell("text", capsys)
    assert line.count("\n") == 1
    assert "\x1b" not in line
    assert re.match(
        r"time=\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z level=error event=device-unhealthy"
        r' device=0000:36:00\.0 text="serial \\"x\\"\\nlevel=error',
        line,
    )
    assert "none=none" in line


def test_json_is_one_object_a_line(capsys: pytest.CaptureFixture[str]) -> None:
    line = tell("json", capsys)
    assert line.count("\n") == 1
    event = json.loads(line)
    assert (event["event"], event["level"]) == ("device-unhealthy", "error")
    assert (event["text"], event["none"]) == (EVIL, None)


def test_an_exception_stays_on_its_line(capsys: pytest.CaptureFixture[str]) -> None:
    set_up("text", "info")
    try:
        raise ValueError("two\nlines")
    except ValueError:
        logging.getLogger("test").error("call-failed", exc_info=sys.exc_info())
    line = capsys.readouterr().err
    assert line.count("\n") == 1
    assert "ValueError" in line


def test_debugging_tells_nothing_of_every_header(capsys: pytest.CaptureFixture[str]) -> None:
    set_up("text", "debug")
    logging.getLogger("hpack.hpack").debug("Decoded 8")
    logging.getLogger("moffett_device_plugin").debug("ours")
    assert "event=ours" in (told := capsys.readouterr().err)
    assert "Decoded" not in told
