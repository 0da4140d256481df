"""What something is, for people: the text and the HTML that a notebook shows for it."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from html import escape

_STYLE = """
<style>
.shoal-described{font:13px/1.5 var(--jp-ui-font-family,system-ui,sans-serif);color:var(--jp-ui-font-color1,inherit)}
.shoal-described p{margin:0 0 2px}
.shoal-described .shoal-state{border:1px solid currentColor;border-radius:9px;padding:0 7px;margin-left:4px}
.shoal-described table{border-collapse:collapse;margin:0 0 4px}
.shoal-described th,.shoal-described td{text-align:left;vertical-align:top;padding:1px 14px 1px 0;border:0;
background:none}
.shoal-described ul{margin:0 0 4px;padding-left:20px}
.shoal-described tbody th{font-weight:normal;color:var(--jp-ui-font-color2,inherit)}
</style>
"""


@dataclasses.dataclass(frozen=True, slots=True)
class Description:
    """A title, and below it facts, a table, notes: each only if there are any."""

    title: str
    state: str = ""
    #: Pairs of label and words.
    facts: tuple[tuple[str, str], ...] = ()
    heads: tuple[str, ...] = ()
    rows: tuple[tuple[str, ...], ...] = ()
    notes: tuple[str, ...] = ()

    @property
    def text(self) -> str:
        """The description as plain text."""
        lines = [f"{self.title}: {self.state}" if self.state else self.title]
        lines += [f"  {label}: {words}" for label, words in self.facts]
        if self.rows:
            lines += [f"  {line}" for line in _aligned([self.heads, *self.rows])]
        return "\n".join([*lines, *(f"  {note}" for note in self.notes)])

    @property
    def html(self) -> str:
        """The description as HTML without scripts, ids or outside resources."""
        state = f' <span class="shoal-state">{escape(self.state)}</span>' if self.state else ""
        parts = [f"<p>{escape(self.title)}{state}</p>"]
        if self.facts:
            facts = (
                f'<tr><th scope="row">{escape(label)}</th><td>{escape(words)}</td></tr>' for label, words in self.facts
            )
            parts.append(f"<table><tbody>{''.join(facts)}</tbody></table>")
        if self.rows:
            heads = "".join(f'<th scope="col">{escape(head)}</th>' for head in self.heads)
            rows = ("".join(f"<td>{escape(cell)}</td>" for cell in row) for row in self.rows)
            body = "".join(f"<tr>{row}</tr>" for row in rows)
            parts.append(f"<table><thead><tr>{heads}</tr></thead><tbody>{body}</tbody></table>")
        parts += [f"<p>{escape(note)}</p>" for note in self.notes]
        return framed(self.title, "".join(parts))


def framed(label: str, body: str) -> str:
    """Return HTML with the look of descriptions around it."""
    return f'{_STYLE}<div class="shoal-described" role="group" aria-label="{escape(label)}">{body}</div>'


def describe_safely(describe: Callable[[], Description], title: str) -> dict[str, str]:
    """Return the MIME bundle of what *describe* returns; if it cannot, of *title* and the reason."""
    try:
        found = describe()
        return {"text/plain": found.text, "text/html": found.html}
    except Exception as error:  # boundary: whatever is wrong, showing a value must not fail
        said = (str(error) or type(error).__name__).splitlines()[0]
        found = Description(title, "unknown", (("reason", said),))
        return {"text/plain": found.text, "text/html": found.html}


def _aligned(rows: Sequence[tuple[str, ...]]) -> list[str]:
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]
