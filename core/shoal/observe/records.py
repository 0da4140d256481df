"""What became of each task and call: one record for each that has ended, written in columns.

An owner collects records (:class:`RecordBuffer`) and packs a batch of them a few times a second. From there on a batch
is bytes: the controller keeps the newest of them (:class:`RecordBook`), sends them on to whoever watches and writes
them to disk without ever looking inside, so that 10,000 records a second cost it a few messages. Whoever wants to read
them unpacks them (:func:`unpack`), in a process of its own.
"""

from __future__ import annotations

import itertools
from array import array
from collections import deque
from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple

import msgpack

from shoal.observe.timeline import CANCELLED, FAILED, FINISHED

#: The layout of a batch; batches of another are not read.
VERSION = 1
#: Records that wait to be packed at most, which owners do four times a second: of 10,000 tasks a second none is lost.
#: Of more the oldest are dropped, and counted, so that recording costs the less of the time the faster tasks come.
MAX_WAITING = 3_000
#: Errors described in one batch at most, and characters of each.
MAX_ERRORS, MAX_ERROR_CHARS = 100, 300
#: What a controller keeps: records, and bytes.
MAX_RECORDS, MAX_NBYTES = 1_000_000, 64 << 20
#: What it tells at a time: bytes, and batches.
MAX_PAGE_NBYTES, MAX_PAGE_BATCHES = 4 << 20, 5_000

OUTCOMES = {FINISHED: "finished", FAILED: "failed", CANCELLED: "cancelled"}
#: Kinds of work, by their number in a batch.
TASK, CALL, CREATION = range(3)
KINDS = ("task", "call", "creation")


class Record(NamedTuple):
    """One task or call that has ended. Times are Unix seconds.

    Attributes
    ----------
    task_id
        Its id.
    kind
        ``task``, ``call`` (of an actor) or ``creation`` (of one).
    function, cell
        The function's name, and the cell's tag; "" if it belongs to none.
    owner, executor
        Ids of the process that submitted it and of the one that ran it; "" if none did.
    outcome
        ``finished``, ``failed`` or ``cancelled``.
    submitted, started, ended
        When it was submitted, began and was known to have ended. What did not run began when it ended.
    seconds
        Time in user code.
    attempt
        How often it had been begun before.
    error
        Type and first line of the error; "" for what finished, and beyond the first :data:`MAX_ERRORS` of a batch.
    """

    task_id: str
    kind: str
    function: str
    cell: str
    owner: str
    executor: str
    outcome: str
    submitted: float
    started: float
    ended: float
    seconds: float
    attempt: int
    error: str


class Batch(NamedTuple):
    """Some records as they travel and are kept."""

    owner: str
    num_records: int
    packed: bytes


#: What is noted: task id, kind, function, cell, submitted, ended, seconds, executor, outcome, attempt, error.
Row = tuple[str, int, str, str, float, float, float, str, int, int, str]


class RecordBuffer:
    """An owner's records that have not been packed. Lives on its event loop."""

    def __init__(self, offset: float) -> None:
        """*offset* is what makes the times that are noted Unix times."""
        self._offset = offset
        self._rows: deque[Row] = deque(maxlen=MAX_WAITING)
        self._noted = 0
        #: How many were dropped in all.
        self.num_dropped = 0
        #: Errors that the next batch has room for.
        self.error_room = MAX_ERRORS

    def __bool__(self) -> bool:
        return self._noted > 0

    def note(self, row: Row) -> None:
        """A task or call has ended; with an error only within :attr:`error_room`. Called for every task."""
        self._noted += 1
        self._rows.append(row)
        if row[-1]:
            self.error_room -= 1

    def take(self, owner: str) -> Batch | None:
        """Return what was noted since last time; None if that is nothing."""
        if not self._noted:
            return None
        rows = list(self._rows)
        self.num_dropped += self._noted - len(rows)
        self._rows.clear()
        self._noted, self.error_room = 0, MAX_ERRORS
        return Batch(owner, len(rows), _pack(rows, self._offset))


class RecordBook:
    """The newest batches of a cluster, within :data:`MAX_RECORDS` and :data:`MAX_NBYTES`."""

    def __init__(self, max_records: int = MAX_RECORDS, max_nbytes: int = MAX_NBYTES) -> None:
        self._max_records = max_records
        self._max_nbytes = max_nbytes
        self._batches: deque[Batch] = deque()
        self._num_added = 0
        #: Records kept, their bytes, and how many there have been.
        self.count = self.nbytes = self.total = 0

    def add(self, batch: Batch) -> None:
        """Keep a batch, and let the oldest go."""
        self._batches.append(batch)
        self._num_added += 1
        self.count += batch.num_records
        self.total += batch.num_records
        self.nbytes += len(batch.packed)
        while len(self._batches) > 1 and (self.count > self._max_records or self.nbytes > self._max_nbytes):
            oldest = self._batches.popleft()
            self.count -= oldest.num_records
            self.nbytes -= len(oldest.packed)

    def newest(self, limit: int) -> list[Batch]:
        """Return the batches with the newest *limit* records, the oldest first; the first may hold more than that.

        They are a page: see :meth:`page`.
        """
        return self.page(limit)[0]

    def page(self, limit: int, before: int | None = None) -> tuple[list[Batch], int]:
        """Return batches as :meth:`newest`, of those that came before the one with number *before*.

        No more of them than :data:`MAX_PAGE_NBYTES` and :data:`MAX_PAGE_BATCHES`, so that it travels in one message.
        The second is the number of the first of them, for the next page; 0 if there are none before.
        """
        first = self._num_added - len(self._batches)
        skipped = 0 if before is None else min(max(0, self._num_added - before), len(self._batches))
        found: list[Batch] = []
        nbytes = 0
        for batch in itertools.islice(reversed(self._batches), skipped, None):
            nbytes += len(batch.packed)
            if limit <= 0 or (found and (nbytes > MAX_PAGE_NBYTES or len(found) >= MAX_PAGE_BATCHES)):
                break
            found.append(batch)
            limit -= batch.num_records
        number = self._num_added - skipped - len(found)
        return found[::-1], number if number > first else 0


class Columns(NamedTuple):
    """A batch that was unpacked: one item for each record in every column; see :class:`Record` for what they are."""

    task_ids: list[str]
    kinds: list[str]
    functions: list[str]
    cells: list[str]
    executors: list[str]
    outcomes: list[str]
    submitted: array[float]
    ended: array[float]
    seconds: array[float]
    attempts: array[int]
    #: Errors that are described, by the number of their record.
    errors: dict[int, str]


def unpack(packed: bytes) -> Columns:
    """Read a batch.

    Raises
    ------
    ValueError
        It is no batch, or one of another version.
    """
    try:
        version, *rest = msgpack.unpackb(packed, strict_map_key=False, unicode_errors="surrogatepass")
    except (ValueError, TypeError, msgpack.UnpackException) as error:
        raise ValueError(f"These are no records of shoal: {error}") from error
    if version != VERSION:
        raise ValueError(f"Records of version {version} cannot be read here: this shoal reads {VERSION}.")
    try:
        prefix, numbers, odd, kinds, names, functions, cells, executors, outcomes, times, attempts, errors = rest
        task_ids = [f"{prefix}{number}" for number in _array("Q", numbers)]
        for index, task_id in odd.items():
            task_ids[index] = task_id
        submitted, ended, seconds = (_array("d", column) for column in times)
        name_of = list(names)
        return Columns(
            task_ids,
            [KINDS[kind] for kind in kinds],
            [name_of[index] for index in _array("I", functions)],
            [name_of[index] for index in _array("I", cells)],
            [name_of[index] for index in _array("I", executors)],
            [OUTCOMES[outcome] for outcome in outcomes],
            submitted,
            ended,
            seconds,
            _array("B", attempts),
            errors,
        )
    except (ValueError, TypeError, LookupError) as error:
        raise ValueError(f"These are no records of shoal: {error}") from error


def records_of(batches: Iterable[Batch]) -> Iterator[Record]:
    """Give the records of some batches one by one."""
    for batch in batches:
        columns = unpack(batch.packed)
        rows = zip(*columns[:-1], strict=True)
        for index, (task_id, kind, function, cell, executor, outcome, submitted, ended, seconds, attempt) in enumerate(
            rows
        ):
            started = max(submitted, ended - seconds)
            error = columns.errors.get(index, "")
            yield Record(
                task_id, kind, function, cell, batch.owner, executor, outcome, submitted, started, ended, seconds,
                attempt, error,
            )  # fmt: skip


def _pack(rows: list[Row], offset: float) -> bytes:
    task_ids, kinds, functions, cells, submitted, ended, seconds, executors, outcomes, attempts, errors = zip(
        *rows, strict=True
    )
    #: Each name once: functions, cells and executors share the table.
    table: dict[str, int] = {}
    numbered = [_number(table, column) for column in (functions, cells, executors)]
    prefix = task_ids[0].rpartition("-")[0] + "-"
    skip = len(prefix)
    numbers, odd = array("Q"), {}
    for index, task_id in enumerate(task_ids):
        # The ids of one process differ by their number only; after a fork there may be others.
        try:
            if not task_id.startswith(prefix):
                raise ValueError
            numbers.append(int(task_id[skip:]))
        except (ValueError, OverflowError):
            numbers.append(0)
            odd[index] = task_id
    times = (
        array("d", [time + offset for time in submitted]),
        array("d", [time + offset for time in ended]),
        array("d", seconds),
    )
    described = {index: error[:MAX_ERROR_CHARS] for index, error in enumerate(errors) if error}
    packed: bytes = msgpack.packb(
        [
            VERSION,
            prefix,
            numbers.tobytes(),
            odd,
            bytes(kinds),
            list(table),
            *(column.tobytes() for column in numbered),
            bytes(outcomes),
            [column.tobytes() for column in times],
            bytes(min(attempt, 255) for attempt in attempts),
            described,
        ],
        unicode_errors="surrogatepass",  # names of functions and texts of errors are anything
    )
    return packed


def _number(table: dict[str, int], names: Iterable[str]) -> array[int]:
    """Replace names by their numbers in the *table*, which gets what is new."""
    return array("I", [table.setdefault(name, len(table)) for name in names])


def _array(typecode: str, data: bytes) -> array[Any]:
    column = array(typecode)
    column.frombytes(data)
    return column
