"""Questions for an owner or a node that go through the controller: who asks need not know where they are."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any

from shoal.model import messages as m

#: Why somebody who has left does not answer.
GONE = "is not in this cluster (any more)"
#: Seconds after which nobody waits for an answer any more: longer than anything that is asked may take.
PATIENCE = 600.0
#: Answers one question; ``reply(value, failed)`` is called once.
Reply = Callable[[Any, str], None]


class Relay:
    """Questions that have been passed on and wait for their answers. Lives on the controller's event loop."""

    def __init__(self, send: Callable[[str, m.Message], bool]) -> None:
        """``send(target, message)`` returns whether there is such an owner or node."""
        self._send = send
        self._numbers = itertools.count(1)
        #: From whom an answer is to come, who waits for it, and since when; the oldest first.
        self._waiting: dict[int, tuple[str, Reply, float]] = {}

    def ask(self, question: m.Ask, reply: Reply, now: float) -> None:
        """Pass a question on to its target; *now* is in monotonic seconds."""
        self._expire(now)
        number = next(self._numbers)
        self._waiting[number] = (question.target, reply, now)
        if not self._send(question.target, m.Ask(number, question.topic, question.details)):
            self.gone(question.target)

    def answered(self, target: str, answer: m.Answer) -> None:
        """A target has answered."""
        asked, reply, _ = self._waiting.get(answer.request, ("", None, 0.0))
        if reply is not None and asked == target:
            del self._waiting[answer.request]
            reply(answer.value, answer.failed)

    def _expire(self, now: float) -> None:
        """Give up what was asked :data:`PATIENCE` seconds ago: a target may be there and say nothing."""
        for number, (asked, reply, since) in list(self._waiting.items()):
            if now - since < PATIENCE:
                break
            del self._waiting[number]
            reply(None, f"`{asked}` gave no answer within {PATIENCE:g} s")

    def gone(self, target: str) -> None:
        """A target has left, or was not there: who waits for it is told."""
        for number, (asked, reply, _) in list(self._waiting.items()):
            if asked == target:
                del self._waiting[number]
                reply(None, f"`{target}` {GONE}")
