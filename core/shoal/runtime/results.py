"""Results on their way: which work makes which object, and what follows when it ends."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

from shoal.machines.objects import ObjectTable
from shoal.model.messages import Payload
from shoal.observe.cell_progress import CellBook
from shoal.observe.failures import FailureBook, is_small
from shoal.observe.functions import CANCELLED, FAILED, FINISHED, FunctionStats
from shoal.observe.records import CALL, CREATION, TASK, RecordBuffer
from shoal.runtime import failed_tasks, remote_errors, session
from shoal.runtime import payload as payloads
from shoal.runtime.lineage import lineage_of, made_by
from shoal.runtime.work import CREATE, Work


class Results:
    """See the module's description. Lives on the owner's event loop."""

    def __init__(self, table: ObjectTable, free: Callable[[Payload], None], on_news: Callable[[], None]) -> None:
        """``free(payload)`` releases what nobody takes; ``on_news()`` follows each change of the counts."""
        self._table = table
        self._free = free
        self._on_news = on_news
        #: Work that has not ended, by the id of its object.
        self._awaited: dict[str, Work] = {}
        self.stats = FunctionStats()
        self.records = RecordBuffer(time.time() - time.monotonic())
        self.failures = FailureBook()
        self.cells = CellBook(time.monotonic, self.stats.note, session.tell_work_watcher)
        #: Called with work that has ended; for whoever counts it.
        self.on_end: dict[str, Callable[[Work], None]] = {}

    def expect(self, work: Work) -> None:
        """Work was submitted."""
        self._awaited[work.object_id] = work
        work.submitted = time.monotonic()
        work.tally = self.cells.submit(work.recipe.cell, work.target.name)

    def awaited(self, work: Work) -> bool:
        """Whether work has not ended."""
        return work.object_id in self._awaited

    def maker(self, object_id: str) -> Work | None:
        """Return the work that is to make an object, if it has not ended."""
        return self._awaited.get(object_id.partition(".")[0])

    @property
    def is_idle(self) -> bool:
        """Whether all work has ended; on any thread."""
        return not self._awaited

    def pending(self) -> list[Work]:
        return list(self._awaited.values())

    def sent(self, work: Work) -> None:
        """Work has been sent to an executor."""
        if not work.sent:
            work.sent = True
            if work.tally is not None:
                work.tally.send()
        self._on_news()

    def unsent(self, work: Work) -> None:
        """It came back without having begun."""
        if work.sent:
            work.sent = False
            if work.tally is not None:
                work.tally.take_back()

    def sent_again(self, work: Work, attempt: int) -> None:
        """Work that may have begun before has been sent once more."""
        work.attempt = attempt
        if work.tally is not None:
            work.tally.retries += 1

    def complete(
        self,
        work: Work,
        payload: Payload,
        contained: Sequence[object] = (),
        *,
        failed: bool,
        seconds: float = 0.0,
        executor: str = "",
    ) -> None:
        """Work has ended: hand its value to whoever waits and let go what it needed.

        It took *seconds* in *executor*; "" if it did not run.
        """
        if self._awaited.pop(work.object_id, None) is None:
            self._free(payload)
            return
        if failed:
            failed_tasks.note(work)
            self._count_failure(work, payload, seconds, executor)
        elif work.tally is not None:
            work.tally.finish(work.sent, seconds, executor)
            self._record(work, seconds, executor, FINISHED)
        self._on_news()
        if self.on_end:
            ended = self.on_end.pop(work.task_id, None)
            if ended is not None:
                ended(work)
        if work.yields is not None:
            work.yields.ended(payload)
        elif work.recipe.num_returns == 1:
            self._ready(work, work.object_id, payload, contained)
        else:
            self._complete_many(work, payload, contained)
        if work.args[0] == payloads.SEGMENT and work.target.method != CREATE:
            self._free(work.args)

    def forget(self, error: Payload) -> None:
        """Nothing of it will end any more but with *error*; the caller tells those who wait."""
        for work in self._awaited.values():
            self._count_failure(work, error)
        self._awaited.clear()

    def _count_failure(self, work: Work, error: Payload, seconds: float = 0.0, executor: str = "") -> None:
        tag = work.recipe.cell
        cell = self.cells.find(tag) if tag is not None and not work.cancelled else None
        if cell is not None and cell.wants_failures:
            if payloads.is_error(error):  # it is kept to be shown, not to be looked into
                error = (payloads.ERROR, remote_errors.without_variables(error[1]))
            cell.note_failure(work.target.name, error)
        outcome = CANCELLED if work.cancelled else FAILED
        if work.tally is not None:
            work.tally.fail(work.sent, seconds, executor, outcome)
        told = payloads.is_error(error) and self.records.error_room > 0
        summary = remote_errors.summary(error[1]) if told else ""
        if outcome == FAILED:
            group = self.failures.note(tag or "", work.target.name, summary)
            if told and group.count == 1 and is_small(error):
                group.first = (payloads.ERROR, remote_errors.without_variables(error[1]))
        self._record(work, seconds, executor, outcome, summary)

    def _record(self, work: Work, seconds: float, executor: str, outcome: int, error: str = "") -> None:
        method, recipe = work.target.method, work.recipe
        kind = TASK if not method else CREATION if method == CREATE else CALL
        now = time.monotonic()
        self.records.note(
            (
                work.task_id, kind, recipe.name, recipe.cell or "", work.submitted, now, seconds, executor, outcome,
                work.attempt, error,
            )
        )  # fmt: skip

    def _complete_many(self, work: Work, payload: Payload, contained: Sequence[object]) -> None:
        several = payload[0] == payloads.MANY
        for index in range(work.recipe.num_returns):
            refs: Sequence[object] = contained[index] if several else ()  # type: ignore[assignment]
            self._ready(work, f"{work.object_id}.{index}", payload[index + 1] if several else payload, refs)

    def _ready(self, work: Work, object_id: str, payload: Payload, contained: Sequence[object]) -> None:
        # What is small needs no lineage; who made it is still worth knowing.
        lineage = lineage_of(work, self._table) if payload[0] == payloads.SEGMENT else made_by(work)
        if not self._table.ready(object_id, payload, contained, lineage):
            self._free(payload)
