"""The newest tasks and calls that somebody asks for, found among records and what is pending, in columns."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from shoal.model.cells import cell_name
from shoal.observe.records import Batch, unpack

#: States that can be asked for, and what a task's own state is then.
STATES = {
    "pending": ("queued", "running"),
    "queued": ("queued",),
    "running": ("running",),
    "finished": ("finished",),
    "failed": ("failed",),
    "cancelled": ("cancelled",),
}
NAMES = (
    "task_id", "kind", "function", "cell", "state", "owner", "node", "executor", "submitted", "started", "ended",
    "seconds", "attempt", "error", "cell_id",
)  # fmt: skip


class TaskQuery(NamedTuple):
    """Which tasks are wanted; "" for any."""

    #: A cell's tag, or what people call it.
    cell: str = ""
    function: str = ""
    #: One of :data:`STATES`.
    state: str = ""

    @property
    def wants_pending(self) -> bool:
        return not self.state or self.state in ("pending", "queued", "running")

    @property
    def wants_ended(self) -> bool:
        return self.state not in ("pending", "queued", "running")


class TaskRows:
    """See the module's description. Add what is pending first, then batches from the newest to the oldest.

    Parameters
    ----------
    query, limit
        What is wanted, and how much of it.
    nodes
        The node of each executor.
    """

    def __init__(self, query: TaskQuery, limit: int, nodes: Mapping[str, str]) -> None:
        self._query = query
        self._room = limit
        self._nodes = nodes
        self._columns: dict[str, list[Any]] = {name: [] for name in NAMES}
        self._pending: set[str] = set()
        #: What is pending, until it is known what has ended meanwhile.
        self._pending_rows: list[tuple[str, Sequence[Any]]] = []

    @property
    def is_full(self) -> bool:
        return self._room <= 0

    def add_batch(self, batch: Batch) -> None:
        """Add what is wanted of a batch.

        Raises
        ------
        ValueError
            It cannot be read.
        """
        found = unpack(batch.packed)
        indexes: Iterable[int] = range(len(found.task_ids) - 1, -1, -1)
        query = self._query
        if query.function:
            indexes = [index for index in indexes if found.functions[index] == query.function]
        if query.cell:
            is_wanted = self._cell_test()
            indexes = [index for index in indexes if is_wanted(found.cells[index])]
        if query.state:
            indexes = [index for index in indexes if found.outcomes[index] == query.state]
        indexes = list(indexes)[: self._room]
        self._room -= len(indexes)
        if not indexes:
            return
        executors = [found.executors[index] for index in indexes]
        ended = [found.ended[index] for index in indexes]
        seconds = [found.seconds[index] for index in indexes]
        submitted = [found.submitted[index] for index in indexes]
        started = [
            max(begin, end - took) if executor else math.nan
            for begin, end, took, executor in zip(submitted, ended, seconds, executors, strict=True)
        ]
        cells = [found.cells[index] for index in indexes]
        errors = found.errors
        self._extend(
            [found.task_ids[index] for index in indexes],
            [found.kinds[index] for index in indexes],
            [found.functions[index] for index in indexes],
            _names_of(cells),
            [found.outcomes[index] for index in indexes],
            [batch.owner] * len(indexes),
            [self._nodes.get(executor, "") for executor in executors],
            executors, submitted, started, ended, seconds,
            [found.attempts[index] for index in indexes],
            [errors.get(index, "") for index in indexes],
            cells,
        )  # fmt: skip

    def add_pending(self, owner: str, rows: Iterable[Sequence[Any]]) -> None:
        """Add what is wanted of the rows (:class:`shoal.runtime.owner_answers.PendingWork`) of an owner."""
        states, is_wanted = STATES.get(self._query.state, ("queued", "running")), self._cell_test()
        for row in rows:
            _, _, _, function, cell, state, *_ = row
            if state in states and self._query.function in ("", function) and is_wanted(cell):
                self._pending_rows.append((owner, row))
        self._pending_rows.sort(key=lambda found: -found[1][6])
        del self._pending_rows[self._room :]

    def begin_ended(self) -> None:
        """What is pending is complete; what has ended comes now."""
        self._room -= len(self._pending_rows)

    def columns(self) -> dict[str, list[Any]]:
        """Return the columns: what is pending, the newest first, then what has ended, the newest first."""
        ended = self._columns
        times = ended["ended"]
        if any(after > before for before, after in itertools.pairwise(times)):
            order = sorted(range(len(times)), key=times.__getitem__, reverse=True)
            ended = {name: [column[index] for index in order] for name, column in ended.items()}
        self._columns = {name: [] for name in NAMES}
        known = set(ended["task_id"])
        for owner, row in self._pending_rows:
            task_id, _, kind, function, cell, state, submitted, attempt, executor = row
            if task_id not in known:
                self._extend(
                    [task_id], [kind], [function], [cell_name(cell)], [state], [owner],
                    [self._nodes.get(executor, "")], [executor], [submitted], [math.nan], [math.nan], [math.nan],
                    [attempt], [""], [cell],
                )  # fmt: skip
        return {name: [*column, *ended[name]] for name, column in self._columns.items()}

    def _extend(self, *columns: list[Any]) -> None:
        for name, column in zip(NAMES, columns, strict=True):
            self._columns[name].extend(column)

    def _cell_test(self) -> Callable[[str], bool]:
        wanted = self._query.cell
        known: dict[str, bool] = {}

        def is_wanted(tag: str) -> bool:
            found = known.get(tag)
            if found is None:
                found = known[tag] = wanted in ("", tag, cell_name(tag))
            return found

        return is_wanted


def _names_of(tags: list[str]) -> list[str]:
    names = {tag: cell_name(tag) for tag in set(tags)}
    return [names[tag] for tag in tags]
