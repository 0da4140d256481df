"""A memory report as HTML and as plain text."""

from __future__ import annotations

from html import escape
from typing import TYPE_CHECKING

from shoal.model.amounts import format_nbytes

if TYPE_CHECKING:
    from shoal.model.memory import MemoryReport, ObjectUse, StoreUse

_HEADS = ("size", "where", "made by", "held by", "object")
_STYLE = """
<style>
.shoal-memory{font:13px/1.5 var(--jp-ui-font-family,system-ui,sans-serif);color:var(--jp-ui-font-color1,inherit)}
.shoal-memory p{margin:0 0 6px}
.shoal-memory table{border-collapse:collapse;margin:0 0 6px}
.shoal-memory th,.shoal-memory td{text-align:left;vertical-align:top;padding:1px 14px 1px 0;border:0;background:none}
.shoal-memory td:first-child,.shoal-memory th:first-child{text-align:right;white-space:nowrap}
</style>
"""


def render_text(report: MemoryReport) -> str:
    """Return the report as plain text."""
    rows = [_HEADS, *map(_cells, report.objects)] if report.objects else []
    widths = [max(len(row[column]) for row in rows) for column in range(len(_HEADS))] if rows else []
    lines = [*map(_store, report.stores)]
    for row in rows:
        cells = [row[0].rjust(widths[0])]
        cells += [cell.ljust(width) for cell, width in zip(row[1:], widths[1:], strict=True)]
        lines.append("  ".join(cells).rstrip())
    return "\n".join([*lines, *_notes(report)])


def render_html(report: MemoryReport) -> str:
    """Return the report as HTML without scripts, ids or outside resources."""
    parts = [f"<p>{escape(_store(store))}</p>" for store in report.stores]
    if report.objects:
        heads = "".join(f'<th scope="col">{head}</th>' for head in _HEADS)
        rows = "".join(
            "<tr>" + "".join(f"<td>{escape(cell)}</td>" for cell in _cells(use)) + "</tr>" for use in report.objects
        )
        parts.append(f"<table><thead><tr>{heads}</tr></thead><tbody>{rows}</tbody></table>")
    parts += [f"<p>{escape(note)}</p>" for note in _notes(report)]
    body = "".join(parts)
    return f'{_STYLE}<div class="shoal-memory" role="group" aria-label="shoal memory">{body}</div>'


def _store(store: StoreUse) -> str:
    if not store.limit:
        return f"object store of {store.node}: no answer"
    disk = f", {format_nbytes(store.on_disk)} on disk" if store.on_disk else ""
    return f"object store of {store.node}: {format_nbytes(store.used)} of {format_nbytes(store.limit)} in use{disk}"


def _cells(use: ObjectUse) -> tuple[str, ...]:
    made_by = use.made_by + (f" in {use.cell}" if use.cell and use.cell != use.made_by else "")
    if use.owner:
        made_by = f"{made_by}, {use.owner}" if made_by else use.owner
    where = (
        use.where + (f" on {len(use.nodes)} nodes" if len(use.nodes) > 1 else "") + (", mapped" if use.mapped else "")
    )
    return format_nbytes(use.nbytes), where, made_by, "; ".join(use.held_by), use.object_id


def _notes(report: MemoryReport) -> list[str]:
    notes = []
    count, nbytes = report.more
    if count:
        notes.append(f"and {count} more, {format_nbytes(nbytes)} together")
    if not report.objects and not count:
        notes.append("no values")
    if report.released is not None:
        notes.append(f"released: {format_nbytes(report.released)}")
    elif report.history_holds:
        notes.append("`%remote memory --release` (`shoal.memory(release=True)`) forgets outputs and tracebacks.")
    return notes
