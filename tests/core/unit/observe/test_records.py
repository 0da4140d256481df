"""Records of work: packed in columns, kept without being read, and read again."""

from __future__ import annotations

import os

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shoal.observe.records import (
    KINDS,
    MAX_ERROR_CHARS,
    MAX_ERRORS,
    MAX_WAITING,
    OUTCOMES,
    Batch,
    RecordBook,
    RecordBuffer,
    records_of,
    unpack,
)

OFFSET = 1_000_000.0
ids = st.one_of(st.integers(0, 2**70).map(lambda number: f"task-ab12-{number}"), st.text(min_size=1, max_size=12))
names = st.text(max_size=12)
times = st.floats(0, 1e6)
rows = st.tuples(
    ids, st.sampled_from(range(3)), names, names, times, times, times, names, st.sampled_from(range(3)),
    st.integers(0, 1000), st.text(max_size=2 * MAX_ERROR_CHARS),
)  # fmt: skip


@given(st.lists(rows, min_size=1, max_size=30))
def test_what_is_noted_is_read(noted: list[tuple]) -> None:
    buffer = RecordBuffer(OFFSET)
    for row in noted:
        buffer.note(row)
    batch = buffer.take("owner-1")
    assert batch is not None and batch.num_records == len(noted) and not buffer
    for row, record in zip(noted, records_of([batch]), strict=True):
        task_id, kind, function, cell, submitted, ended, seconds, executor, outcome, attempt, error = row
        assert (record.task_id, record.function, record.cell) == (task_id, function, cell)
        assert (record.kind, record.outcome) == (KINDS[kind], OUTCOMES[outcome])
        assert (record.owner, record.executor) == ("owner-1", executor)
        assert record.submitted == submitted + OFFSET and record.ended == ended + OFFSET
        assert record.seconds == seconds and record.attempt == min(attempt, 255)
        assert record.started == max(record.submitted, record.ended - seconds)
        assert record.error == error[:MAX_ERROR_CHARS]


def note(buffer: RecordBuffer, number: int, error: str = "") -> None:
    buffer.note((f"task-ab-{number}", 0, "f", "", 1.0, 2.0, 0.5, "exec-1", 0, 0, error))


def test_text_that_no_file_can_hold_is_kept() -> None:
    buffer = RecordBuffer(0.0)
    name = os.fsdecode(b"caf\xe9.txt")  # as Python gives the name of a file that is not UTF-8
    buffer.note(("task-ab-1", 0, name, name, 1.0, 2.0, 0.5, name, 1, 0, f"FileNotFoundError: {name}"))
    batch = buffer.take("owner-1")
    assert batch is not None
    [record] = records_of([batch])
    assert (record.function, record.cell, record.executor) == (name, name, name)
    assert record.error == f"FileNotFoundError: {name}"


def test_nothing_noted_is_no_batch() -> None:
    assert RecordBuffer(0.0).take("owner-1") is None


def test_more_than_can_wait_is_dropped_and_counted() -> None:
    buffer = RecordBuffer(0.0)
    for number in range(MAX_WAITING + 7):
        note(buffer, number)
    batch = buffer.take("owner-1")
    assert batch is not None and batch.num_records == MAX_WAITING
    assert buffer.num_dropped == 7
    assert unpack(batch.packed).task_ids[0] == "task-ab-7", "the oldest went"


def test_room_for_errors_is_made_with_each_batch() -> None:
    buffer = RecordBuffer(0.0)
    for number in range(MAX_ERRORS):
        assert buffer.error_room == MAX_ERRORS - number
        note(buffer, number, "ValueError: no")
    assert buffer.error_room == 0
    buffer.take("owner-1")
    assert buffer.error_room == MAX_ERRORS


def test_a_book_keeps_the_newest_and_counts_all() -> None:
    book = RecordBook(max_records=10)
    for number in range(6):
        book.add(Batch("owner-1", 3, bytes([number])))
    assert (book.count, book.total, book.nbytes) == (9, 18, 3)
    assert [batch.packed[0] for batch in book.newest(100)] == [3, 4, 5]
    assert [batch.packed[0] for batch in book.newest(4)] == [4, 5]
    assert book.newest(0) == []


def test_a_book_keeps_within_its_bytes() -> None:
    book = RecordBook(max_nbytes=100)
    for _ in range(5):
        book.add(Batch("owner-1", 1, bytes(40)))
    assert (book.count, book.nbytes) == (2, 80)
    book.add(Batch("owner-1", 1, bytes(1000)))
    assert book.count == 1, "the newest stays, however large"


@pytest.mark.parametrize("damaged", [b"", b"\xc1", b"\x90", b"\x93\x01\x02\x03", b"\x01"])
def test_what_is_no_batch_is_refused(damaged: bytes) -> None:
    with pytest.raises(ValueError, match="record"):
        unpack(damaged)


def test_batches_of_another_version_are_refused() -> None:
    with pytest.raises(ValueError, match="version 9"):
        unpack(b"\x91\x09")
