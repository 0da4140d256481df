"""A stream of a cell, on its way to the page."""

from __future__ import annotations

from shoal_kernel.ansi import strip
from shoal_kernel.lanes import Budget, Row, Tail


class Flow:
    """Passes text on up to a cap. Of what follows, it keeps the last lines and counts the others."""

    def __init__(self, kind: str, budget: Budget) -> None:
        self._kind = kind
        self._budget = budget
        self._tail: Tail | None = None
        #: Whether what was passed on last did not end its line.
        self._mid_line = False

    @property
    def overflows(self) -> bool:
        """Whether there is text that has not been passed on."""
        return self._tail is not None

    @property
    def num_hidden(self) -> int:
        return self._tail.num_hidden if self._tail is not None else 0

    @property
    def rows(self) -> list[Row]:
        return self._tail.rows if self._tail is not None else []

    def pass_on(self, text: str) -> str:
        """Return how much of *text* reaches the page."""
        if self._budget.spent:
            self._keep(text)
            return ""
        part, rest = self._budget.split(text)
        self._budget.spend(part.count("\n"), len(part))
        self._mid_line = not part.endswith("\n")
        if rest:
            self._keep(rest)
        return part

    def elide(self, num_lines: int, said: str) -> str:
        """Text is missing here; returns what to say about it."""
        if self._budget.spent:
            self._tail = self._tail or Tail(fold=False)
            self._tail.hide_shown()
            self._tail.num_hidden += num_lines
            return ""
        return self.pass_on("\n" * self._mid_line + said + "\n")

    def finish(self) -> str:
        """Return what there is to say about the text that was not passed on, and begin to count anew."""
        if self._tail is None:
            return ""
        head = "\n" * self._mid_line
        self._mid_line = False
        if self._tail.num_hidden:
            head += f"{more_lines(self._tail.num_hidden, len(self._tail.rows))}\n"
        text = head + "".join(f"{strip(row.text)}\n" * row.count for row in self._tail.rows)
        self._tail = None
        return text

    def _keep(self, text: str) -> None:
        self._tail = self._tail or Tail(fold=False)
        self._tail.write(self._kind, text)


def more_lines(num_hidden: int, num_shown: int) -> str:
    """Say how many lines are not shown in front of the last ones."""
    more = f"… {num_hidden:,} more line{'s' * (num_hidden != 1)}"
    return f"{more}, then the last {num_shown}:" if num_shown else more
