"""The film of a cell: a picture of when its work was done, and the same as a table.

While there are few tasks, each is a bar in the lane of its executor; of many, the height says how much was done at a
time. The picture is an SVG inside an ``<img>``: JupyterLab and others strip ``<svg>`` from notebooks they do not trust
and let images through. It therefore knows nothing of the page's theme, and its colours stand out from light and dark.
"""

from __future__ import annotations

import base64
import dataclasses
from collections.abc import Iterable, Sequence
from html import escape

from shoal.observe.progress_words import describe_seconds
from shoal.observe.timeline import FAILED, FINISHED, MAX_SPANS, Slice, Span, Timeline

#: The picture's width and the height of one of many, in its own pixels; lanes shown as such.
WIDTH, AREA_HEIGHT, MAX_LANES = 600, 48, 24
#: Height of a lane, and of the bar in it.
_LANE, _BAR = 10, 8
_DONE, _FAILED, _CANCELLED = "#4a90c8", "#d9534f", "#8a8a8a"
#: Rows of the table.
_NUM_ROWS = 10
#: Characters for how much was done at a time, in plain text.
_LEVELS = "▁▂▃▄▅▆▇█"


@dataclasses.dataclass(frozen=True)
class Film:
    """When the work of a cell was done.

    Attributes
    ----------
    length
        Seconds from the first submission to the last end.
    width
        Seconds of each slice.
    spans
        Each piece of work, if there are few enough; else empty.
    """

    length: float
    width: float
    slices: list[Slice]
    spans: list[Span]

    @classmethod
    def of(cls, timeline: Timeline) -> Film:
        spans = list(timeline.spans)
        few = len(spans) < MAX_SPANS and len(timeline.lanes) <= MAX_LANES
        length = max(timeline.last_end - timeline.origin, 0.001)
        return cls(length, timeline.width, timeline.slices(), spans if few else [])


def render_picture(film: Film) -> str:
    """Return the picture as an ``<img>`` that says in words what it shows."""
    drawing, height = _lanes(film) if film.spans else _area(film)
    svg = f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}">{drawing}</svg>'
    data = base64.b64encode(svg.encode()).decode()
    return (
        f'<img alt="{escape(_describe(film))}" width="{WIDTH}" height="{height}" style="max-width:100%;height:auto" '
        f'src="data:image/svg+xml;base64,{data}">'
    )


def render_table(film: Film) -> str:
    """Return the film as the rows of a table."""
    rows = "".join(
        f'<tr><th scope="row">{escape(from_)}</th>'
        f"<td>{at_work:.1f}</td><td>{ended:,}</td><td>{unsuccessful:,}</td></tr>"
        for from_, at_work, ended, unsuccessful in _rows(film)
    )
    heads = "".join(f'<th scope="col">{head}</th>' for head in ("from", "at work", "ended", "of these without result"))
    return f"<table><thead><tr>{heads}</tr></thead><tbody>{rows}</tbody></table>"


def render_text(film: Film) -> str:
    """Return the film as a line of text."""
    heights = [slice_.busy / film.width for slice_ in _fewer(film.slices, 40)]
    most = max(heights, default=0.0) or 1.0
    bars = "".join(_LEVELS[min(7, int(8 * height / most))] for height in heights)
    return f"|{bars}| {describe_seconds(film.length)}"


def _describe(film: Film) -> str:
    if film.spans:
        lanes = 1 + max(span.lane for span in film.spans)
        return f"Film of the cell: {len(film.spans)} tasks in {lanes} lanes, one for each executor; the table has more"
    most = max((slice_.busy / film.width for slice_ in film.slices), default=0.0)
    return f"Film of the cell: how much was done at a time, {most:.1f} at most; the table has more"


def _lanes(film: Film) -> tuple[str, int]:
    scale = WIDTH / film.length
    height = _LANE * (1 + max(span.lane for span in film.spans))
    done = "".join(_bar(span, scale) for span in film.spans if span.outcome == FINISHED)
    failed = "".join(_crossed(span, scale) for span in film.spans if span.outcome == FAILED)
    rest = "".join(_crossed(span, scale) for span in film.spans if span.outcome not in (FINISHED, FAILED))
    return f'<path fill="{_DONE}" d="{done}"/>{_outlined(failed, _FAILED)}{_outlined(rest, _CANCELLED)}', height


def _bar(span: Span, scale: float) -> str:
    left, width = span.start * scale, max(1.0, (span.end - span.start) * scale - 0.5)
    return f"M{left:.1f} {span.lane * _LANE + 1}h{width:.1f}v{_BAR}h-{width:.1f}z"


def _crossed(span: Span, scale: float) -> str:
    """An empty bar with a line through it: told apart without colour."""
    width = max(1.0, (span.end - span.start) * scale - 0.5)
    return f"{_bar(span, scale)}l{width:.1f} {_BAR}"


def _outlined(path: str, colour: str) -> str:
    return f'<path fill="none" stroke="{colour}" stroke-width="1.5" d="{path}"/>' if path else ""


def _area(film: Film) -> tuple[str, int]:
    heights = [slice_.busy / film.width for slice_ in film.slices]
    most = max(heights, default=0.0) or 1.0
    step = WIDTH / len(heights)
    edge = "".join(f"V{AREA_HEIGHT * (1 - height / most):.1f}h{step:.2f}" for height in heights)
    marks = "".join(
        f"M{number * step:.1f} {AREA_HEIGHT - 6}l{step / 2:.1f} 6l{step / 2:.1f} -6z"
        for number, slice_ in enumerate(film.slices)
        if slice_.unsuccessful
    )
    flaws = f'<path fill="{_FAILED}" stroke="#fff" stroke-width=".5" d="{marks}"/>' if marks else ""
    return f'<path fill="{_DONE}" d="M0 {AREA_HEIGHT}{edge}V{AREA_HEIGHT}z"/>{flaws}', AREA_HEIGHT


def _rows(film: Film) -> Iterable[tuple[str, float, int, int]]:
    together = _fewer(film.slices, _NUM_ROWS, add=True)
    per_row = -(-len(film.slices) // _NUM_ROWS)
    for number, slice_ in enumerate(together):
        begin = number * per_row * film.width
        length = min(per_row * film.width, max(film.length - begin, film.width / 10))
        yield describe_seconds(begin), slice_.busy / length, slice_.ended, slice_.unsuccessful


def _fewer(slices: Sequence[Slice], limit: int, *, add: bool = False) -> list[Slice]:
    """Put neighbours together until there are *limit* at most: their means, or with *add* their sums."""
    size = -(-len(slices) // limit)
    groups = [slices[start : start + size] for start in range(0, len(slices), size)]
    return [
        Slice(
            sum(slice_.busy for slice_ in group) / (1 if add else len(group)),
            sum(slice_.ended for slice_ in group),
            sum(slice_.unsuccessful for slice_ in group),
        )
        for group in groups
    ]
