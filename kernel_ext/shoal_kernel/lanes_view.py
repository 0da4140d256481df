"""Lanes as HTML and as plain text.

Identical lines at the same position of several lanes are one line with a count; lines that differ, if only in a digit,
never are. Consecutive positions at which the same lanes go together are shown lane by lane, so that what one task says
stays in one place.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Iterator, Sequence
from html import escape

from shoal_kernel.ansi import strip, to_html
from shoal_kernel.flow import Flow, more_lines
from shoal_kernel.lanes import Lane, Row

#: Bytes of HTML at most: while it changes, and of what is saved.
LIVE_NBYTES, SAVED_NBYTES = 16_000, 48_000
#: What is tried to stay below: rows (of all lanes together), lanes, characters of a line.
_SIZES = ((100, 100, 400), (60, 60, 400), (40, 40, 200), (20, 20, 100), (5, 5, 60))
#: Bytes below which a fold is not worth having.
MIN_FOLD = 300

_STYLE = (
    "<style>"
    ".shoal-lanes{font:13px/1.4 var(--jp-code-font-family,monospace);color:var(--jp-content-font-color1,inherit)}"
    ".shoal-lanes div{display:flex;gap:1em;border-top:1px solid var(--jp-border-color3,rgba(128,128,128,.25))}"
    ".shoal-lanes div>b{flex:0 0 9em;overflow-wrap:anywhere;font-weight:600}"
    ".shoal-lanes p,.shoal-lanes summary{margin:0;color:var(--jp-content-font-color2,inherit)}"
    ".shoal-lanes pre{margin:0;padding:0;flex:1;min-width:0;font:inherit;color:inherit;background:none;"
    "white-space:pre-wrap;overflow-wrap:anywhere}"
    ".shoal-lanes .shoal-lanes-err{border-left:2px dashed var(--jp-error-color1,#d0413c);padding-left:4px}"
    ".shoal-lanes .shoal-lanes-note{font-style:italic;color:var(--jp-content-font-color2,inherit)}"
    "</style>"
)


@dataclasses.dataclass(frozen=True)
class Part:
    """Consecutive rows of the lanes that agree on them."""

    lanes: tuple[Lane, ...]
    rows: tuple[Row, ...]


def render_text(lanes: Sequence[Lane]) -> str:
    """Return everything that the lanes hold as plain text."""
    lines = [_headline(lanes)] if len(lanes) > 1 else []
    for part in arrange({lane: list(_placed(lane)) for lane in lanes}):
        label = _label(part.lanes, lanes, None)
        prefix = label if label.startswith("[") else f"({label})"
        lines += [f"{prefix} {strip(row.text)}{_times(row)}" for row in part.rows]
    return "\n".join(lines)


def render_html(lanes: Sequence[Lane], recent: Sequence[Lane], saved: bool) -> str:
    """Return the lanes as HTML without scripts, ids or outside resources.

    Where not everything has room, it has the ends of the lanes in *recent*, which are ordered by when they were last
    written to; if it is to be *saved*, the rest is behind folds, as far as the room goes.
    """
    nbytes = SAVED_NBYTES if saved else LIVE_NBYTES
    for num_rows, num_lanes, width in _SIZES:
        kept = set(recent[-num_lanes:])
        shown = [lane for lane in lanes if lane in kept]
        view = _view(shown, max(1, num_rows // max(1, len(shown))), width, lanes)
        if len(view.encode()) <= nbytes * 2 // 3:
            break
    if saved:
        cut = [lane for lane in lanes if lane not in kept or _is_cut(lane, num_rows // max(1, len(shown)), width)]
        view += "".join(_folds(cut, nbytes - 200 - len(view.encode()) - len(_STYLE)))
    name = f"output of {len(lanes)} task{'s' * (len(lanes) != 1)}"
    return f'{_STYLE}<div class="shoal-lanes" style="display:block" role="group" aria-label="{name}">{view}</div>'


def render_more_html(flows: Sequence[Flow]) -> str:
    """Return what was not printed of streams that go beyond the cap: how much, and the last lines."""
    parts = [
        f"<p>{escape(more_lines(flow.num_hidden, len(flow.rows)))}</p>"
        f"<pre>{chr(10).join(_row_html(row) for row in flow.rows)}</pre>"
        for flow in flows
    ]
    return f'{_STYLE}<div class="shoal-lanes" style="display:block" role="group">{"".join(parts)}</div>'


def render_more_text(flows: Sequence[Flow]) -> str:
    """Return the same as plain text."""
    return "\n".join(
        "\n".join([more_lines(flow.num_hidden, len(flow.rows)), *(strip(row.text) for row in flow.rows)])
        for flow in flows
    )


def arrange(placed: dict[Lane, list[tuple[int, Row]]]) -> Iterator[Part]:
    """Yield the rows of all lanes, which are given with their positions, in the order to show them."""
    at: dict[int, list[tuple[Lane, Row]]] = {}
    for lane, rows in placed.items():
        for position, row in rows:
            at.setdefault(position, []).append((lane, row))
    stretch: dict[tuple[Lane, ...], list[Row]] = {}
    for position in sorted(at):
        groups = _agreeing(at[position])
        taken = {lane for together in stretch for lane in together}
        if any(lane in taken for together in groups if together not in stretch for lane in together):
            yield from _parts(stretch, placed)
            stretch = {}
        for together, row in groups.items():
            stretch.setdefault(together, []).append(row)
    yield from _parts(stretch, placed)


def _agreeing(rows: Iterable[tuple[Lane, Row]]) -> dict[tuple[Lane, ...], Row]:
    """Group the lanes whose rows at one position are the same."""
    groups: dict[tuple[str, str, int], list[tuple[Lane, Row]]] = {}
    for lane, row in rows:
        groups.setdefault((row.kind, row.text, row.count), []).append((lane, row))
    return {tuple(lane for lane, _ in members): members[0][1] for members in groups.values()}


def _parts(stretch: dict[tuple[Lane, ...], list[Row]], order: Iterable[Lane]) -> Iterator[Part]:
    places = {lane: place for place, lane in enumerate(order)}
    for together in sorted(stretch, key=lambda together: places[together[0]]):
        yield Part(together, tuple(stretch[together]))


def _placed(lane: Lane, last: int | None = None, width: int | None = None) -> Iterator[tuple[int, Row]]:
    """Yield the rows of a lane with their positions; only the last, and cut, if that is asked."""
    head = _without_empty_end(lane.screen.rows) if lane.tail is None else lane.screen.rows
    rows = list(enumerate(head))
    if lane.tail is not None:
        end = len(head) + lane.tail.num_hidden
        tail = _without_empty_end(lane.tail.rows)
        if lane.tail.num_hidden:
            rows.append((end, Row("note", more_lines(lane.tail.num_hidden, len(tail)))))
        rows += enumerate(tail, end + 1)
    if last is not None and len(rows) > last:
        earlier = sum(row.count for _, row in rows[:-last])
        position = rows[-last][0] - 1
        rows = rows[-last:]
        yield position, Row("note", f"… {earlier:,} line{'s' * (earlier != 1)} before")
    for position, row in rows:
        yield position, row if width is None or len(row.text) <= width else _shortened(row, width)


def _without_empty_end(rows: list[Row]) -> list[Row]:
    """A bar that is gone leaves an empty line."""
    return rows[:-1] if rows and not rows[-1].ended and not rows[-1].text.strip() else rows


def _shortened(row: Row, width: int) -> Row:
    return Row(row.kind, strip(row.text)[:width] + "…", row.count, row.ended)


def _is_cut(lane: Lane, last: int, width: int) -> bool:
    rows = list(lane.all_rows())
    return len(rows) > max(1, last) or any(len(row.text) > width for row in rows)


def _view(shown: Sequence[Lane], last: int, width: int, lanes: Sequence[Lane]) -> str:
    parts = [f"<p>{escape(_headline(lanes))}</p>"] if len(lanes) > 1 else []
    if len(shown) < len(lanes):
        parts.append(f"<p>… {len(lanes) - len(shown):,} more tasks; those that printed last:</p>")
    for part in arrange({lane: list(_placed(lane, last, width)) for lane in shown}):
        names = escape(", ".join(lane.name for lane in part.lanes[:50]))
        lines = "\n".join(_row_html(row) for row in part.rows)
        label = escape(strip(_label(part.lanes, shown, last)))
        parts.append(f'<div><b title="{names}">{label}</b><pre>{lines}</pre></div>')
    return "".join(parts)


def _row_html(row: Row) -> str:
    html = to_html(row.text) + (f" <b>{_times(row).strip()}</b>" if row.count > 1 else "")
    css = {"stderr": "shoal-lanes-err", "note": "shoal-lanes-note"}.get(row.kind)
    return f'<span class="{css}">{html}</span>' if css else html


def _folds(lanes: Sequence[Lane], nbytes: int) -> Iterator[str]:
    """Yield a fold for each lane, with as much of its text as its share of *nbytes* allows."""
    if not lanes:
        return
    share = nbytes // len(lanes)
    if share < MIN_FOLD:
        yield "<p>The notebook file has all lines, in the plain text of this output.</p>"
        return
    for lane in lanes:
        lines: list[str] = []
        left = share - 200
        rows = [row for _, row in _placed(lane)]
        while rows and left > 0:
            line = escape(strip(rows[-1].text)) + _times(rows[-1])
            left -= len(line.encode()) + 1
            if left > 0:
                lines.append(line)
                rows.pop()
        if rows:
            lines.append(f"… {sum(row.count for row in rows):,} lines before, in the plain text of this output")
        text = "\n".join(reversed(lines))
        yield f"<details><summary>{escape(strip(lane.name)[:40])}: text</summary><pre>{text}</pre></details>"


def _label(together: Sequence[Lane], lanes: Sequence[Lane], last: int | None) -> str:
    """Name lanes that agree. Those that do not are named where it is certain: when all lines of all are shown."""
    if len(together) == 1:
        return together[0].name
    others = [lane for lane in lanes if lane not in set(together)]
    if 0 < len(others) <= 2 < len(together) and not any(_is_windowed(lane, last) for lane in others):
        return f"[{len(together)} tasks, not {' and '.join(lane.name for lane in others)}]"
    return f"[{len(together)} tasks]"


def _is_windowed(lane: Lane, last: int | None) -> bool:
    return lane.tail is not None or (last is not None and len(lane.screen.rows) > last)


def _times(row: Row) -> str:
    return f" \N{MULTIPLICATION SIGN}{row.count:,}" if row.count > 1 else ""


def _headline(lanes: Sequence[Lane]) -> str:
    total = sum(lane.num_lines for lane in lanes)
    return f"{len(lanes):,} tasks, {total:,} line{'s' * (total != 1)}"
