"""A table as text and as HTML: one way to draw them, for all that draw one."""

from __future__ import annotations

from pathlib import Path

import shoal
from shoal.model.description import Description
from shoal.model.memory import MemoryReport, ObjectUse, StoreUse
from shoal.model.tables import Table, table_html, table_lines


def test_columns_are_as_wide_as_they_have_to_be() -> None:
    rows = [("1", "x"), ("1,000", "")]
    assert table_lines(("number", "what"), rows, right=(0,)) == ["number  what", "     1  x", " 1,000"]
    assert table_lines(("number", "what"), rows) == ["number  what", "1       x", "1,000"]


def test_html_is_escaped_and_says_what_heads_are() -> None:
    html = table_html(("<a>", "b"), [("1 < 2", "&")], right=(0,))
    assert '<th scope="col" class="shoal-number">&lt;a&gt;</th><th scope="col">b</th>' in html
    assert '<td class="shoal-number">1 &lt; 2</td><td>&amp;</td>' in html


def test_without_rows_there_is_nothing_to_draw() -> None:
    assert (table_lines(("a",), []), table_html(("a",), [])) == ([], "")
    assert str(Table("things", ("a",), (), "no things")) == "no things"


def test_all_that_draw_one_draw_it_alike() -> None:
    use = ObjectUse("obj-1", 1024, "here", ("node-1",), "f")
    report = MemoryReport((StoreUse("node-1", 1, 2),), (use,))
    described = Description("things", heads=("a", "b"), rows=(("1", "2"),))
    table = Table("things", ("a", "b"), (("1", "2"),))
    drawn = table_html(("a", "b"), [("1", "2")])
    assert drawn in described.html and drawn in table._repr_html_()
    styles = {html.partition("<div")[0] for html in (described.html, table._repr_html_(), report._repr_html_())}
    assert len(styles) == 1
    package = Path(shoal.__file__).parent / "model"
    assert [path.name for path in package.glob("*.py") if "<thead" in path.read_text()] == ["tables.py"]
