"""What :func:`shoal.why` answers: a tree of states, each with what it follows from."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Iterator
from html import escape
from typing import Any

from shoal.model.tables import framed

#: What an explanation's ``state`` can be.
STATES = (
    "ready",  # the value is there
    "failed",  # the work has ended with an error
    "needs data",  # it waits for its arguments
    "needs resources",  # no node has room for it now
    "needs its actor",  # the actor does not live yet, or is being restarted
    "waits its turn",  # it lies behind other work on the same executor
    "starts",  # a place was found, and a process is being prepared
    "runs",
    "waits",  # it has begun, and waits for something itself
    "idle",  # an actor without work
    "dead",  # an actor that has ended
    "deadlock",  # it waits for itself
    "unknown",
)


@dataclasses.dataclass(frozen=True, slots=True)
class Explanation:
    """Why something is as it is; printed, it is a tree.

    Attributes
    ----------
    subject
        What this is about, in words.
    state
        One of :data:`STATES`.
    detail
        Where, since when, how many.
    advice
        What would help; "" if there is nothing to do but to wait.
    causes
        What it waits for.
    """

    subject: str
    state: str
    detail: str = ""
    advice: str = ""
    causes: tuple[Explanation, ...] = ()

    @property
    def deadlock(self) -> bool:
        """Whether something in here waits for itself, so that waiting is of no use."""
        return any(part.state == "deadlock" for part in self.walk())

    def walk(self) -> Iterator[Explanation]:
        """Give this explanation and all causes, the causes of those included."""
        yield self
        for cause in self.causes:
            yield from cause.walk()

    def to_wire(self) -> tuple[Any, ...]:
        return self.subject, self.state, self.detail, self.advice, tuple(cause.to_wire() for cause in self.causes)

    @staticmethod
    def from_wire(fields: Iterable[Any]) -> Explanation:
        subject, state, detail, advice, causes = fields
        return Explanation(subject, state, detail, advice, tuple(map(Explanation.from_wire, causes)))

    def __str__(self) -> str:
        return "\n".join([*self._lines(""), *(f"What would help: {text}" for text in self._advice())])

    __repr__ = __str__

    def _repr_mimebundle_(self, include: object = None, exclude: object = None) -> dict[str, str]:
        advice = "".join(f"<p>What would help: {escape(text)}</p>" for text in self._advice())
        return {
            "text/plain": str(self),
            "text/html": framed(f"why {self.subject}", f"<ul>{self._as_item()}</ul>{advice}"),
        }

    def _advice(self) -> Iterable[str]:
        return dict.fromkeys(part.advice for part in self.walk() if part.advice)

    def _as_item(self) -> str:
        detail = f" {escape(self.detail)}" if self.detail else ""
        causes = "".join(cause._as_item() for cause in self.causes)
        below = f"<ul>{causes}</ul>" if causes else ""
        return f'<li>{escape(self.subject)} <span class="shoal-state">{escape(self.state)}</span>{detail}{below}</li>'

    def _lines(self, indent: str) -> Iterator[str]:
        yield f"{self.subject}: {self.state}" + (f" ({self.detail})" if self.detail else "")
        for number, cause in enumerate(self.causes, 1):
            last = number == len(self.causes)
            for position, line in enumerate(cause._lines("")):
                branch = ("└─ " if last else "├─ ") if position == 0 else ("   " if last else "│  ")
                yield indent + branch + line
