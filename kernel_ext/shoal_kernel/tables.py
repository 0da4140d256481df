"""A table that is read as text in a terminal and as HTML in a notebook."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from html import escape

_STYLE = """
<style>
.shoal-table{font:13px/1.5 var(--jp-ui-font-family,system-ui,sans-serif);color:var(--jp-ui-font-color1,inherit)}
.shoal-table p{margin:0 0 6px}
.shoal-table table{border-collapse:collapse;margin:0 0 6px}
.shoal-table th,.shoal-table td{text-align:left;vertical-align:top;padding:1px 14px 1px 0;border:0;background:none}
</style>
"""


@dataclasses.dataclass(frozen=True)
class Table:
    """Rows under heads, with a note; *title* names it for who cannot see it."""

    title: str
    heads: tuple[str, ...]
    rows: Sequence[tuple[str, ...]]
    #: What is said below the rows, or instead of them.
    note: str = ""

    def __str__(self) -> str:
        rows = [self.heads, *self.rows] if self.rows else []
        widths = [max(len(row[column]) for row in rows) for column in range(len(self.heads))] if rows else []
        lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]
        return "\n".join([*lines, *([self.note] if self.note else [])])

    __repr__ = __str__

    def _repr_html_(self) -> str:
        parts = []
        if self.rows:
            heads = "".join(f'<th scope="col">{escape(head)}</th>' for head in self.heads)
            rows = "".join("<tr>" + "".join(f"<td>{escape(cell)}</td>" for cell in row) + "</tr>" for row in self.rows)
            parts.append(f"<table><thead><tr>{heads}</tr></thead><tbody>{rows}</tbody></table>")
        if self.note:
            parts.append(f"<p>{escape(self.note)}</p>")
        body = "".join(parts)
        return f'{_STYLE}<div class="shoal-table" role="group" aria-label="{escape(self.title)}">{body}</div>'
