"""What tasks print."""

from __future__ import annotations

import io
import itertools
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shoal.model.display_limits import MAX_DISPLAY, DisplayLimits
from shoal.runtime.stdio import BURST, LAST_CHARS, PIECE, OutputBuffer, TaskWriter


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


def text_of(display: str) -> str:
    return str(json.loads(display)["data"]["text/plain"])


def bundle(size: int) -> str:
    return json.dumps({"data": {"text/html": "x" * size}, "metadata": {}, "transient": {}})


def test_a_display_that_is_too_large_is_a_line() -> None:
    buffer = OutputBuffer(displays=DisplayLimits(each=1_000, total=10_000))
    assert buffer.add("display", bundle(2_000))
    buffer.add("display", bundle(100))
    (_, first), (_, second) = buffer.take()
    assert text_of(first) == (
        "… display of 2.0 KiB not shown: over the limit of 1000 B; save it to a file, or show less of it."
    )
    assert second == bundle(100)


def test_when_displays_are_too_many_that_is_said_once() -> None:
    buffer = OutputBuffer(displays=DisplayLimits(each=10_000, total=5_000))
    for _ in range(1_000):
        buffer.add("display", bundle(2_000))
    buffer.add("stdout", "goes on")
    taken = buffer.take()
    assert [kind for kind, _ in taken] == ["display"] * 3 + ["stdout"]
    assert "and all that follow it not shown: over the limit of 4.9 KiB for one cell" in text_of(taken[2][1])
    assert not buffer.add("display", bundle(1)), "there is nothing to flush"


def test_without_a_word_about_it_there_is_a_limit() -> None:
    buffer = OutputBuffer()
    buffer.add("display", bundle(MAX_DISPLAY))
    ((_, shown),) = buffer.take()
    assert "display of 95.4 MiB not shown" in text_of(shown)


def test_the_narrower_limits_count() -> None:
    one, two = DisplayLimits(1, 20, "a", "b"), DisplayLimits(2, 10, "c", "d")
    assert one.within(two) == two.within(one) == DisplayLimits(1, 10, "a", "d")


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


def test_bytes_are_text_where_they_can_be() -> None:
    writer, emitted, _ = make_writer()
    assert writer.buffer.write(b"caf\xc3") == 4
    writer.buffer.write(b"\xa9 \xff\n")
    assert "".join(data for _, data in emitted) == "café \ufffd\n"


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def elided_lines(taken: list[tuple[str, str]]) -> int:
    return sum(json.loads(data)["lines"] for kind, data in taken if kind == "elided")


def print_to(buffer: OutputBuffer, text: str) -> None:
    buffer.add("stdout", text)
    buffer.add("stdout", "\n")


def test_a_flood_is_cut_in_the_middle_and_counted() -> None:
    buffer = OutputBuffer(Clock())
    for number in range(1_000_000):
        print_to(buffer, str(number))
    taken = buffer.take()
    assert sum(len(data) for _, data in taken) < BURST + 2 * LAST_CHARS
    place = [kind for kind, _ in taken].index("elided")
    begin = "".join(data for _, data in taken[:place]).splitlines()
    end = "".join(data for _, data in taken[place + 1 :]).splitlines()
    assert begin == [str(number) for number in range(len(begin))]
    assert end == [str(number) for number in range(999_900, 1_000_000)]
    assert len(begin) + elided_lines(taken) + len(end) == 1_000_000


def test_a_steady_stream_passes_whole() -> None:
    """10,000 lines of a hundred characters a second."""
    clock = Clock()
    buffer = OutputBuffer(clock)
    for _ in range(300):
        for _ in range(300):
            print_to(buffer, "x" * 99)
        clock.now += 0.03
        taken = buffer.take()
        assert "".join(data for kind, data in taken if kind == "stdout") == ("x" * 99 + "\n") * 300
        assert [kind for kind, _ in taken] == ["stdout"]


def test_after_a_flood_text_passes_again() -> None:
    clock = Clock()
    buffer = OutputBuffer(clock)
    for _ in range(100_000):
        print_to(buffer, "x" * 99)
    assert elided_lines(buffer.take()) > 0
    clock.now += 1.0
    print_to(buffer, "calm")
    assert buffer.take() == [("stdout", "calm\n")]


def test_a_flood_keeps_the_order_of_what_is_sent() -> None:
    buffer = OutputBuffer(Clock())
    buffer.add("stdout", "x" * BURST + "\n")
    buffer.add("stderr", "lost\n" * 10_000 + "kept\n")
    buffer.add("display", "{}")
    buffer.add("stdout", "last\n")
    kinds = [kind for kind, _ in itertools.groupby(buffer.take(), key=lambda piece: piece[0])]
    assert kinds == ["stdout", "elided", "stderr", "display", "stdout"]


def test_one_endless_line_is_shown_at_both_ends() -> None:
    buffer = OutputBuffer(Clock())
    buffer.add("stdout", "a" * (4 * BURST) + "z")
    taken = buffer.take()
    assert taken[0] == ("stdout", "a" * PIECE)
    assert taken[-1][1].endswith("az")
    assert sum(len(data) for _, data in taken) < BURST + 2 * LAST_CHARS
