"""The text of tasks as a terminal would show it."""

from __future__ import annotations

import io

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tqdm import tqdm

from shoal_kernel.flow import Flow
from shoal_kernel.lanes import LAST_LINES, Budget, Lane, Screen


def shown(screen: Screen) -> list[tuple[str, int]]:
    return [(row.text, row.count) for row in screen.rows]


def make_lane(num_lines: int = 1_000, num_chars: int = 100_000, fold: bool = True) -> Lane:
    return Lane("rank 0", Budget(num_lines, num_chars), fold)


@given(st.lists(st.sampled_from(["a", "b", "\n", "ab\nc", "\n\n"]), max_size=30))
def test_plain_text_stays_as_it_is(pieces: list[str]) -> None:
    screen = Screen(fold=False)
    for piece in pieces:
        screen.write("stdout", piece)
    lines = "".join(pieces).split("\n")
    assert [row.text for row in screen.rows] == (lines if lines[-1] else lines[:-1])


@given(st.lists(st.sampled_from("ab"), max_size=20))
def test_folding_counts_and_loses_nothing(lines: list[str]) -> None:
    screen = Screen()
    screen.write("stdout", "".join(f"{line}\n" for line in lines))
    assert [line for text, count in shown(screen) for line in [text] * count] == lines
    assert all(one.text != two.text for one, two in zip(screen.rows, screen.rows[1:], strict=False))


def test_lines_that_differ_in_a_digit_stay_apart() -> None:
    screen = Screen()
    screen.write("stdout", "loss 0.31\nloss 0.32\nloss 0.32\n")
    assert shown(screen) == [("loss 0.31", 1), ("loss 0.32", 2)]


@pytest.mark.parametrize(
    ("written", "seen"),
    [
        ("10 %\r20 %\r30 %", "30 %"),
        ("hello\rJ", "Jello"),
        ("long\rab\rc", "cbng"),
        ("ab\b\bc", "cb"),
        ("\x1b[31mred\x1b[0m\r\x1b[32mok\x1b[0m", "\x1b[32mok\x1b[0m"),
        ("a\r\n", "a"),
    ],
)
def test_returns_overwrite(written: str, seen: str) -> None:
    for cut in range(len(written)):
        if written[:cut].endswith(("\x1b", "[", "3")):
            continue
        screen = Screen()
        screen.write("stdout", written[:cut])
        screen.write("stdout", written[cut:])
        assert shown(screen) == [(seen, 1)]


def test_progress_bars_are_the_lines_they_are() -> None:
    screen = Screen()

    class File(io.StringIO):
        def write(self, text: str) -> int:
            screen.write("stderr", text)
            return len(text)

    for epoch in tqdm(range(3), "epochs", file=File(), mininterval=0):
        for _ in tqdm(range(20), "batches", file=File(), mininterval=0, position=1, leave=False):
            pass
        screen.write("stdout", f"epoch {epoch}\n")
    lines = [row.text.strip() for row in screen.rows if row.text.strip()]
    assert lines[0].startswith("epochs: 100%")
    assert lines[1:] == ["epoch 0", "epoch 1", "epoch 2"]


def test_streams_go_on_where_they_were() -> None:
    screen = Screen()
    screen.write("stderr", "10 %")
    screen.write("stdout", "hello\n")
    screen.write("stderr", "\r20 %")
    assert [(row.kind, row.text) for row in screen.rows] == [("stderr", "20 %"), ("stdout", "hello")]


def test_beyond_the_cap_lines_are_counted_and_the_last_kept() -> None:
    lane = make_lane(num_lines=10)
    text = "".join(f"{number}\n" for number in range(1_000))
    for start in range(0, len(text), 777):
        lane.write("stdout", text[start : start + 777])
    assert [row.text for row in lane.screen.rows] == [str(number) for number in range(10)]
    assert lane.tail is not None
    assert [row.text for row in lane.tail.rows][-LAST_LINES:] == [str(n) for n in range(900, 1_000)][-LAST_LINES:]
    assert lane.num_lines == 1_000


def test_what_repeats_does_not_use_up_the_cap() -> None:
    lane = make_lane(num_lines=3)
    lane.write("stdout", "again\n" * 500 + "end\n")
    assert shown(lane.screen) == [("again", 500), ("end", 1)]


def test_a_line_without_end_is_bounded() -> None:
    lane = make_lane()
    for _ in range(100):
        lane.write("stdout", "x" * 65_536)
    assert sum(len(row.text) for row in lane.all_rows()) < 300_000


def test_missing_text_is_said_where_it_is_missing() -> None:
    lane = make_lane(num_lines=2)
    lane.write("stdout", "a\n")
    lane.elide(7, "7 more")
    lane.write("stdout", "b\nc\n")
    lane.elide(5, "5 more")
    lane.write("stdout", "d\n")
    assert [row.text for row in lane.all_rows()] == ["a", "7 more", "b", "d"]
    assert lane.num_hidden == 6


@given(st.lists(st.text("ab\n", max_size=20), max_size=20), st.integers(1, 30), st.integers(1, 100))
def test_a_flow_shows_the_beginning_and_the_end(pieces: list[str], num_lines: int, num_chars: int) -> None:
    flow = Flow("stdout", Budget(num_lines, num_chars))
    begin = "".join(flow.pass_on(piece) for piece in pieces)
    text = "".join(pieces)
    assert text.startswith(begin)
    if not flow.overflows:
        assert begin == text
    else:
        ends = flow.finish()
        assert text.endswith(text[len(begin) :])
        assert [line for line in ends.split("\n") if line] == [line for line in text[len(begin) :].split("\n") if line]


def test_a_flow_counts_every_line_it_does_not_show() -> None:
    flow = Flow("stdout", Budget(10, 10_000))
    begin = "".join(flow.pass_on(f"{number}\n") for number in range(5_000))
    marker, *last = flow.finish().splitlines()
    assert begin.count("\n") == 10
    assert marker == f"… {5_000 - 10 - 100:,} more lines, then the last 100:"
    assert last == [str(number) for number in range(4_900, 5_000)]
    assert flow.finish() == ""


@given(st.integers(1, 40), st.integers(1, 400), st.integers(1, 50))
def test_every_line_counts_once_wherever_the_cap_falls(num_lines: int, num_chars: int, piece: int) -> None:
    lane = make_lane(num_lines, num_chars)
    text = "".join(f"line {number}\n" for number in range(300))
    for start in range(0, len(text), piece):
        lane.write("stdout", text[start : start + piece])
    assert lane.num_lines == 300
    shown = [row.text for row in lane.all_rows()]
    assert shown == [
        f"line {number}"
        for number in (*range(len(lane.screen.rows)), *range(300)[-len(shown) + len(lane.screen.rows) :])
    ]
