"""The pictures: what they draw, their tables, and that they need nothing from outside."""

from __future__ import annotations

import re

import pytest

from shoal.api.plotting import CellTimeline
from shoal.observe.timeline import CANCELLED, FAILED, FINISHED, Slice, Span
from shoal_kernel import plots

TIMELINE = CellTimeline(
    "In[3]",
    (Span(0, 0.0, 0.5, "train", FINISHED), Span(1, 0.1, 0.2, "train", FAILED), Span(0, 0.5, 0.5, "<b>", CANCELLED)),
    ("exec-1", "exec-2"),
    0.25,
    (Slice(0.35, 1, 1), Slice(0.25, 2, 0)),
)
EMPTY = CellTimeline("In[1]", (), (), 0.05, ())
DURATIONS = {"train": [(0.5, 1.0, 3), (2.0, 4.0, 1)], "test": [(2.0**-20, 2.0**-19, 1)]}
MEMORY = {"In[1]": {"memory": 3 << 20, "disk": 1 << 20}, "no cell": {"inline": 100}}

ALL = [
    pytest.param(lambda: plots.draw_timeline(TIMELINE), id="timeline"),
    pytest.param(lambda: plots.draw_timeline(EMPTY), id="empty timeline"),
    pytest.param(lambda: plots.draw_durations(DURATIONS), id="durations"),
    pytest.param(lambda: plots.draw_durations({}), id="no durations"),
    pytest.param(lambda: plots.draw_memory(MEMORY), id="memory"),
    pytest.param(lambda: plots.draw_memory({}), id="no memory"),
]


def quads(picture: plots.Picture) -> list[dict[str, list[object]]]:
    """Return the data of each set of bars, in the order drawn."""
    parts = getattr(picture.figure, "children", [picture.figure])
    return [renderer.data_source.data for part in parts for renderer in part.renderers]


@pytest.mark.parametrize("draw", ALL)
def test_a_picture_loads_nothing_and_has_a_table(draw, tmp_path) -> None:
    picture = draw()
    bundle = picture._repr_mimebundle_()
    saved = picture.save(tmp_path / "picture.html").read_text()
    again = picture.save(tmp_path / "again.html").read_text()
    for page in (bundle["text/html"], saved, again):
        assert not re.search(r"<(script|link|img)[^>]*(src|href)=", page)
        assert "Bokeh" in page and "shoal-described" in page
    assert bundle["text/html"].startswith("<iframe title=") and "as a table</summary>" in bundle["text/html"]
    assert bundle["text/plain"].splitlines()[0] == picture.title
    assert all(len(row) == len(picture.heads) for row in picture.rows)


def test_a_timeline_has_a_bar_for_each_piece_and_says_how_it_ended() -> None:
    picture = plots.draw_timeline(TIMELINE)
    *lanes, below = quads(picture)
    assert [len(data["left"]) for data in lanes] == [2, 1]
    assert lanes[0]["outcome"] == ["finished", "failed"] and lanes[0]["hatch"][0] != lanes[0]["hatch"][1]
    assert below["top"] == [1.4, 1.0] and below["ended"] == [1, 2]
    assert picture.rows[1] == ("train", "0.100", "100 ms", "failed", "exec-2")


def test_durations_count_by_function() -> None:
    picture = plots.draw_durations(DURATIONS)
    assert [data["top"] for data in quads(picture)] == [[3, 1], [1]]
    assert picture.rows[0] == ("train", "500 ms to 1 s", "3")


def test_memory_stacks_places_by_cell() -> None:
    picture = plots.draw_memory(MEMORY)
    memory, disk, _ = quads(picture)
    assert disk["left"] == memory["right"] == [3 << 20, 0]
    assert disk["right"] == [4 << 20, 0]
    assert ("In[1]", "disk", "1.0 MiB") in picture.rows


def test_a_long_table_says_what_it_leaves_out() -> None:
    spans = tuple(Span(0, number, number + 1, "f", FINISHED) for number in range(50))
    picture = plots.draw_timeline(CellTimeline("In[1]", spans, ("exec-1",), 1.0, ()))
    assert len(picture.rows) == 50 and repr(picture).splitlines()[-1] == "  and 30 more rows"


def test_text_of_others_is_no_markup() -> None:
    picture = plots.draw_memory({"<script>alert(1)</script>": {"memory": 1}})
    assert "<script>alert" not in picture._repr_mimebundle_()["text/html"]
