"""Lanes as HTML and as text."""

from __future__ import annotations

from html.parser import HTMLParser

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shoal_kernel.ansi import strip, to_html
from shoal_kernel.lanes import Budget, Lane
from shoal_kernel.lanes_view import LIVE_NBYTES, SAVED_NBYTES, arrange, render_html, render_text


def make_lanes(*texts: str, num_lines: int = 25_000) -> list[Lane]:
    budget = Budget(num_lines, 1_000_000)
    lanes = [Lane(f"rank {number}", budget) for number in range(len(texts))]
    for lane, text in zip(lanes, texts, strict=True):
        lane.write("stdout", text)
    return lanes


class Text(HTMLParser):
    """The text of HTML, its tags and its attributes."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: set[str] = set()
        self.attributes: set[str] = set()
        self.text = ""
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        self.attributes |= {name for name, _ in attrs}

    def handle_data(self, data: str) -> None:
        self.text += data


def test_identical_lines_are_one_and_what_differs_stays_with_its_lane() -> None:
    lanes = make_lanes(*(f"start\nloss 0.{rank}\nstep 2 of {rank}\ndone\n" for rank in range(3)))
    assert render_text(lanes).splitlines() == [
        "3 tasks, 12 lines",
        "[3 tasks] start",
        "(rank 0) loss 0.0",
        "(rank 0) step 2 of 0",
        "(rank 1) loss 0.1",
        "(rank 1) step 2 of 1",
        "(rank 2) loss 0.2",
        "(rank 2) step 2 of 2",
        "[3 tasks] done",
    ]


def test_the_one_that_differs_is_named() -> None:
    lanes = make_lanes("ok\n", "ok\n", "not ok\n", "ok\n")
    assert render_text(lanes).splitlines()[1:] == ["[3 tasks, not rank 2] ok", "(rank 2) not ok"]


def test_who_may_have_said_it_before_is_not_said_to_differ() -> None:
    lanes = make_lanes("ok\n", "ok\n", "ok\n", "ok\n" + "".join(f"line {number}\n" for number in range(1_000)))
    html = render_html(lanes, lanes, saved=True)
    assert "[3 tasks]" in html and "not rank 3" not in html
    assert "[4 tasks] ok" in render_text(lanes)


def test_lanes_of_different_length_are_not_torn_apart() -> None:
    lanes = make_lanes("a1\na2\na3\n", "b1\n")
    assert render_text(lanes).splitlines()[1:] == ["(rank 0) a1", "(rank 0) a2", "(rank 0) a3", "(rank 1) b1"]


def test_counts_must_agree_too() -> None:
    lanes = make_lanes("x\nx\n", "x\n")
    assert render_text(lanes).splitlines()[1:] == ["(rank 0) x ×2", "(rank 1) x"]  # noqa: RUF001


@given(st.lists(st.lists(st.sampled_from(["a", "b", "c"]), max_size=6), min_size=1, max_size=4))
def test_every_line_of_every_lane_is_there_in_order(said: list[list[str]]) -> None:
    lanes = make_lanes(*("".join(f"{line}\n" for line in lines) for lines in said))
    parts = list(arrange({lane: list(enumerate(lane.screen.rows)) for lane in lanes}))
    for lane, lines in zip(lanes, said, strict=True):
        rows = [row for part in parts if lane in part.lanes for row in part.rows]
        assert [line for row in rows for line in [row.text] * row.count] == lines


@pytest.mark.parametrize("num_lanes", [1, 8, 40, 150])
@pytest.mark.parametrize("line", ["<script>alert(1)</script>&\"'" * 40, "ü\x1b[31mx\x1b[0m" * 300, "short"])
def test_html_is_small_and_harmless(num_lanes: int, line: str) -> None:
    lanes = make_lanes(*("".join(f"{rank}/{n} {line}\n" for n in range(30)) for rank in range(num_lanes)))
    for saved, limit in ((False, LIVE_NBYTES), (True, SAVED_NBYTES)):
        html = render_html(lanes, lanes, saved)
        assert len(html.encode()) < limit
        parsed = Text(html)
        assert parsed.tags <= {"style", "div", "p", "b", "pre", "span", "details", "summary"}
        assert parsed.attributes <= {"class", "style", "role", "aria-label", "title"}
        assert "\x1b" not in html and "url(" not in html
    text = render_text(lanes)
    assert all(f"(rank {rank}) {rank}/29 {strip(line)}" in text for rank in range(num_lanes))


def test_what_has_no_room_in_the_view_is_behind_a_fold() -> None:
    lanes = make_lanes("".join(f"line {number}\n" for number in range(1_000)))
    html = render_html(lanes, lanes, saved=True)
    view, _, folds = html.partition("<details>")
    assert "line 999" in view and "line 17\n" not in view
    assert "line 17\n" in folds
    assert "<details>" not in render_html(lanes, lanes, saved=False)
    few = make_lanes("a\n", "b\n")
    assert "<details>" not in render_html(few, few, saved=True)


def test_beyond_the_cap_the_number_of_lines_is_said() -> None:
    lanes = make_lanes("".join(f"{number}\n" for number in range(1_000)), num_lines=5)
    lines = render_text(lanes).splitlines()
    assert lines[5] == "(rank 0) … 895 more lines, then the last 100:"
    assert lines[-1] == "(rank 0) 999"
    assert "895 more lines" in render_html(lanes, lanes, saved=True)


def test_colours_become_html_and_nothing_else_does() -> None:
    assert to_html("\x1b[1;31m<b>\x1b[0m & \x1b[38;5;196mx\x1b[39m\x1b[2K") == (
        '<span style="font-weight:bold;color:#d0413c">&lt;b&gt;</span> &amp; <span style="color:rgb(255,0,0)">x</span>'
    )
    assert strip("\x1b]0;title\x07a\x1b[31mb\x1b[mc\x00d\te") == "abcd\te"


@given(st.text(st.sampled_from("a<\x1b[]m;0138 5\x07"), max_size=40))
def test_any_colours_leave_the_text(text: str) -> None:
    assert Text(to_html(text)).text == strip(text)
