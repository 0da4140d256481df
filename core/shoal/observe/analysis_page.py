"""The analysis page: one HTML file that shows what a cluster has done, and needs nothing from outside.

Drawing takes seconds where there is much: whoever serves the page makes it in a process of its own, ``python -m
shoal.observe.analysis_page``, which reads :func:`pack` from its standard input and writes the page to its output.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Mapping, Sequence
from html import escape
from time import gmtime, strftime
from typing import Any

import msgpack

from shoal.model.amounts import format_nbytes, format_seconds
from shoal.observe.analysis import MAX_RECORDS, NO_CELL, OTHERS, Analysis, Bar, analyse
from shoal.observe.records import Batch, Record

#: Colours that are told apart on light and on dark, with colour-blind eyes too (after Okabe and Ito, 2008).
COLOURS = (
    "#0072b2", "#e69f00", "#009e73", "#cc79a7", "#d55e00", "#56b4e9", "#b0a000", "#882255", "#44aa99", "#7e6fd6",
)  # fmt: skip
GREY, RED = "#8c8c8c", "#d62728"
#: Rows of the table of functions.
MAX_ROWS = 50
#: Nodes up to which the cells of the transfer matrix have their bytes written in them.
MAX_WRITTEN = 10


def render(
    snapshot: Mapping[str, Any],
    records: Iterable[Record] | Iterable[Batch],
    values: Mapping[str, Mapping[str, int]] | None = None,
) -> str:
    """Return the page.

    Parameters
    ----------
    snapshot
        See :mod:`shoal.observe.cluster_view`.
    records
        Of tasks and calls that have ended, packed or not, the newest last.
    values
        Bytes of values in the object stores, by cell and by where they are; None if that is not known.

    Raises
    ------
    ModuleNotFoundError
        There is no bokeh here.
    """
    # Imported here: only who draws needs it.
    from bokeh.embed import file_html
    from bokeh.resources import INLINE

    found = analyse(snapshot, records)
    name = snapshot["cluster"]["name"]
    sections = _sections(found, values or {})
    page: str = file_html(
        _document([figure for *_, figure in sections if figure is not None]),
        INLINE,
        title=f"Analysis of {name}",
        template=_TEMPLATE,
        template_variables={
            "heading": escape(f"Analysis of {name}"),
            "summary": _summary(snapshot, found),
            "sections": [
                (root_name, escape(title), escape(words), figure is not None)
                for root_name, title, words, figure in sections
            ],
            "functions": _function_table(found),
            "transfers": _transfer_table(found),
            "drawn_any": any(figure is not None for *_, figure in sections),
            "style": _STYLE,
            "script": _SCRIPT,
        },
    )
    return page


def pack(snapshot: Mapping[str, Any], batches: Iterable[Batch]) -> bytes:
    """Return what the process that draws the page reads."""
    packed: bytes = msgpack.packb([json.dumps(snapshot), [tuple(batch) for batch in batches]])
    return packed


def _sections(found: Analysis, values: Mapping[str, Mapping[str, int]]) -> list[tuple[str, str, str, Any]]:
    """Return for each section the name of its figure, its title, what it shows in words, and the figure, if any."""
    parts = [("timeline", "When work ran", _timeline_words(found), _timeline(found) if found.bars else None)]
    drawn = _cells(found) if found.cells else None
    words = "How much work of each cell ran at a time." if drawn else "No work has ended yet."
    parts.append(("cells", "Work by cell", words, drawn))
    drawn = _history(found) if len(found.history) > 1 else None
    words = _history_words(found) if drawn else "There is no history yet: it has a point for each second."
    parts.append(("history", "Memory and object stores", words, drawn))
    if found.memory:
        parts.append(("memory", "Memory by cell over time", _memory_words(found), _memory(found)))
    if values:
        words = "Values in the object stores by the cell that made them, as it is now."
        parts.append(("values", "Values by cell", words, _values(values)))
    drawn = _durations(found) if any(len(f.durations) for f in found.functions) else None
    words = "How many pieces of each function's work took about so long." if drawn else "No work has ended yet."
    parts.append(("durations", "How long work took", words, drawn))
    if found.transfers:
        total = format_nbytes(sum(found.transfers.values()))
        words = f"{total} of copies went from one node to another, since these nodes joined."
        parts.append(("transfers", "Copies between nodes", words, _matrix(found)))
    else:
        words = "No value was copied from one node to another."
        parts.append(("transfers", "Copies between nodes", words, None))
    return parts


# -- words -------------------------------------------------------------------------------------------------------


def _summary(snapshot: Mapping[str, Any], found: Analysis) -> list[str]:
    tasks, nodes = snapshot["tasks"], snapshot["nodes"]
    failed = sum(function.failed for function in found.functions)
    cancelled = sum(function.cancelled for function in found.functions)
    at = strftime("%Y-%m-%d %H:%M:%S UTC", gmtime(snapshot["time"]))
    lines = [
        f"Taken at {at}: {_number(len(nodes), 'node')} with {sum(node['cpus'] for node in nodes):g} CPUs; "
        f"{tasks['running']:,} tasks and calls were running, {tasks['queued']:,} queued.",
    ]
    if not found.num_records:
        return [*map(escape, lines), "No task or call has ended yet."]
    lines.append(
        f"{_number(found.num_records, 'task')} and calls have ended within {format_seconds(found.span)} in "
        f"{_number(found.num_lanes, 'executor')}: {failed:,} failed, {cancelled:,} were cancelled."
    )
    lines[-1] = lines[-1].replace("1 task and calls have", "1 task or call has")
    if found.num_left_out:
        lines.append(
            f"These are the newest: {_number(found.num_left_out, 'older record')} were left out, as the page takes "
            f"{MAX_RECORDS:,}."
        )
    busiest = found.functions[0]
    lines.append(
        f"Most time went into {busiest.name}: {format_seconds(busiest.seconds)} in {busiest.count:,} pieces of work."
    )
    return list(map(escape, lines))


def _number(count: int, what: str) -> str:
    return f"{count:,} {what}{'s' * (count != 1)}"


def _timeline_words(found: Analysis) -> str:
    if not found.bars:
        return "No work has ended yet."
    begin = strftime("%H:%M:%S UTC", gmtime(found.begin))
    words = (
        f"Each row is an executor; times are seconds since {begin}. Drag or stretch the marked part of the strip below "
        "to choose a time; click a name to hide it."
    )
    if found.num_lanes > len(found.lanes):
        words += f" The {len(found.lanes)} busiest of {found.num_lanes:,} executors are drawn."
    if found.bin:
        words += (
            f" There are too many pieces of work to draw each: what an executor did within {format_seconds(found.bin)} "
            "is one bar, in the colour of the function that took most of it, and the paler the less it worked."
        )
    return words


def _history_words(found: Analysis) -> str:
    memory = max(point["memory_used"] for point in found.history)
    store = max(point["store_used"] for point in found.history)
    seconds = found.history[-1]["time"] - found.history[0]["time"]
    return (
        f"The last {format_seconds(seconds)}, all nodes together: at most {format_nbytes(memory)} of memory, and "
        f"{format_nbytes(store)} in object stores."
    )


def _memory_words(found: Analysis) -> str:
    name, points = max(found.memory.items(), key=lambda item: max(nbytes for _, nbytes in item[1]))
    most = format_nbytes(max(nbytes for _, nbytes in points))
    return (
        f"Bytes of the values in object stores by the cell that made them, looked at four times a minute at most. "
        f"Most were those of {name}: {most}."
    )


def _function_table(found: Analysis) -> str:
    heads = ("function", "finished", "failed", "cancelled", "time", "mean", "longest", "waited (mean)")
    rows = []
    for function in found.functions[:MAX_ROWS]:
        ran = max(1, len(function.durations))
        rows.append(
            (
                function.name,
                *(f"{number:,}" for number in (function.finished, function.failed, function.cancelled)),
                *(
                    format_seconds(seconds)
                    for seconds in (function.seconds, function.seconds / ran, function.longest, function.waited / ran)
                ),
            )
        )
    left = len(found.functions) - MAX_ROWS
    note = f"<p>And {_number(left, 'function')} more.</p>" if left > 0 else ""
    return _table("Work by function, the busiest first", heads, rows) + note if rows else ""


def _transfer_table(found: Analysis) -> str:
    pairs = sorted(found.transfers.items(), key=lambda item: -item[1])[:MAX_ROWS]
    rows = [(found.nodes[source], found.nodes[receiver], format_nbytes(nbytes)) for (source, receiver), nbytes in pairs]
    return _table("Copies between nodes, the most first", ("from", "to", "bytes"), rows) if rows else ""


def _table(caption: str, heads: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    head = "".join(f'<th scope="col">{escape(name)}</th>' for name in heads)
    body = "".join(
        f'<tr><th scope="row">{escape(row[0])}</th>{"".join(f"<td>{escape(cell)}</td>" for cell in row[1:])}</tr>'
        for row in rows
    )
    return (
        f'<div class="wide" tabindex="0" role="group" aria-label="{escape(caption)}"><table><caption>{escape(caption)}'
        f"</caption><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>"
    )


# -- figures -----------------------------------------------------------------------------------------------------


def _timeline(found: Analysis) -> Any:
    """Draw the work of each executor, and below it a strip that chooses the time."""
    from bokeh.layouts import column
    from bokeh.models import ColumnDataSource, RangeTool

    begin, end = 0.0, max(found.span, 1e-3)
    height = 90 + 17 * max(4, len(found.lanes))
    lanes = _figure(height, x_range=(begin, end), y_range=(len(found.lanes) - 0.4, -0.6))
    lanes.yaxis.ticker = list(range(len(found.lanes)))
    lanes.yaxis.major_label_overrides = {number: executor for number, executor in enumerate(found.lanes)}
    lanes.ygrid.visible = False
    for name, colour in _coloured(found.names):
        source = ColumnDataSource(_bar_data([bar for bar in found.bars if bar.function == name], found.lanes))
        bars = lanes.quad(
            left="left", right="right", top="top", bottom="bottom", source=source, fill_color=colour,
            fill_alpha="alpha", line_color=None, legend_label=_short(name),
        )  # fmt: skip
        _hover(lanes, bars, function="@function", took="@took", number="@number{0,0}", executor="@executor")
    lost = [bar for bar in found.bars if bar.unsuccessful]
    if lost:
        source = ColumnDataSource(_bar_data(lost, found.lanes))
        # Of a bar that stands for many, only the edge: most of them may have gone well.
        source.data["top"] = [bar.lane + (0.24 if bar.number > 1 else -0.42) for bar in lost]
        marks = lanes.quad(
            left="left", right="right", top="top", bottom="bottom", source=source, fill_alpha=0, line_color=RED,
            hatch_pattern="x", hatch_color=RED, hatch_scale=8, legend_label="failed, cancelled",
        )  # fmt: skip
        _hover(lanes, marks, **{"without result": "@lost{0,0} of @number{0,0}", "function": "@function"})
    _finish(lanes)
    strip = _figure(height=110, x_range=(begin, end), tools="")
    total = [sum(levels) for levels in zip(*found.cells.values(), strict=True)]
    lefts = [number * found.width for number in range(len(total))]
    strip.quad(left=lefts, right=[left + found.width for left in lefts], bottom=0, top=total, color=COLOURS[0])
    strip.y_range.start = 0
    strip.yaxis.axis_label = "at a time"
    strip.xaxis.axis_label = "seconds"
    chooser = RangeTool(x_range=lanes.x_range)
    chooser.overlay.fill_alpha = 0.12
    chooser.overlay.fill_color = GREY
    chooser.overlay.line_color = GREY
    strip.add_tools(chooser)
    return column(lanes, strip, sizing_mode="stretch_width", name="timeline")


def _bar_data(bars: list[Bar], lanes: list[str]) -> dict[str, list[Any]]:
    return {
        "left": [bar.start for bar in bars],
        "right": [max(bar.end, bar.start + 1e-5) for bar in bars],
        "top": [bar.lane - 0.42 for bar in bars],
        "bottom": [bar.lane + 0.42 for bar in bars],
        "alpha": [_alpha(bar) for bar in bars],
        "function": [bar.function for bar in bars],
        "executor": [lanes[bar.lane] for bar in bars],
        "number": [bar.number for bar in bars],
        "lost": [bar.unsuccessful for bar in bars],
        "took": [format_seconds(bar.busy) for bar in bars],
    }


def _alpha(bar: Bar) -> float:
    """Return how strong a bar is: one that stands for many is pale where the executor worked little."""
    return 0.9 if bar.number == 1 else 0.25 + 0.65 * min(1.0, bar.busy / max(1e-9, bar.end - bar.start))


def _cells(found: Analysis) -> Any:
    from bokeh.models import ColumnDataSource

    figure = _figure(name="cells", height=240, x_range=(0.0, max(found.span, 1e-3)))
    num_slices = len(next(iter(found.cells.values())))
    lefts = [number * found.width for number in range(num_slices)]
    below = [0.0] * num_slices
    for name, colour in _coloured(list(found.cells)):
        top = [low + level for low, level in zip(below, found.cells[name], strict=True)]
        data = {
            "left": lefts,
            "right": [left + found.width for left in lefts],
            "bottom": below,
            "top": top,
            "level": found.cells[name],
        }
        bars = figure.quad(
            left="left", right="right", top="top", bottom="bottom", source=ColumnDataSource(data), fill_color=colour,
            line_color=None, legend_label=_short(name),
        )  # fmt: skip
        _hover(figure, bars, cell=_literal(name), **{"at a time": "@level{0.0}"})
        below = top
    figure.y_range.start = 0
    figure.yaxis.axis_label = "at a time"
    figure.xaxis.axis_label = "seconds"
    _finish(figure)
    return figure


def _history(found: Analysis) -> Any:
    from bokeh.models import ColumnDataSource

    figure = _figure(name="history", height=240)
    now = found.history[-1]["time"]
    times = [point["time"] - now for point in found.history]
    for field, label, colour in (("memory_used", "memory", COLOURS[0]), ("store_used", "object stores", COLOURS[1])):
        levels = [point[field] for point in found.history]
        data = {"time": times, "level": levels, "size": [format_nbytes(level) for level in levels]}
        source = ColumnDataSource(data)
        figure.varea(x="time", y1=0, y2="level", source=source, color=colour, fill_alpha=0.25, legend_label=label)
        line = figure.line(x="time", y="level", source=source, color=colour, line_width=2, legend_label=label)
        _hover(figure, line, **{label: "@size", "at": "@time{0} s"})
    figure.y_range.start = 0
    _count_bytes(figure.yaxis)
    figure.xaxis.axis_label = "seconds, up to now"
    _finish(figure)
    return figure


def _memory(found: Analysis) -> Any:
    from bokeh.models import ColumnDataSource

    figure = _figure(name="memory", height=240)
    now = max(points[-1][0] for points in found.memory.values())
    for name, colour in _coloured(list(found.memory)):
        points = found.memory[name]
        data = {
            "time": [time - now for time, _ in points],
            "level": [nbytes for _, nbytes in points],
            "size": [format_nbytes(nbytes) for _, nbytes in points],
        }
        source = ColumnDataSource(data)
        figure.step(
            x="time", y="level", mode="after", source=source, color=colour, line_width=2, legend_label=_short(name)
        )
        dots = figure.scatter(x="time", y="level", source=source, color=colour, size=4, legend_label=_short(name))
        _hover(figure, dots, cell=_literal(name), size="@size", at="@time{0} s")
    figure.y_range.start = 0
    _count_bytes(figure.yaxis)
    figure.xaxis.axis_label = "seconds, up to now"
    _finish(figure)
    return figure


def _values(values: Mapping[str, Mapping[str, int]]) -> Any:
    from bokeh.models import ColumnDataSource, FactorRange

    names = sorted(values, key=lambda name: -sum(values[name].values()))[:MAX_ROWS]
    figure = _figure(name="values", height=110 + 24 * max(2, len(names)), y_range=FactorRange(factors=names[::-1]))
    begin = dict.fromkeys(names, 0)
    places = dict.fromkeys(place for amounts in values.values() for place in amounts)
    for place, colour in _coloured(list(places)):
        amounts = [values[name].get(place, 0) for name in names]
        data = {
            "cell": names,
            "left": [begin[name] for name in names],
            "right": [begin[name] + nbytes for name, nbytes in zip(names, amounts, strict=True)],
            "size": [format_nbytes(nbytes) for nbytes in amounts],
        }
        bars = figure.hbar(
            y="cell", left="left", right="right", height=0.7, source=ColumnDataSource(data), color=colour,
            legend_label=place,
        )  # fmt: skip
        _hover(figure, bars, cell="@cell", place=_literal(place), size="@size")
        begin = {name: begin[name] + nbytes for name, nbytes in zip(names, amounts, strict=True)}
    figure.x_range.start = 0
    _count_bytes(figure.xaxis)
    _finish(figure)
    return figure


def _durations(found: Analysis) -> Any:
    from bokeh.models import ColumnDataSource

    figure = _figure(name="durations", height=260, x_axis_type="log")
    shown = [function for function in found.functions if function.name in found.names and len(function.durations)]
    for function, (name, colour) in zip(shown, _coloured([f.name for f in shown]), strict=True):
        classes = list(function.durations.classes())
        data = {
            "left": [low for low, _, _ in classes],
            "right": [high for _, high, _ in classes],
            "top": [number for _, _, number in classes],
            "between": [f"{format_seconds(low)} to {format_seconds(high)}" for low, high, _ in classes],
        }
        bars = figure.quad(
            left="left", right="right", bottom=0, top="top", source=ColumnDataSource(data), fill_color=colour,
            fill_alpha=0.5, line_color=colour, legend_label=_short(name),
        )  # fmt: skip
        _hover(figure, bars, function=_literal(name), took="@between", number="@top{0,0}")
    figure.y_range.start = 0
    figure.xaxis.axis_label = "seconds"
    figure.yaxis.axis_label = "pieces of work"
    _finish(figure)
    return figure


def _matrix(found: Analysis) -> Any:
    """Draw who got how much from whom: a darker square is more."""
    from bokeh.models import ColumnDataSource, FactorRange

    nodes = found.nodes
    size = 110 + 34 * max(2, min(14, len(nodes)))
    figure = _figure(
        name="transfers", height=size, tools="save", x_range=FactorRange(factors=nodes),
        y_range=FactorRange(factors=nodes[::-1]),
    )  # fmt: skip
    most = max(found.transfers.values())
    squares = [(source, receiver, found.transfers.get((source, receiver), 0)) for source in range(len(nodes))
               for receiver in range(len(nodes))]  # fmt: skip
    data = {
        "source": [nodes[source] for source, _, _ in squares],
        "receiver": [nodes[receiver] for _, receiver, _ in squares],
        "alpha": [0.15 + 0.7 * nbytes / most if nbytes else 0.03 for *_, nbytes in squares],
        "size": [format_nbytes(nbytes) if nbytes else "nothing" for *_, nbytes in squares],
        "written": [format_nbytes(nbytes) if nbytes else "" for *_, nbytes in squares],
    }
    source = ColumnDataSource(data)
    rectangles = figure.rect(
        x="receiver", y="source", width=0.96, height=0.94, source=source, fill_color=COLOURS[5], fill_alpha="alpha",
        line_color=None,
    )  # fmt: skip
    if len(nodes) <= MAX_WRITTEN:
        figure.text(
            x="receiver", y="source", text="written", source=source, text_align="center", text_baseline="middle",
            text_font_size="12px", name="written",
        )  # fmt: skip
    else:
        figure.xaxis.major_label_orientation = 1.0
    _hover(figure, rectangles, **{"from": "@source", "to": "@receiver", "copies": "@size"})
    figure.grid.visible = False
    figure.yaxis.axis_label = "from"
    figure.xaxis.axis_label = "to"
    return figure


def _figure(height: int, tools: str = "xpan,xwheel_zoom,xbox_zoom,reset,save", **options: Any) -> Any:
    from bokeh.plotting import figure

    made = figure(
        height=height,
        sizing_mode="stretch_width",
        tools=tools,
        active_scroll=None,
        background_fill_alpha=0,
        border_fill_alpha=0,
        outline_line_color=None,
        **options,
    )
    made.toolbar.logo = None
    made.grid.grid_line_color = "#888888"
    made.grid.grid_line_alpha = 0.3
    return made


def _hover(figure: Any, bars: Any, **rows: str) -> None:
    from bokeh.models import HoverTool

    figure.add_tools(HoverTool(renderers=[bars], tooltips=list(rows.items()), visible=False))


def _finish(figure: Any) -> None:
    for legend in figure.legend:
        legend.background_fill_alpha = 0
        legend.border_line_color = None
        legend.click_policy = "hide"
        legend.label_text_font_size = "12px"
        figure.add_layout(legend, "right")


def _count_bytes(axis: Any) -> None:
    from bokeh.models import AdaptiveTicker, NumeralTickFormatter

    axis.ticker = AdaptiveTicker(base=1024, mantissas=[2.0**power for power in range(10)])
    axis.formatter = NumeralTickFormatter(format="0 ib")


def _coloured(names: Sequence[str]) -> list[tuple[str, str]]:
    """Return each name with its colour; what is none's in particular is grey."""
    colours = iter(COLOURS * (1 + len(names) // len(COLOURS)))
    return [(name, GREY if name in (OTHERS, NO_CELL) else next(colours)) for name in names]


def _short(name: str) -> str:
    return name if len(name) <= 28 else f"{name[:27]}…"


def _literal(text: str) -> str:
    """Return what a tooltip shows as *text*: ``@`` and ``$`` begin names there."""
    return escape(text).replace("@", "&#64;").replace("$", "&#36;")


def _document(roots: list[Any]) -> Any:
    """Return a document of figures whose text and lines take the page's colours, also when these change."""
    from bokeh.document import Document
    from bokeh.models import CustomJS, Spacer
    from bokeh.plotting import figure

    document = Document()
    for root in roots or [Spacer(width=0, height=0, name="nothing")]:
        document.add_root(root)
    figures = [part for root in roots for part in root.select({"type": figure})]
    args = {
        "axes": [axis for part in figures for axis in part.axis],
        "legends": [legend for part in figures for legend in part.legend],
        "texts": [renderer.glyph for part in figures for renderer in part.select({"name": "written"})],
    }
    document.js_on_event("document_ready", CustomJS(args=args, code=_RECOLOUR))
    return document


_RECOLOUR = """
const paint = () => {
  const style = getComputedStyle(document.documentElement);
  const text = style.getPropertyValue('--text').trim();
  for (const axis of axes) {
    axis.setv({axis_label_text_color: text, major_label_text_color: text, axis_line_color: text,
               major_tick_line_color: text, minor_tick_line_color: null});
  }
  for (const legend of legends) { legend.setv({label_text_color: text, inactive_fill_alpha: 0}); }
  for (const glyph of texts) { glyph.text_color = {value: text}; }
};
paint();
matchMedia('(prefers-color-scheme: dark)').addEventListener('change', paint);
"""

_SCRIPT = """
// The theme of the notebook around the page, or the one that its address names, before the system's.
(() => {
  let theme = new URLSearchParams(location.search).get('theme');
  try {
    const light = parent !== window && parent.document.body.dataset.jpThemeLight;
    if (light) { theme = light === 'true' ? 'light' : 'dark'; }
  } catch (error) { /* the page around is somebody else's */ }
  if (theme === 'light' || theme === 'dark') { document.documentElement.dataset.theme = theme; }
})();
"""

_STYLE = """
:root { color-scheme: light; --text: #262626; --quiet: #595959; --ground: #ffffff; --line: #d0d0d0; }
@media (prefers-color-scheme: dark) {
  :root:not([data-theme="light"]) {
    color-scheme: dark; --text: #e4e4e4; --quiet: #b0b0b0; --ground: #1b1b1b; --line: #484848;
  }
}
:root[data-theme="dark"] {
  color-scheme: dark; --text: #e4e4e4; --quiet: #b0b0b0; --ground: #1b1b1b; --line: #484848;
}
html, body { background: var(--ground); color: var(--text); height: auto; }
body { font: 14px/1.5 system-ui, sans-serif; }
main { max-width: 1200px; margin: 0 auto; padding: 16px 24px 48px; }
h1 { font-size: 22px; margin: 0 0 8px; }
h2 { font-size: 17px; margin: 0 0 4px; }
section { border-top: 1px solid var(--line); padding: 16px 0; }
p { margin: 0 0 6px; max-width: 90ch; }
.figure { margin-top: 8px; }
.quiet { color: var(--quiet); }
.wide { overflow-x: auto; margin: 8px 0; }
table { border-collapse: collapse; }
caption { white-space: nowrap; text-align: left; font-weight: 600; padding: 0 0 4px; }
th, td { padding: 2px 18px 2px 0; text-align: right; border-bottom: 1px solid var(--line); white-space: nowrap; }
th:first-child, td:first-child { text-align: left; }
thead th { color: var(--quiet); font-weight: 600; }
tbody th { font-weight: normal; }
"""

_TEMPLATE = """
{% from macros import embed %}
{% block preamble %}
<meta name="viewport" content="width=device-width, initial-scale=1">
<script>{{ script }}</script>
{% endblock %}
{% block postamble %}<style>{{ style }}</style>{% endblock %}
{% block contents %}
<main>
<header>
<h1>{{ heading }}</h1>
{% for line in summary %}<p>{{ line }}</p>{% endfor %}
</header>
{% for name, title, words, drawn in sections %}
<section aria-labelledby="title-{{ name }}">
<h2 id="title-{{ name }}">{{ title }}</h2>
<p class="quiet" id="words-{{ name }}">{{ words }}</p>
{% if drawn %}
<div class="figure" role="img" aria-labelledby="title-{{ name }}" aria-describedby="words-{{ name }}">
{{ embed(roots[name]) }}
</div>
{% endif %}
{% if name == "durations" %}{{ functions }}{% endif %}
{% if name == "transfers" %}{{ transfers }}{% endif %}
</section>
{% endfor %}
{% if not drawn_any %}<div hidden>{{ embed(roots["nothing"]) }}</div>{% endif %}
</main>
{% endblock %}
"""


def main() -> None:
    snapshot, rows = msgpack.unpackb(sys.stdin.buffer.read(), use_list=False)
    page = render(json.loads(snapshot), [Batch(*row) for row in rows])
    sys.stdout.buffer.write(page.encode(errors="replace"))  # a name may hold what no file can


if __name__ == "__main__":
    main()

__all__ = ["pack", "render"]
