"""Tables that are read as text in a terminal and as HTML in a notebook, and the look of all that is shown there."""

from __future__ import annotations

import dataclasses
from collections.abc import Container, Sequence
from html import escape

Rows = Sequence[Sequence[str]]

_STYLE = """
<style>
.shoal-described{font:13px/1.5 var(--jp-ui-font-family,system-ui,sans-serif);color:var(--jp-ui-font-color1,inherit)}
.shoal-described p{margin:0 0 2px}
.shoal-described .shoal-state{border:1px solid currentColor;border-radius:9px;padding:0 7px;margin-left:4px}
.shoal-described table{border-collapse:collapse;margin:0 0 4px}
.shoal-described th,.shoal-described td{text-align:left;vertical-align:top;padding:1px 14px 1px 0;border:0;
background:none}
.shoal-described .shoal-number{text-align:right;white-space:nowrap}
.shoal-described ul{margin:0 0 4px;padding-left:20px}
.shoal-described tbody th{font-weight:normal;color:var(--jp-ui-font-color2,inherit)}
</style>
"""


def table_lines(heads: Sequence[str], rows: Rows, right: Container[int] = ()) -> list[str]:
    """Return the lines of a table as text, each column as wide as its widest cell; none without rows.

    *right* has the numbers of the columns that are aligned to the right.
    """
    if not rows:
        return []
    widths = [max(map(len, column)) for column in zip(heads, *rows, strict=True)]
    return [
        "  ".join(
            cell.rjust(width) if number in right else cell.ljust(width)
            for number, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in (heads, *rows)
    ]


def table_html(heads: Sequence[str], rows: Rows, right: Container[int] = ()) -> str:
    """Return the same as HTML, to be put into :func:`framed`; nothing without rows."""
    if not rows:
        return ""
    kinds = [' class="shoal-number"' if number in right else "" for number in range(len(heads))]
    head = "".join(f'<th scope="col"{kind}>{escape(cell)}</th>' for cell, kind in zip(heads, kinds, strict=True))
    body = "".join(
        "<tr>" + "".join(f"<td{kind}>{escape(cell)}</td>" for cell, kind in zip(row, kinds, strict=True)) + "</tr>"
        for row in rows
    )
    return f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"


def framed(label: str, body: str) -> str:
    """Return HTML without scripts, ids or outside resources: *body*, which *label* names for who cannot see it."""
    return f'{_STYLE}<div class="shoal-described" role="group" aria-label="{escape(label)}">{body}</div>'


@dataclasses.dataclass(frozen=True)
class Table:
    """Rows under heads, with a note; *title* names it for who cannot see it."""

    title: str
    heads: tuple[str, ...]
    rows: Sequence[tuple[str, ...]]
    #: What is said below the rows, or instead of them.
    note: str = ""

    def __str__(self) -> str:
        return "\n".join([*table_lines(self.heads, self.rows), *([self.note] if self.note else [])])

    __repr__ = __str__

    def _repr_html_(self) -> str:
        note = f"<p>{escape(self.note)}</p>" if self.note else ""
        return framed(self.title, table_html(self.heads, self.rows) + note)
