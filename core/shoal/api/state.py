"""``shoal.state``: what the cluster does and did, as tables; also of clusters that have ended."""

from __future__ import annotations

import json
import numbers
import os
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, Protocol

from shoal.api.dataframes import Rows, make_table
from shoal.api.looking import look, look_at_each
from shoal.api.session import owner_or_init
from shoal.api.values import check_flag
from shoal.model.errors import OptionError
from shoal.model.options import is_number
from shoal.model.suggest import did_you_mean
from shoal.observe import state_tables as tables
from shoal.observe.logged import LoggedCluster, list_logs, read_log
from shoal.observe.records import Batch, Record, records_of
from shoal.observe.task_rows import STATES, TaskQuery, TaskRows
from shoal.observe.trace_events import trace_events
from shoal.runtime import memory_reporter
from shoal.runtime.environment import event_log_root
from shoal.runtime.owner_answers import MAX_ROWS, STORE_SECONDS, memory_row

#: Seconds within which the controller answers.
ANSWER_SECONDS = 10.0
#: Seconds that owners are waited for, unless it is said otherwise.
TIMEOUT = 2.0
#: Records looked at in one page while it is not known how many of them are wanted.
PAGE = 100_000

Snapshot = dict[str, Any]


class Source(Protocol):
    """Where a cluster's state is known."""

    def snapshot(self) -> Snapshot:
        """Return the snapshot (:mod:`shoal.observe.cluster_view`)."""

    def pages(self, limit: int) -> Iterator[list[Batch]]:
        """Give pages of records, the newest first; the first has at least *limit* records, if there are as many."""

    def pending(self, timeout: float) -> tuple[Mapping[str, Any], list[str]]:
        """Return what has not ended, by owner, and which owners gave no answer within *timeout* seconds."""

    def catch_up(self, timeout: float) -> None:
        """Have owners tell of what has ended until now, as far as they answer within *timeout* seconds."""

    def leases(self) -> Any:
        """Return rows for :func:`shoal.observe.state_tables.lease_rows`."""

    def memory(self, limit: int, timeout: float) -> tuple[Mapping[str, Any], list[str]]:
        """Return what owners say of their values, and which gave no answer."""

    def executor_nodes(self) -> Mapping[str, str]:
        """Return the node of each executor."""


class ClusterState:
    """What is known of a cluster, as tables.

    ``shoal.state`` has the same functions, for the cluster that this process uses; :func:`open` returns an object with
    them for one that has ended. Each returns a pandas dataframe, or with ``as_rows=True`` a list of dictionaries, for
    which pandas need not be installed. ``.attrs["unanswered"]`` (of a list: ``.unanswered``) names the processes that
    were asked and gave no answer in time. Text that there is not is "". Inside tasks and actors they work likewise.
    """

    def __init__(self, source: Callable[[], Source]) -> None:
        self._source = source

    def tasks(
        self,
        *,
        cell: str | None = None,
        function: str | None = None,
        state: str | None = None,
        limit: int = 10_000,
        timeout: float = TIMEOUT,
        as_rows: bool = False,
    ) -> Any:
        """Return tasks, calls of actors and their creations: those that have not ended, then those that have.

        Of both the newest come first. The cluster keeps the last million that have ended; what is asked for is looked
        for among all of them.

        Parameters
        ----------
        cell
            Only those of a cell: its name such as ``"In[3]"``, or the tag in the column ``cell_id``, which tells two
            runs of it apart.
        function
            Only those of a function: its name, or the name that options gave it.
        state
            ``"queued"`` (not sent to an executor), ``"running"`` (sent, perhaps some milliseconds ahead of its turn),
            ``"pending"`` for both, ``"finished"``, ``"failed"`` or ``"cancelled"``.
        limit
            How many at most, 0 or more.
        timeout
            Seconds after which a process that does not say what it waits for is left out; more than 0.
        as_rows
            Return a list of dictionaries.

        Returns
        -------
        pandas.DataFrame
            ``task_id``; ``kind``: ``task``, ``call`` or ``creation``; ``function``; ``cell``; ``state``; ``owner``, the
            process that submitted it; ``node`` and ``executor`` where it ran or runs; ``submitted``, ``started`` and
            ``ended``; ``seconds`` in user code; ``attempt``: how often it had been begun before; ``error``: type and
            first line; ``cell_id``.

        Raises
        ------
        OptionError
            A value is out of range.
        ImportError
            pandas is not installed.
        """
        query = TaskQuery(_name("cell", cell), _name("function", function), _state(state))
        _check_limit(limit)
        _check_timeout(timeout)
        check_flag("as_rows", as_rows)
        source = self._source()
        rows = TaskRows(query, int(limit), source.executor_nodes())
        unanswered: list[str] = []
        if query.wants_pending:
            found, unanswered = source.pending(float(timeout))
            for owner, pending in found.items():
                rows.add_pending(owner, pending)
        rows.begin_ended()
        if query.wants_ended and not rows.is_full:
            any_will_do = query == TaskQuery()
            for batches in source.pages(int(limit) if any_will_do else max(PAGE, int(limit))):
                for batch in reversed(batches):
                    rows.add_batch(batch)
                    if rows.is_full:
                        break
                if rows.is_full:
                    break
        return make_table("tasks", rows.columns(), unanswered, as_rows=as_rows)

    def actors(self, *, as_rows: bool = False) -> Any:
        """Return the actors, and the last that have ended.

        ``state`` is ``pending``, ``alive``, ``restarting`` or ``dead``; ``pending`` counts the calls that wait or run.
        """
        return self._table("actors", tables.actor_rows, as_rows)

    def objects(self, *, limit: int = 1_000, timeout: float = TIMEOUT, as_rows: bool = False) -> Any:
        """Return the values that processes hold, the biggest first: those of the driver, of tasks and of actors.

        The columns are those of :class:`shoal.MemoryReport`'s rows: ``object_id``, ``nbytes``, ``where``, ``nodes``,
        ``made_by``, ``cell``, ``owner``, ``held_by``, ``mapped``. Each process looks through its own variables, which
        takes a moment. Of a cluster that has ended nothing is known.

        Parameters
        ----------
        limit
            How many at most.
        timeout
            Seconds after which a process that gives no answer is left out; more than 0.
        """
        _check_limit(limit)
        _check_timeout(timeout)
        check_flag("as_rows", as_rows)
        reports, unanswered = self._source().memory(min(int(limit), MAX_ROWS), float(timeout))
        rows = tables.object_rows(reports, int(limit))
        return make_table("objects", tables.columns_of("objects", rows), unanswered, as_rows=as_rows)

    def nodes(self, *, as_rows: bool = False) -> Any:
        """Return the nodes: memory, store and spilled in bytes; ``cpus_used`` is what leases hold, ratios are 0 to 1.

        ``state`` is ``alive``, ``draining`` or ``suspected``; of a cluster that has ended also ``left``.
        """
        return self._table("nodes", tables.node_rows, as_rows)

    def leases(self, *, as_rows: bool = False) -> Any:
        """Return which executors are lent to whom: ``asked`` says for what, in words.

        ``state`` is ``starting``, ``held``, or ``waiting`` if its task waits for others and lends its CPUs. ``actor``
        is set if it hosts one. Of a cluster that has ended there are none.
        """
        check_flag("as_rows", as_rows)
        rows = tables.lease_rows(self._source().leases())
        return make_table("leases", tables.columns_of("leases", rows), as_rows=as_rows)

    def placement_groups(self, *, as_rows: bool = False) -> Any:
        """Return the placement groups: what each of the ``bundles`` is, in words, and on which of the ``nodes``."""
        return self._table("placement_groups", tables.group_rows, as_rows)

    def jobs(self, *, as_rows: bool = False) -> Any:
        """Return the drivers, each with its processes that submit work and what its listed cells come to."""
        return self._table("jobs", tables.job_rows, as_rows)

    def cells(self, *, as_rows: bool = False) -> Any:
        """Return the cells that have caused work, the newest last, with what it came to; ``seconds`` in user code."""
        return self._table("cells", tables.cell_rows, as_rows)

    def functions(self, *, as_rows: bool = False) -> Any:
        """Return the busiest functions, with what their work came to; ``mean`` is seconds in user code."""
        return self._table("functions", tables.function_rows, as_rows)

    def events(self, *, as_rows: bool = False) -> Any:
        """Return what happened: nodes, drivers and actors that came and went; the newest last."""
        return self._table("events", tables.event_rows, as_rows)

    def summary(self, by: str = "function", *, as_rows: bool = False) -> Any:
        """Return all work, counted ``by`` ``"function"``, ``"cell"`` or ``"state"``; counts are of all, and exact."""
        make = {
            "function": ("functions", tables.function_rows),
            "cell": ("cells", tables.cell_rows),
            "state": ("states", tables.state_rows),
        }
        if by not in make:
            raise OptionError(
                f"`by` must be `function`, `cell` or `state`, not {by!r}.{did_you_mean(str(by), make)}", option="by"
            )
        return self._table(*make[by], as_rows)

    def timeline(
        self, path: str | os.PathLike[str] | None = None, *, cell: str | None = None, limit: int = 50_000
    ) -> Any:
        """Return when everything ran, for a viewer of trace events such as https://ui.perfetto.dev (which stays local).

        Processes of the trace are nodes and drivers, threads are executors; each task is a slice with its cell, attempt
        and outcome, and an arrow leads to it from where it was submitted. Curves show what ran and waited, and memory.

        Parameters
        ----------
        path
            Where to write it, as JSON; by default it is returned as a dictionary.
        cell
            Only the work of one cell: its name or its tag.
        limit
            How many tasks at most: the last; about 600 bytes each.

        Returns
        -------
        dict or pathlib.Path
            The trace, or where it was written.
        """
        query = TaskQuery(cell=_name("cell", cell))
        _check_limit(limit)
        source = self._source()
        source.catch_up(TIMEOUT)
        snapshot = source.snapshot()
        trace = trace_events(
            _records(source, query, int(limit)),
            name=snapshot["cluster"]["name"],
            executors=source.executor_nodes(),
            hosts={node["id"]: node["host"] for node in snapshot["nodes"]},
            history=snapshot["history"],
        )
        if path is None:
            return trace
        written = Path(path)
        written.write_text(json.dumps(trace, separators=(",", ":"), allow_nan=False))
        return written

    def _table(self, table: str, make: Callable[[Snapshot], list[tables.Row]], as_rows: bool) -> Any:
        check_flag("as_rows", as_rows)
        rows = make(self._source().snapshot())
        return make_table(table, tables.columns_of(table, rows), as_rows=as_rows)


def _records(source: Source, query: TaskQuery, limit: int) -> list[Record]:
    """Return the last records of a cell, or of all, the newest first."""
    found: list[Record] = []
    for batches in source.pages(max(PAGE, limit) if query.cell else limit):
        for batch in reversed(batches):
            newest_first = reversed(list(records_of([batch])))
            found += [
                record
                for record in newest_first
                if not query.cell or query.cell in (record.cell, record.cell.partition("#")[0])
            ]
            if len(found) >= limit:
                return found[:limit]
    return found


class _Live:
    """The cluster that this process uses; one is started if it uses none."""

    def __init__(self) -> None:
        from shoal.runtime.owner import Owner  # which takes its time, and is not needed for logs

        owner = self._owner = owner_or_init()
        owner.catch_up()
        if isinstance(owner, Owner):
            owner.loop.call_soon_threadsafe(owner.report)  # what we know ourselves is not to be missing

    def _ask(self, topic: str, *details: Any) -> Any:
        return look(self._owner, topic, *details, timeout=ANSWER_SECONDS)

    def snapshot(self) -> Snapshot:
        found: Snapshot = self._ask("snapshot")
        return found

    def pages(self, limit: int) -> Iterator[list[Batch]]:
        before: int | None = None
        while limit > 0 and before != 0:
            rows, before = self._ask("record_page", limit, before)
            batches = [Batch(*row) for row in rows]
            limit = max(PAGE, limit - sum(batch.num_records for batch in batches))
            yield batches

    def pending(self, timeout: float) -> tuple[Mapping[str, Any], list[str]]:
        owners = [row["id"] for row in self.snapshot()["owners"]]
        return look_at_each(self._owner, dict.fromkeys(owners, (MAX_ROWS,)), "pending", timeout)

    def catch_up(self, timeout: float) -> None:
        owners = [row["id"] for row in self.snapshot()["owners"]]
        look_at_each(self._owner, dict.fromkeys(owners, (0,)), "pending", timeout)

    def leases(self) -> Any:
        return self._ask("leases")

    def memory(self, limit: int, timeout: float) -> tuple[Mapping[str, Any], list[str]]:
        own = self._owner.owner_id
        mine = memory_row(memory_reporter.report(self._owner, limit, min(timeout, STORE_SECONDS)))
        others = [row["id"] for row in self.snapshot()["owners"] if row["id"] != own]
        found, unanswered = look_at_each(self._owner, dict.fromkeys(others, (limit,)), "memory", timeout)
        return {**found, own: mine}, unanswered

    def executor_nodes(self) -> Mapping[str, str]:
        found: Mapping[str, str] = self._ask("executor_nodes")
        return found


class _Logged:
    """A cluster as its log tells of it."""

    def __init__(self, log: LoggedCluster) -> None:
        self._log = log

    def snapshot(self) -> Snapshot:
        return self._log.snapshot

    def pages(self, limit: int) -> Iterator[list[Batch]]:
        yield self._log.batches

    def pending(self, timeout: float) -> tuple[Mapping[str, Any], list[str]]:
        return {}, []

    def catch_up(self, timeout: float) -> None:
        """Nobody is there to tell more."""

    def leases(self) -> Any:
        return ()

    def memory(self, limit: int, timeout: float) -> tuple[Mapping[str, Any], list[str]]:
        return {}, []

    def executor_nodes(self) -> Mapping[str, str]:
        return self._log.executors


class PastState(ClusterState):
    """A cluster that has ended: :class:`ClusterState` of its log, as it was written.

    Attributes
    ----------
    id, name
        Of the cluster.
    """

    def __init__(self, log: LoggedCluster) -> None:
        super().__init__(lambda: _Logged(log))
        self.id = log.id
        self.name = log.name
        self._log = log

    def __repr__(self) -> str:
        log = self._log
        end = "runs" if log.running else "ended in order" if log.in_order else "was killed"
        return f"<log of cluster `{log.name}` ({log.id}), which {end}; {log.num_tasks} tasks and calls>"


def past(*, as_rows: bool = False) -> Any:
    """Return the clusters of this user that have ended on this machine and left a log, the newest first.

    The last ten that did any work are kept. ``tasks`` counts tasks and calls; ``in_order`` is False for a cluster that
    was killed. Pass an ``id`` to :func:`open`. The environment variable ``SHOAL_EVENT_LOG`` says where logs are (by
    default ``shoal/logs`` in the Jupyter data directory); ``0`` turns them off.
    """
    check_flag("as_rows", as_rows)
    root = event_log_root()
    rows = []
    for directory, log in list_logs(root) if root is not None else ():
        if not log.running:
            row = {"id": log.id, "name": log.name, "started": log.started, "ended": log.ended, "tasks": log.num_tasks}
            rows.append({**row, "in_order": log.in_order, "path": str(directory)})
    return make_table("past", tables.columns_of("past", rows), as_rows=as_rows)


def open(cluster: str | os.PathLike[str]) -> PastState:
    """Return what the log of a cluster tells: an object with the functions of ``shoal.state``.

    Parameters
    ----------
    cluster
        Its id (see :func:`past`), or the directory of its log, wherever that came from.

    Raises
    ------
    OptionError
        There is no such log, or it cannot be read.
    """
    text = os.fspath(cluster)
    root = event_log_root()
    directory = Path(text)
    if os.sep not in text and root is not None and not directory.is_dir():
        directory = root / text
    try:
        log = read_log(directory)
        if not log.snapshot:
            raise ValueError(f"The log in {directory} is damaged.")
        return PastState(log)
    except (OSError, ValueError) as error:
        known = [row["id"] for row in past(as_rows=True)]
        say = "; `shoal.state.past()` lists the clusters that have one" if known else ""
        raise OptionError(f"{str(error).rstrip('.')}{say}.{did_you_mean(text, known)}", option="cluster") from None


def _name(option: str, value: str | None) -> str:
    if value is None:
        return ""
    if not isinstance(value, str) or not value:
        raise OptionError(f"`{option}` must be a name, not {value!r}.", option=option)
    return value


def _state(value: str | None) -> str:
    if value is None:
        return ""
    if value not in STATES:
        known = ", ".join(f"`{name}`" for name in STATES)
        hint = did_you_mean(str(value), STATES)
        raise OptionError(f"`state` must be one of {known}, not {value!r}.{hint}", option="state")
    return value


def _check_limit(limit: int) -> None:
    if not (is_number(limit, numbers.Integral) and limit >= 0):
        raise OptionError(f"`limit` must be a whole number from 0 up, not {limit!r}.", option="limit")


def _check_timeout(timeout: float) -> None:
    if not (is_number(timeout) and 0 < timeout <= 86_400):
        raise OptionError(f"`timeout` must be a number of seconds above 0, not {timeout!r}.", option="timeout")


_here = ClusterState(_Live)
tasks, actors, objects, nodes, leases = _here.tasks, _here.actors, _here.objects, _here.nodes, _here.leases
placement_groups, jobs, cells, functions = _here.placement_groups, _here.jobs, _here.cells, _here.functions
events, summary, timeline = _here.events, _here.summary, _here.timeline

__all__ = [
    "ClusterState",
    "Rows",
    "actors",
    "cells",
    "events",
    "functions",
    "jobs",
    "leases",
    "nodes",
    "objects",
    "open",
    "past",
    "placement_groups",
    "summary",
    "tasks",
    "timeline",
]
