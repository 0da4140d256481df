"""What tasks print."""

from __future__ import annotations

import io

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shoal.runtime.stdio import PIECE, OutputBuffer, TaskWriter


def make_writer(in_task: bool = True) -> tuple[TaskWriter, list[tuple[str, str]], io.StringIO]:
    emitted: list[tuple[str, str]] = []
    fallback = io.StringIO()

    def emit(kind: str, data: str) -> bool:
        if in_task:
            emitted.append((kind, data))
        return in_task

    return TaskWriter("stdout", emit, fallback), emitted, fallback


def test_a_task_prints_to_its_cell() -> None:
    writer, emitted, fallback = make_writer()
    print("loss", 0.5, file=writer, flush=True)
    assert "".join(data for _, data in emitted) == "loss 0.5\n"
    assert {kind for kind, _ in emitted} == {"stdout"}
    assert fallback.getvalue() == ""
    assert writer.write("") == 0


def test_between_tasks_output_goes_to_the_log() -> None:
    writer, emitted, fallback = make_writer(in_task=False)
    assert writer.write("late") == 4
    assert emitted == []
    assert fallback.getvalue() == "late"


def test_only_text_is_taken() -> None:
    writer, _, _ = make_writer()
    with pytest.raises(TypeError, match="must be str, not bytes"):
        writer.write(b"bytes")  # type: ignore[arg-type]


def test_it_is_a_text_stream() -> None:
    writer, _, _ = make_writer()
    assert writer.writable() and not writer.readable() and not writer.isatty()
    assert (writer.encoding, writer.errors) == ("utf-8", "replace")
    writer.writelines(["a", "b"])


def test_what_is_not_unicode_is_replaced_as_promised() -> None:
    """A file name with foreign bytes, as ``os.listdir`` gives it: messages carry only text."""
    writer, emitted, _ = make_writer()
    writer.write(b"caf\xe9 \xc3\xa9".decode(errors="surrogateescape"))
    assert emitted == [("stdout", "caf? é")]


def test_writes_of_one_kind_are_joined() -> None:
    buffer = OutputBuffer()
    assert buffer.add("stdout", "a")
    assert not buffer.add("stdout", "b")
    assert not buffer.add("stderr", "c")
    assert not buffer.add("stdout", "d")
    assert buffer.take() == [("stdout", "ab"), ("stderr", "c"), ("stdout", "d")]
    assert buffer.take() == []
    assert buffer.add("stdout", "e"), "a flush has to be arranged again"


def test_displays_are_never_joined_or_cut() -> None:
    buffer = OutputBuffer()
    large = "x" * (PIECE + 1)
    buffer.add("display", large)
    buffer.add("display", "{}")
    assert buffer.take() == [("display", large), ("display", "{}")]


def test_long_output_is_cut_into_pieces() -> None:
    buffer = OutputBuffer()
    buffer.add("stdout", "x" * (2 * PIECE + 1))
    assert [len(data) for _, data in buffer.take()] == [PIECE, PIECE, 1]


@given(st.lists(st.tuples(st.sampled_from(["stdout", "stderr", "display"]), st.text(min_size=1)), max_size=30))
def test_nothing_is_lost_and_the_order_is_kept(written: list[tuple[str, str]]) -> None:
    buffer = OutputBuffer()
    for kind, data in written:
        buffer.add(kind, data)
    taken = buffer.take()
    assert [(k, c) for k, data in taken for c in data] == [(k, c) for k, data in written for c in data]
    assert [item for item in taken if item[0] == "display"] == [item for item in written if item[0] == "display"]
