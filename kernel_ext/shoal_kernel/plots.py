"""The pictures of ``shoal.plot``: bokeh figures that need nothing from outside, each with its data as a table.

A picture is a page of its own inside the output (an ``iframe``), which holds bokeh's JavaScript: it shows without a
network, without an extension, after a reload, and in a saved file. It takes its colours from the notebook around it.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, Any

from shoal.model.amounts import format_nbytes, format_seconds
from shoal.model.description import Description

if TYPE_CHECKING:
    from shoal.api.plotting import CellTimeline

#: Rows of a table that are shown; ``Picture.rows`` has all.
MAX_ROWS = 20
WIDTH = 720
#: Colours that are told apart on light and on dark, with colour-blind eyes too (Okabe and Ito, 2008); then again.
_COLOURS = ("#0072b2", "#e69f00", "#009e73", "#cc79a7", "#d55e00", "#56b4e9", "#b0a000")
_OUTCOMES = ("finished", "failed", "cancelled")
_HATCHES = (" ", "x", "/")

#: Run in the page once it is drawn: text and lines in the colours of the notebook around it, or of the system.
_RECOLOUR = """
let text = matchMedia('(prefers-color-scheme: dark)').matches ? '#e0e0e0' : '#333333';
try {
  const style = parent.getComputedStyle(parent.document.body);
  const around = style.getPropertyValue('--jp-ui-font-color1').trim();
  if (parent !== window && around) {
    text = around;
    // A frame whose colour scheme is not that of the page around it is not see-through.
    document.body.style.background = style.getPropertyValue('--jp-layout-color0');
  }
} catch (error) { /* the page around is somebody else's */ }
for (const axis of axes) {
  axis.setv({axis_label_text_color: text, major_label_text_color: text, axis_line_color: text,
             major_tick_line_color: text, minor_tick_line_color: null});
}
for (const legend of legends) { legend.label_text_color = text; }
for (const title of titles) { title.text_color = text; }
"""


@dataclasses.dataclass(frozen=True)
class Picture:
    """A bokeh figure and its data.

    Attributes
    ----------
    title
        What it shows, in words.
    figure
        The bokeh figure, to change or to put beside others.
    heads, rows
        The same as a table.
    """

    title: str
    figure: Any
    heads: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]

    def save(self, path: str | Path) -> Path:
        """Write one HTML file that needs nothing else, the table included; returns its path."""
        path = Path(path)
        path.write_text(self._page(self._table.html), encoding="utf-8")
        return path

    def __repr__(self) -> str:
        return self._table.text

    def _repr_mimebundle_(self, include: object = None, exclude: object = None) -> dict[str, str]:
        height = sum(part.height for part in self._figures) + 30
        frame = (
            f'<iframe title="{escape(self.title)}" style="border:0;width:100%;height:{height}px" '
            f'srcdoc="{escape(self._page())}"></iframe>'
        )
        details = f"<details><summary>{escape(self.title)}: as a table</summary>{self._table.html}</details>"
        return {"text/plain": repr(self), "text/html": frame + details}

    @property
    def _table(self) -> Description:
        more = len(self.rows) - MAX_ROWS
        notes = (f"and {more:,} more rows",) if more > 0 else ()
        return Description(self.title, heads=self.heads, rows=self.rows[:MAX_ROWS], notes=notes)

    @property
    def _figures(self) -> list[Any]:
        from bokeh.plotting import figure

        return list(self.figure.select({"type": figure}))

    def _page(self, below: str = "") -> str:
        from bokeh.embed import file_html
        from bokeh.models import CustomJS
        from bokeh.resources import INLINE

        document = self._document()
        parts = self._figures
        document.js_on_event(
            "document_ready",
            CustomJS(
                args={
                    "axes": [axis for part in parts for axis in part.axis],
                    "legends": [legend for part in parts for legend in part.legend],
                    "titles": [part.title for part in parts],
                },
                code=_RECOLOUR,
            ),
        )
        html = file_html(document, INLINE, title=self.title)
        document.clear()
        return html.replace("<head>", _HEAD, 1).replace("</body>", f"{below}</body>", 1)

    def _document(self) -> Any:
        from bokeh.document import Document

        if self.figure.document is not None:
            self.figure.document.remove_root(self.figure)
        document = Document()
        document.add_root(self.figure)
        return document


_HEAD = "<head><style>:root{color-scheme:light dark}html,body{margin:0;background:transparent}</style>"


def draw_timeline(timeline: CellTimeline) -> Picture:
    """Draw when the work of a cell was done: piece by piece in lanes, and below how much ran at a time."""
    from bokeh.layouts import column
    from bokeh.models import ColumnDataSource

    lanes = _figure(f"Work of {timeline.cell}", height=110 + 22 * min(24, max(1, len(timeline.lanes))))
    lanes.y_range.flipped = True
    names = dict.fromkeys(span.name for span in timeline.spans)
    for name, colour in zip(names, _colours(len(names)), strict=True):
        spans = [span for span in timeline.spans if span.name == name]
        data = {
            "left": [span.start for span in spans],
            "right": [max(span.end, span.start + 1e-4) for span in spans],
            "top": [span.lane - 0.4 for span in spans],
            "bottom": [span.lane + 0.4 for span in spans],
            "name": [name] * len(spans),
            "lane": [timeline.lanes[span.lane] for span in spans],
            "took": [format_seconds(span.end - span.start) for span in spans],
            "outcome": [_OUTCOMES[span.outcome] for span in spans],
            "hatch": [_HATCHES[span.outcome] for span in spans],
        }
        bars = lanes.quad(
            **{side: side for side in ("left", "right", "top", "bottom")},
            source=ColumnDataSource(data),
            fill_color=colour,
            line_color="white",
            line_width=0.5,
            hatch_pattern="hatch",
            hatch_color="white",
            legend_label=name,
        )
        _hover(lanes, bars, name="@name", took="@took", outcome="@outcome", executor="@lane")
    lanes.yaxis.ticker = list(range(len(timeline.lanes)))
    lanes.yaxis.axis_label = "executor"
    _finish(lanes)
    below = _concurrency(timeline, lanes.x_range)
    rows = tuple(
        (span.name, f"{span.start:.3f}", format_seconds(span.end - span.start), _OUTCOMES[span.outcome],
         timeline.lanes[span.lane])
        for span in timeline.spans
    )  # fmt: skip
    heads = ("name", "began at (s)", "took", "outcome", "executor")
    return Picture(f"Work of {timeline.cell}", column(lanes, below, sizing_mode="stretch_width"), heads, rows)


def _concurrency(timeline: CellTimeline, x_range: Any) -> Any:
    from bokeh.models import ColumnDataSource

    figure = _figure("", height=130, x_range=x_range)
    width, slices = timeline.width, timeline.slices
    data = {
        "left": [width * number for number in range(len(slices))],
        "right": [width * (number + 1) for number in range(len(slices))],
        "top": [part.busy / width for part in slices],
        "ended": [part.ended for part in slices],
        "lost": [part.unsuccessful for part in slices],
    }
    bars = figure.quad(left="left", right="right", bottom=0, top="top", source=ColumnDataSource(data), line_color=None)
    _hover(figure, bars, **{"at a time": "@top{0.0}", "ended": "@ended", "without result": "@lost"})
    figure.xaxis.axis_label = "seconds since the first was submitted"
    figure.yaxis.axis_label = "at a time"
    figure.y_range.start = 0
    return figure


def draw_durations(functions: Mapping[str, Sequence[tuple[float, float, int]]]) -> Picture:
    """Draw how many pieces of each function's work took about so long."""
    from bokeh.models import ColumnDataSource

    figure = _figure("How long work took", height=320, x_axis_type="log")
    rows = []
    for (name, classes), colour in zip(functions.items(), _colours(len(functions)), strict=True):
        betweens = [f"{format_seconds(low)} to {format_seconds(high)}" for low, high, _ in classes]
        data = {
            "left": [low for low, _, _ in classes],
            "right": [high for _, high, _ in classes],
            "top": [count for _, _, count in classes],
            "name": [name] * len(classes),
            "between": betweens,
        }
        bars = figure.quad(
            left="left",
            right="right",
            bottom=0,
            top="top",
            source=ColumnDataSource(data),
            fill_color=colour,
            fill_alpha=0.6,
            line_color=colour,
            legend_label=name,
        )
        _hover(figure, bars, name="@name", took="@between", number="@top")
        rows += [(name, between, f"{count:,}") for between, (_, _, count) in zip(betweens, classes, strict=True)]
    figure.xaxis.axis_label = "seconds"
    figure.yaxis.axis_label = "pieces of work"
    figure.y_range.start = 0
    _finish(figure)
    return Picture("How long work took", figure, ("name", "took", "number"), tuple(rows))


def draw_memory(cells: Mapping[str, Mapping[str, int]]) -> Picture:
    """Draw the bytes of values that each cell has made, by where they are."""
    from bokeh.models import ColumnDataSource, FactorRange, NumeralTickFormatter

    names = sorted(cells, key=lambda name: -sum(cells[name].values()))
    places = list(dict.fromkeys(place for amounts in cells.values() for place in amounts))
    figure = _figure("Values by cell", height=110 + 26 * max(1, len(names)), y_range=FactorRange(factors=names[::-1]))
    begin = dict.fromkeys(names, 0)
    for place, colour in zip(places, _colours(len(places)), strict=True):
        amounts = {name: cells[name].get(place, 0) for name in names}
        data = {
            "cell": names,
            "left": [begin[name] for name in names],
            "right": [begin[name] + amounts[name] for name in names],
            "size": [format_nbytes(amounts[name]) for name in names],
            "place": [place] * len(names),
        }
        bars = figure.hbar(
            y="cell",
            left="left",
            right="right",
            height=0.7,
            source=ColumnDataSource(data),
            fill_color=colour,
            line_color="white",
            legend_label=place,
        )
        _hover(figure, bars, cell="@cell", place="@place", size="@size")
        begin = {name: begin[name] + amounts[name] for name in names}
    figure.xaxis.axis_label = "bytes"
    figure.xaxis.formatter = NumeralTickFormatter(format="0.0 ib")
    figure.x_range.start = 0
    _finish(figure)
    rows = tuple((name, place, format_nbytes(nbytes)) for name in names for place, nbytes in cells[name].items())
    return Picture("Values by cell", figure, ("cell", "place", "size"), rows)


def _figure(title: str, height: int, **options: Any) -> Any:
    from bokeh.plotting import figure

    made = figure(
        title=title,
        height=height,
        width=WIDTH,
        sizing_mode="stretch_width",
        tools="xpan,xwheel_zoom,xbox_zoom,reset,save",
        background_fill_alpha=0,
        border_fill_alpha=0,
        outline_line_color=None,
        **options,
    )
    made.toolbar.logo = None
    made.toolbar.autohide = True
    made.grid.grid_line_color = "#888888"
    made.grid.grid_line_alpha = 0.3
    return made


def _hover(figure: Any, bars: Any, **rows: str) -> None:
    from bokeh.models import HoverTool

    figure.add_tools(HoverTool(renderers=[bars], tooltips=list(rows.items())))


def _finish(figure: Any) -> None:
    """Place the legend, if there is anything in it."""
    for legend in figure.legend:
        legend.background_fill_alpha = 0
        legend.border_line_color = None
        legend.click_policy = "hide"
        figure.add_layout(legend, "right")


def _colours(count: int) -> list[str]:
    return [_COLOURS[number % len(_COLOURS)] for number in range(count)]
