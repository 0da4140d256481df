"""A memory report as HTML and as plain text."""

from __future__ import annotations

from html import escape
from typing import TYPE_CHECKING

from shoal.model.amounts import format_nbytes
from shoal.model.tables import framed, table_html, table_lines

if TYPE_CHECKING:
    from shoal.model.memory import MemoryReport, ObjectUse, StoreUse

_HEADS = ("size", "where", "made by", "held by", "object")
#: The columns of numbers.
_RIGHT = (0,)


def render_text(report: MemoryReport) -> str:
    """Return the report as plain text."""
    lines = table_lines(_HEADS, list(map(_cells, report.objects)), _RIGHT)
    return "\n".join([*map(_store, report.stores), *lines, *_notes(report)])


def render_html(report: MemoryReport) -> str:
    """Return the report as HTML without scripts, ids or outside resources."""
    stores = "".join(f"<p>{escape(_store(store))}</p>" for store in report.stores)
    notes = "".join(f"<p>{escape(note)}</p>" for note in _notes(report))
    return framed("shoal memory", stores + table_html(_HEADS, list(map(_cells, report.objects)), _RIGHT) + notes)


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
