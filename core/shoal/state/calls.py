"""The owner's actor machine: calls on their way to actors, in the order each caller made them.

One :class:`ActorCalls` per handle's actor. Calls wait until the actor has an address and until the values they
need are ready; a call never overtakes an earlier one of the same caller.
"""

from __future__ import annotations

import dataclasses
from collections import deque
from typing import Any


@dataclasses.dataclass(slots=True)
class Call:
    """One method call. ``spec`` is the I/O shell's; ``ready`` turns true when its arguments are there."""

    task_id: str
    spec: Any
    ready: bool = False
    cancelled: bool = False


@dataclasses.dataclass(slots=True)
class ActorCalls:
    """Calls to one actor. Events are methods; those that can make calls sendable return them, in order."""

    actor_id: str
    #: Where the actor is; "" until it lives.
    address: str = ""
    executor_id: str = ""
    #: Why the actor is dead; "" while it is not.
    cause: str = ""
    stderr: str = ""
    #: The I/O shell's answer to every call from then on, where it has a better one than the cause.
    verdict: Any = None
    queue: deque[Call] = dataclasses.field(default_factory=deque)
    sent: dict[str, Call] = dataclasses.field(default_factory=dict)

    @property
    def dead(self) -> bool:
        return bool(self.cause)

    def add(self, call: Call) -> None:
        """A call was made. The caller checks :attr:`dead` first."""
        self.queue.append(call)

    def alive(self, address: str, executor_id: str) -> list[Call]:
        self.address, self.executor_id = address, executor_id
        return self.sendable()

    def sendable(self) -> list[Call]:
        """Take the calls that can leave now; they count as sent."""
        calls: list[Call] = []
        while self.address and self.queue and self.queue[0].ready:
            call = self.queue.popleft()
            self.sent[call.task_id] = call
            calls.append(call)
        return calls

    def died(self, cause: str, stderr: str) -> list[Call]:
        """The actor is gone for good; returns every call that will not be answered, in order."""
        self.cause, self.stderr, self.address = cause or "it ended", stderr, ""
        calls = [*self.sent.values(), *self.queue]
        self.sent.clear()
        self.queue.clear()
        return calls

    def finished(self, task_id: str) -> Call | None:
        return self.sent.pop(task_id, None)

    def cancel(self, task_id: str) -> Call | None:
        """Take a call out of the queue; returns None if it was sent already (or has ended)."""
        for call in self.queue:
            if call.task_id == task_id:
                self.queue.remove(call)
                return call
        return None
