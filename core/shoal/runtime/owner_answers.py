"""What an owner answers when it is asked through the controller: by the panel, or by another driver."""

from __future__ import annotations

import asyncio
import dataclasses
import time
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any, NamedTuple

from shoal.model import messages as m
from shoal.model.errors import ShoalError
from shoal.model.memory import MemoryReport
from shoal.observe.failures import FailureBook
from shoal.observe.records import CALL, CREATION, KINDS, TASK
from shoal.runtime import memory_reporter, remote_errors
from shoal.runtime.releasing import release_object
from shoal.runtime.work import CREATE

if TYPE_CHECKING:
    from shoal.runtime.owner import Owner
    from shoal.runtime.work import Work

#: Rows of one answer at most, whatever is asked for.
MAX_ROWS = 10_000
#: Seconds that an explanation may take.
EXPLAIN_SECONDS = 5.0
#: Seconds that a node may take to say what is in its store.
STORE_SECONDS = 2.0
#: Characters of a traceback at most: its end.
MAX_TRACEBACK_CHARS = 10_000


class PendingWork(NamedTuple):
    """A task or call that has not ended. ``submitted`` is in Unix seconds; ``state`` is ``queued`` or ``running``.

    ``executor`` is where it was sent, as :class:`shoal.observe.records.Record` has it; "" if it was not.
    """

    task_id: str
    object_id: str
    kind: str
    function: str
    cell: str
    state: str
    submitted: float
    attempt: int
    executor: str


def pending_rows(works: Iterable[Work], executor_of: Callable[[Work], str]) -> tuple[PendingWork, ...]:
    """Return rows of work; ``executor_of(work)`` says where work is that was sent."""
    offset = time.time() - time.monotonic()
    return tuple(_pending_row(work, offset, executor_of(work) if work.sent else "") for work in works)


def _pending_row(work: Work, offset: float, executor: str) -> PendingWork:
    method, recipe = work.target.method, work.recipe
    kind = KINDS[TASK if not method else CREATION if method == CREATE else CALL]
    state = "running" if work.sent else "queued"
    return PendingWork(
        work.task_id, work.object_id, kind, recipe.name, recipe.cell or "", state, work.submitted + offset,
        work.attempt, executor,
    )  # fmt: skip


def memory_row(report: MemoryReport) -> dict[str, Any]:
    """Return a report as plain data: the fields of :class:`MemoryReport`, with a dictionary for each row."""
    return dataclasses.asdict(report)


def failure_rows(book: FailureBook, cell: str) -> tuple[tuple[str, str, int, str, str], ...]:
    """Return cell, function, count, type and first line of the error, and the traceback of the first, by group.

    An empty line stands for errors that came too quickly to be looked at, an empty traceback for one that was too
    large to be kept. Not for the event loop's thread: errors of the user's own types are made again.
    """
    rows = []
    for group in book.groups(cell):
        text = remote_errors.as_text(group.first[1])[-MAX_TRACEBACK_CHARS:] if group.first is not None else ""
        rows.append((group.cell, group.function, group.count, group.summary, text))
    return tuple(rows)


class OwnerAnswers:
    """See the module's description. Lives on the owner's event loop."""

    def __init__(self, owner: Owner) -> None:
        self._owner = owner
        self._topics: dict[str, Callable[..., Any]] = {
            "pending": self._pending,
            "cancel_cell": self._cancel_cell,
            "cancel_task": self._cancel_task,
        }
        #: What takes longer, or runs user code: on a thread of its own.
        self._slow: dict[str, Callable[..., Any]] = {
            "memory": self._memory,
            "release": self._release,
            "release_object": self._release_object,
            "failures": self._failures,
        }

    def add(self, topic: str, function: Callable[..., Any]) -> None:
        """Answer *topic* by a call of *function* in a thread of its own: it may block, and raise ShoalError."""
        self._slow[topic] = function

    def serve(self, question: m.Ask) -> None:
        """Answer a question that the controller has passed on."""
        if question.topic == "explain":
            self._owner.start_soon(self._explain(question))
            return
        if question.topic in self._slow:
            self._owner.start_soon(self._answer_slowly(question))
            return
        answer = self._topics.get(question.topic)
        if answer is None:
            self._reply(question, None, f"an owner knows nothing of `{question.topic}`")
            return
        try:
            self._reply(question, answer(*question.details))
        except (TypeError, ValueError, ShoalError) as error:
            self._reply(question, None, str(error))

    def _reply(self, question: m.Ask, value: Any, failed: str = "") -> None:
        self._owner.controller.tell(m.Answer(question.request, value, failed))

    async def _answer_slowly(self, question: m.Ask) -> None:
        try:
            value = await asyncio.to_thread(self._slow[question.topic], *question.details)
        except ShoalError as error:
            self._reply(question, None, str(error))
        except Exception as error:  # boundary: whoever asked is told
            self._reply(question, None, f"{type(error).__name__}: {error}")
        else:
            self._reply(question, value)

    async def _explain(self, question: m.Ask) -> None:
        topic, subject = (str(detail) for detail in question.details)
        try:
            found = await self._owner.explainer.explain(topic, subject, (), EXPLAIN_SECONDS)
            self._reply(question, found.to_wire())
        except Exception as error:  # boundary: whoever asked is told
            self._reply(question, None, f"{type(error).__name__}: {error}")

    def _pending(self, limit: int) -> tuple[tuple[Any, ...], ...]:
        # What has ended goes first: whoever asks for records next finds each task in one of the two.
        self._owner.report()
        return pending_rows(self._owner.results.pending()[: min(limit, MAX_ROWS)], self.executor_of)

    def _memory(self, limit: int) -> dict[str, Any]:
        return memory_row(memory_reporter.report(self._owner, min(limit, MAX_ROWS), STORE_SECONDS))

    def _release(self) -> dict[str, Any]:
        return memory_row(memory_reporter.release(self._owner, 0, STORE_SECONDS))

    def _release_object(self, object_id: str) -> int:
        return release_object(self._owner, object_id)

    def _failures(self, cell: str = "") -> tuple[tuple[str, str, int, str, str], ...]:
        return failure_rows(self._owner.results.failures, cell)

    def executor_of(self, work: Work) -> str:
        """Return where work was sent: the executor's id, or its address if it has not greeted us."""
        owner = self._owner
        address = owner.actors.address_of(work.task_id) if work.target.method else owner.tasks.address_of(work.task_id)
        stream = owner.peers.stream(address) if address else None
        return stream.peer_id if stream is not None else address

    def _cancel_cell(self, tag: str, force: bool) -> int:
        """Cancel a cell's work; returns how much of it there was."""
        works = [work for work in self._owner.results.pending() if work.recipe.cell == tag]
        self._owner.cancel_cell(tag, force=force)
        return len(works)

    def _cancel_task(self, task_id: str, force: bool) -> int:
        for work in self._owner.results.pending():
            if work.task_id == task_id:
                self._owner.cancel(work.object_id, force=force)
                return 1
        return 0
