"""The owner's actor machine: calls on their way to actors, in the order each caller made them.

One :class:`ActorCalls` per actor that this process has called. Calls wait until the actor has an address and until the
values they need are ready; a call never overtakes an earlier one of the same caller. When the actor is restarted,
calls that were under way are made again if they may be, ahead of the others.
"""

from __future__ import annotations

import dataclasses
from typing import Any

from shoal.model.options import ENDLESS


@dataclasses.dataclass(slots=True)
class Call:
    """One method call. ``spec`` is the I/O shell's; ``ready`` turns true when its arguments are there."""

    task_id: str
    spec: Any
    #: How often it may be made again after the actor's process died under it; -1 for no end.
    retries_left: int = 0
    attempt: int = 0
    ready: bool = False


@dataclasses.dataclass(slots=True)
class ActorCalls:
    """Calls to one actor. Events are methods; those that can make calls sendable return them, in order."""

    actor_id: str
    #: Where the actor is; "" until it lives, and while it restarts.
    address: str = ""
    executor_id: str = ""
    #: This process has had it killed: what is called from now on is not for the process that still lives.
    held: bool = False
    #: The connection to it is lost: calls wait until there is another.
    cut: bool = False
    #: Why the actor is dead; "" while it is not.
    cause: str = ""
    stderr: str = ""
    #: The I/O shell's answer to every call from then on, where it has a better one than the cause.
    verdict: Any = None
    #: Calls not sent yet and calls not answered yet, by task id, in the order made.
    queue: dict[str, Call] = dataclasses.field(default_factory=dict)
    sent: dict[str, Call] = dataclasses.field(default_factory=dict)

    @property
    def dead(self) -> bool:
        return bool(self.cause)

    def add(self, call: Call) -> None:
        """A call was made. The caller checks :attr:`dead` first."""
        self.queue[call.task_id] = call

    def alive(self, address: str, executor_id: str) -> list[Call]:
        self.address, self.executor_id, self.held, self.cut = address, executor_id, False, False
        return self.sendable()

    def sendable(self) -> list[Call]:
        """Take the calls that can leave now; they count as sent."""
        calls: list[Call] = []
        if not self.address or self.held or self.cut:
            return calls
        for call in self.queue.values():
            if not call.ready:
                break
            calls.append(call)
        for call in calls:
            del self.queue[call.task_id]
            self.sent[call.task_id] = call
        return calls

    def unsent(self, calls: list[Call]) -> None:
        """Calls that were taken could not leave: the connection has just been lost."""
        self.cut = True
        for call in calls:
            self.sent.pop(call.task_id, None)
        self.queue = {call.task_id: call for call in calls} | self.queue

    def restarting(self) -> list[Call]:
        """The actor's process, or the connection to it, is gone and another will come.

        Returns the calls that were lost with it, in order.
        """
        lost = [call for call in self.sent.values() if call.retries_left == 0]
        again = [call for call in self.sent.values() if call.retries_left != 0]
        for call in again:
            self._use_retry(call)
        self.address = ""
        self.sent.clear()
        self.queue = {call.task_id: call for call in (*again, *self.queue.values())}
        return lost

    def again(self, task_id: str) -> list[Call]:
        """A call has failed and is to be made once more; the caller has checked that it may be."""
        call = self.sent.pop(task_id)
        self._use_retry(call)
        self.queue = {task_id: call, **self.queue}
        return self.sendable()

    def died(self, cause: str, stderr: str) -> list[Call]:
        """The actor is gone for good; returns every call that will not be answered, in order."""
        self.cause, self.stderr, self.address = cause or "it ended", stderr, ""
        calls = [*self.sent.values(), *self.queue.values()]
        self.sent.clear()
        self.queue.clear()
        return calls

    def finished(self, task_id: str) -> Call | None:
        return self.sent.pop(task_id, None)

    def cancel(self, task_id: str) -> Call | None:
        """Take a call out of the queue; returns None if it was sent already (or has ended)."""
        return self.queue.pop(task_id, None)

    @staticmethod
    def _use_retry(call: Call) -> None:
        call.attempt += 1
        if call.retries_left != ENDLESS:
            call.retries_left -= 1
