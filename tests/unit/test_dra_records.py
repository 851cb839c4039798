"""The records of prepared claims, which container engines read, and others may spoil."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest

from moffett_device_plugin.dra.records import (
    ClaimRecord,
    PreparedDevice,
    Records,
    RecordsError,
    RecordStore,
    RequestEdits,
    make_record,
)
from tests.support.claims import reference

DEVICE = PreparedDevice("spus", "node-1", "0000-36-00-0", ("0000:36:00.0",))


def record_of(number: int = 1, boot_id: str = "boot") -> ClaimRecord:
    edits = {"spus": RequestEdits({"MOFFETT_SPU_IDS": "0000:36:00.0"})}
    return make_record(reference(number=number), [DEVICE], edits, boot_id)


@pytest.fixture
def store(tmp_path: Path) -> RecordStore:
    return RecordStore(tmp_path / "cdi", "boot", lock_timeout=0.05)


def file_of(store: RecordStore, record: ClaimRecord) -> Path:
    return store.directory / f"spu.moffett.ai-claim-{record.reference.uid}.json"


def put(store: RecordStore, *records: ClaimRecord) -> None:
    def decide(_: Records) -> None:
        for record in records:
            store.write(record)

    store.change(decide)


def test_another_instance_reads_what_one_wrote(store: RecordStore) -> None:
    one, two = record_of(1), record_of(2)
    put(store, one, two)
    other = RecordStore(store.directory, "boot")
    assert other.load().by_uid == {one.reference.uid: one, two.reference.uid: two}
    assert other.remove(one.reference.uid)
    assert not other.remove(one.reference.uid)
    assert store.load().by_uid == {two.reference.uid: two}


def test_engines_can_read_the_specs_and_nothing_else_is_for_them(store: RecordStore) -> None:
    put(store, record_of())
    (spec,) = store.directory.glob("*.json")
    assert spec.stat().st_mode & 0o777 == 0o644


@pytest.mark.parametrize(
    "content", [b"", b"{", b"[]", b'{"kind": "x"}', b"\xff" * 100, b"[" * 9999]
)
def test_a_broken_record_costs_one_claim_and_stays(store: RecordStore, content: bytes) -> None:
    good, bad = record_of(1), record_of(2)
    put(store, good, bad)
    file_of(store, bad).write_bytes(content)
    records = store.load()
    assert list(records.by_uid) == [good.reference.uid]
    assert records.broken == (file_of(store, bad).name,)
    assert file_of(store, bad).read_bytes() == content
    put(store, bad)  # prepared anew
    assert len(store.load().by_uid) == 2


def test_a_record_of_another_claim_under_a_claims_name_does_not_count(store: RecordStore) -> None:
    put(store, record_of(1))
    file_of(store, record_of(1)).rename(file_of(store, record_of(2)))
    assert store.load().by_uid == {}


def test_foreign_files_are_left_alone(store: RecordStore, tmp_path: Path) -> None:
    put(store, record_of())
    foreign = store.directory / "gpu.example.com-claim-1.json"
    foreign.write_text("{}")
    link = file_of(store, record_of(3))
    (tmp_path / "elsewhere").write_text("secret")
    link.symlink_to(tmp_path / "elsewhere")
    records = store.load()
    assert list(records.by_uid) == [record_of().reference.uid]
    assert records.broken == (link.name,)
    put(store, record_of(3))
    assert (tmp_path / "elsewhere").read_text() == "secret"
    assert foreign.exists()


def test_records_of_another_boot_are_void(store: RecordStore) -> None:
    old, new = record_of(1, "earlier"), record_of(2)
    put(store, old, new)
    assert list(store.load().by_uid) == [new.reference.uid]
    assert store.remove_void() == (old,)
    assert not file_of(store, old).exists()
    assert file_of(store, new).exists()


def test_what_a_later_release_adds_is_no_harm(store: RecordStore) -> None:
    record = record_of()
    put(store, record)
    text = file_of(store, record).read_text()
    file_of(store, record).write_text(
        text.replace('"annotations": {', '"annotations": {"x/y": "z",')
    )
    assert store.load().by_uid[record.reference.uid].devices == record.devices


def test_one_instance_at_a_time(store: RecordStore) -> None:
    other = RecordStore(store.directory, "boot", lock_timeout=10.0)
    inside, release = threading.Event(), threading.Event()

    def hold(_: Records) -> None:
        inside.set()
        release.wait(10)

    thread = threading.Thread(target=other.change, args=(hold,))
    thread.start()
    assert inside.wait(10)
    try:
        with pytest.raises(RecordsError, match="locked by another instance"):
            store.change(lambda _: None)
    finally:
        release.set()
        thread.join()
    store.change(lambda _: None)


def test_a_lock_that_was_removed_keeps_nobody_out_of_the_new_one(store: RecordStore) -> None:
    put(store, record_of())
    before = store.identity()
    for path in store.directory.iterdir():
        path.unlink()
    assert store.identity() != before
    put(store, record_of())
    assert len(store.load().by_uid) == 1


def test_a_directory_that_cannot_be_made_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    store = RecordStore(tmp_path / "file" / "cdi", "boot")
    with pytest.raises(RecordsError, match="cannot open"):
        store.change(lambda _: None)
