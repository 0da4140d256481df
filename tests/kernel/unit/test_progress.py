"""What is shown of a cell's progress, and the picture that stays."""

from __future__ import annotations

import base64
import re
import xml.etree.ElementTree as ElementTree
from html.parser import HTMLParser

from shoal.observe.cell_progress import CellBook, CellWork
from shoal.observe.functions import CANCELLED
from shoal_kernel.film import Film, render_picture, render_text
from shoal_kernel.progress_lines import ProgressLines
from shoal_kernel.progress_view import render_functions, render_live, render_snapshot, render_snapshot_text

EVIL = "<script>alert('x')</script>&"


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def make_cell(num_tasks: int, num_executors: int = 3, name: str = EVIL) -> CellWork:
    """A cell of which every tenth task has failed, and the last was cancelled."""
    clock = Clock()
    book = CellBook(clock, None, lambda cell: None)
    for number in range(num_tasks):
        clock.now += 0.05
        tally, executor = book.submit("In[1]#x", name), f"executor-{number % num_executors}"
        tally.send()
        if number == num_tasks - 1:
            tally.fail(True, 0.1, executor, CANCELLED)
        elif number % 10 == 9:
            tally.fail(True, 0.1, executor)
        else:
            tally.finish(True, 0.1, executor)
    cell = book.find("In[1]#x")
    assert cell is not None
    return cell


def drawing(html: str) -> ElementTree.Element:
    found = re.search(r'src="data:image/svg\+xml;base64,([^"]*)"', html)
    assert found is not None
    return ElementTree.fromstring(base64.b64decode(found[1]))


class Tags(HTMLParser):
    """Collects what an HTML text is made of, and fails where tags do not match."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.seen: set[str] = set()
        self.attributes: set[str] = set()
        self._open: list[str] = []
        self.feed(html)
        assert self._open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.seen.add(tag)
        self.attributes |= {name for name, _ in attrs}
        if tag != "img":
            self._open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self._open.pop() == tag


def test_a_few_tasks_are_bars_in_the_lanes_of_their_executors() -> None:
    picture = drawing(render_picture(Film.of(make_cell(30).timeline)))
    assert picture.attrib["viewBox"].endswith(" 30")
    done, failed, cancelled = (path.attrib for path in picture)
    assert done["d"].count("M") == 27 and failed["d"].count("M") == 2 and cancelled["d"].count("M") == 1
    assert failed["fill"] == "none" and "fill" in done  # told apart without colour


def test_many_tasks_are_an_area_with_marks_where_some_failed() -> None:
    picture = drawing(render_picture(Film.of(make_cell(5_000).timeline)))
    area, marks = (path.attrib["d"] for path in picture)
    assert area.startswith("M0 ") and 0 < marks.count("M") <= 120


def test_a_snapshot_is_small_and_plain_html() -> None:
    for num_tasks, num_executors in ((1, 1), (299, 24), (299, 200), (20_000, 50)):
        cell = make_cell(num_tasks, num_executors)
        html = render_snapshot(cell.look(), Film.of(cell.timeline), [(EVIL, f"ValueError: {EVIL}")])
        tags = Tags(html)
        assert len(html) < 30_000
        assert not tags.seen & {"script", "svg", "iframe", "link"}
        assert not tags.attributes & {"id", "onclick", "onload"}
        assert "&lt;script&gt;" in html


def test_the_table_has_what_the_picture_shows() -> None:
    cell = make_cell(30)
    html = render_snapshot(cell.look(), Film.of(cell.timeline), [])
    rows = re.findall(r"</th><td>([^<]*)</td><td>(\d+)</td><td>(\d+)</td></tr>", html)
    assert 5 <= len(rows) <= 10
    assert sum(int(ended) for _, ended, _ in rows) == 30
    assert sum(int(flaws) for _, _, flaws in rows) == 3
    assert all(0 < float(at_work) < 4 for at_work, _, _ in rows)


def test_the_text_says_it_all() -> None:
    cell = make_cell(30, name="train")
    text = render_snapshot_text(cell.look(), Film.of(cell.timeline), [("train", "ValueError: no")])
    sentence, film, failure = text.splitlines()
    assert sentence == "In[1]: 27 of 30 done, 2 failed, 1 cancelled, in 1.45 s."
    assert re.fullmatch(r"\|[▁▂▃▄▅▆▇█]+\| 1\.45 s", film)
    assert failure == "train failed: ValueError: no"


def test_a_film_of_nothing_is_a_line() -> None:
    book = CellBook(Clock(), None, lambda cell: None)
    book.submit("In[1]#x", "f").fail(False, 0.0, "")
    (cell,) = book.cells()
    assert render_text(Film.of(cell.timeline)).startswith("|▁|")
    assert drawing(render_picture(Film.of(cell.timeline))) is not None


def test_the_bar_says_its_values() -> None:
    cell = make_cell(30)
    html = render_live(cell.look())
    Tags(html)
    assert 'role="progressbar"' in html and 'aria-valuemax="30"' in html and 'aria-valuenow="30"' in html


def test_functions_are_escaped_and_counted() -> None:
    html = render_functions(make_cell(30).look())
    Tags(html)
    assert "<script" not in html and ">27<" in html and ">2<" in html


class NotedPage:
    """Notes what is written."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    def write(self, kind: str, text: str) -> None:
        assert kind == "stderr"
        self.lines += text.splitlines()


def lines_of(num_tasks: int, looks_at: int = 1) -> list[str]:
    """Return what is said of a cell whose tasks are looked at each time that so many have ended."""
    clock, page = Clock(), NotedPage()
    book = CellBook(clock, None, lambda cell: None)
    lines = ProgressLines(page)  # type: ignore[arg-type]
    tallies = [book.submit("In[1]#x", "f") for _ in range(num_tasks)]
    cell = book.find("In[1]#x")
    assert cell is not None
    for number, tally in enumerate(tallies, 1):
        tally.send()
        clock.now += 1.0
        tally.finish(True, 1.0, "executor")
        if number % looks_at == 0:
            lines.show(cell.look())
            lines.show(cell.look())
    lines.finish(cell.look(), Film.of(cell.timeline), [])
    return page.lines


def test_progress_as_lines_is_one_for_each_tenth() -> None:
    said = lines_of(200)
    assert [line.split(" done")[0] for line in said] == [f"In[1]: {n} of 200" for n in range(20, 201, 20)]
    assert said[-1] == "In[1]: 200 of 200 done, in 3 min 20 s."
    assert len(lines_of(3)) == 3
    assert len(lines_of(100, looks_at=35)) == 3


def test_of_one_piece_nothing_is_said() -> None:
    assert lines_of(1) == []
