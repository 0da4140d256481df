"""What something is, for people: the text and the HTML that a notebook shows for it."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from html import escape

from shoal.model.tables import framed, table_html, table_lines


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
        lines += [f"  {line}" for line in table_lines(self.heads, self.rows)]
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
        parts.append(table_html(self.heads, self.rows))
        parts += [f"<p>{escape(note)}</p>" for note in self.notes]
        return framed(self.title, "".join(parts))


def describe_safely(describe: Callable[[], Description], title: str) -> dict[str, str]:
    """Return the MIME bundle of what *describe* returns; if it cannot, of *title* and the reason."""
    try:
        found = describe()
        return {"text/plain": found.text, "text/html": found.html}
    except Exception as error:  # boundary: whatever is wrong, showing a value must not fail
        said = (str(error) or type(error).__name__).splitlines()[0]
        found = Description(title, "unknown", (("reason", said),))
        return {"text/plain": found.text, "text/html": found.html}
