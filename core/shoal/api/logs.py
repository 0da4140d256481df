"""``shoal.logs``: what tasks, actors and executors have printed."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator
from typing import Any, Literal, overload

from shoal.api.executors import ANSWER, Target, find_target
from shoal.api.looking import look, look_at_each
from shoal.api.values import check_flag, check_timeout
from shoal.model.errors import ClusterLostError, NotInitializedError, OptionError, ShoalError
from shoal.runtime.log_files import LogLine

#: Lines asked for at once.
PAGE = 2_000
#: Seconds between two questions while nothing comes, and between two looks for further executors.
PAUSE, LOOK = 0.25, 1.0


class Log(list[LogLine]):
    """Lines, the oldest first; prints as text."""

    def __str__(self) -> str:
        return "\n".join(map(str, self))

    def __repr__(self) -> str:
        return str(self) if self else "<no lines>"


@overload
def logs(
    target: Any = None, *, follow: Literal[False] = False, tail: int | None = None, filter: str = "",
    timeout: float | None = None,
) -> Log: ...  # fmt: skip
@overload
def logs(
    target: Any = None, *, follow: Literal[True], tail: int | None = None, filter: str = "",
    timeout: float | None = None,
) -> Iterator[LogLine]: ...  # fmt: skip
@overload
def logs(
    target: Any = None, *, follow: bool, tail: int | None = None, filter: str = "", timeout: float | None = None
) -> Log | Iterator[LogLine]: ...
def logs(
    target: Any = None, *, follow: bool = False, tail: int | None = None, filter: str = "", timeout: float | None = None
) -> Log | Iterator[LogLine]:
    """Return what was printed by a task, an actor, an executor, or everything on a node or in the cluster.

    Each node keeps the last MiB of each of its executors, and that of the last 32 which have ended; all of it goes with
    the node. What is printed faster than 2 MiB a second is kept in part, and a line says what is missing.

    Parameters
    ----------
    target
        A ref (its task or call is meant), an actor's handle or name, a :class:`~shoal.Node`, or the id of a task, an
        actor, an executor or a node. None means the whole cluster.
    follow
        Return an iterator that waits for what comes. It ends with the task, the actor, the executor or the cluster,
        with the stop button (which raises ``KeyboardInterrupt``), or after *timeout* seconds.
    tail
        The newest lines only: this many; None means all that are kept.
    filter
        Only lines that contain this, in capitals or not.
    timeout
        Seconds that nodes have to answer (None: 5 s); with *follow* the seconds for which to follow (None: no end).

    Returns
    -------
    Log or iterator of LogLine
        A list of lines that prints as text; or the iterator. A task that has printed nothing has no lines.

    Raises
    ------
    OptionError
        Nothing is known of such a target, or an option is not what it may be.
    TypeError
        *target* is something else.

    Examples
    --------
    >>> import shoal
    >>> with shoal.init(num_cpus=1):
    ...     ref = shoal.remote(lambda: print("hello")).remote()
    ...     shoal.get(ref)
    ...     shoal.logs(ref)[0].text
    'hello'
    """
    check_flag("follow", follow)
    check_timeout(timeout)
    if tail is not None and (isinstance(tail, bool) or not isinstance(tail, int) or tail < 0):
        raise OptionError(f"`tail` is a number of lines, 0 or more, not {tail!r}.", option="tail")
    if not isinstance(filter, str):
        raise OptionError(f"`filter` is text that lines contain, not {filter!r}.", option="filter")
    found = find_target("logs", target)
    reading = _Reading(found, filter, tail)
    if follow:
        reading.look(ANSWER)
        return _follow(reading, math.inf if timeout is None else time.monotonic() + timeout)
    patience = ANSWER if timeout is None else max(timeout, 0.001)
    reading.look(patience)
    lines: list[LogLine] = []
    while True:
        page = reading.read(patience)
        lines += page
        if len(page) < PAGE:  # there may be more already, of what has only just been printed
            break
    lines.sort(key=lambda line: line.time)
    return Log(lines if tail is None else lines[max(0, len(lines) - tail) :])


def _follow(reading: _Reading, deadline: float) -> Iterator[LogLine]:
    has_ended, newest, looked = False, reading.tail, time.monotonic()
    while True:
        lines: list[LogLine] = []
        try:
            if not has_ended and not reading.goes_on():
                has_ended = True  # what it printed last, wherever that was, is there by now
                reading.look(ANSWER)
            lines = sorted(reading.read(LOOK), key=lambda line: line.time)
            is_over = has_ended and not lines
            if time.monotonic() - looked >= LOOK:
                reading.look(LOOK)
                looked = time.monotonic()
        except TimeoutError:  # somebody is busy, or stopped: asked once more
            is_over = False
        except (ClusterLostError, NotInitializedError):
            is_over = True
        yield from lines if newest is None else lines[max(0, len(lines) - newest) :]
        if lines:
            newest = None
        if is_over or time.monotonic() >= deadline:
            return
        if not lines:
            time.sleep(max(0.0, min(PAUSE, deadline - time.monotonic())))


class _Reading:
    """How far each executor's log has been read."""

    def __init__(self, target: Target, words: str, tail: int | None) -> None:
        self._target = target
        self._words = words
        self.tail = tail
        #: Node and next offset, by executor.
        self._places: dict[str, tuple[str, int]] = {}
        #: Executors that have ended and been read to the end.
        self._done: set[str] = set()
        self._found_any = False

    def look(self, timeout: float) -> None:
        """Find the executors that are meant.

        Raises
        ------
        OptionError
            There are none, nor have there been.
        """
        target = self._target
        if target.kind in ("node", "all"):
            questions: dict[str, tuple[Any, ...]] = dict.fromkeys(target.nodes(timeout), ())
            answers, _ = look_at_each(target.owner, questions, "executors", timeout)
            found = {node_id: [row[0] for row in rows if row[2] != "starting"] for node_id, rows in answers.items()}
        else:
            questions = dict.fromkeys(target.nodes(timeout), (target.id,))
            found, _ = look_at_each(target.owner, questions, "log_sources", timeout)
        for node_id, executor_ids in found.items():
            for executor_id in executor_ids:
                if executor_id not in self._done:
                    is_short = self.tail is not None and self.tail <= PAGE and not self._found_any
                    first = -max(1, self.tail or 0) if is_short else 0
                    self._places.setdefault(executor_id, (node_id, first))
        if self._places:
            self._found_any = True
        elif not self._found_any and target.kind != "task" and not self._may_come():
            raise OptionError(f"There is no log of {target.label} (any more).", option="target")

    def read(self, timeout: float) -> list[LogLine]:
        """Return what has come since last time, of each executor no more than a page."""
        task_id = self._target.id if self._target.kind == "task" else ""
        lines: list[LogLine] = []
        for executor_id, (node_id, offset) in list(self._places.items()):
            try:
                page = look(
                    self._target.owner, "log", executor_id, offset, PAGE, self._words, task_id,
                    target=node_id, timeout=timeout,
                )  # fmt: skip
            except TimeoutError:  # asked once more next time
                continue
            except (ClusterLostError, NotInitializedError):
                raise
            except ShoalError:  # its node is gone, or its log
                self._done.add(executor_id)
                del self._places[executor_id]
                continue
            rows = page["rows"] if offset >= 0 or self.tail else ()
            self._places[executor_id] = node_id, page["offset"]
            lines += [LogLine(*row) for row in rows]
            if page["ended"] and not rows:
                self._done.add(executor_id)
                del self._places[executor_id]
        return lines

    def goes_on(self) -> bool:
        """Whether more may come."""
        target = self._target
        if target.kind == "executor":
            return target.id in self._places
        if target.kind in ("node", "all"):
            nodes = look(target.owner, "nodes", timeout=ANSWER)
            return target.kind == "all" or any(row[0] == target.id for row in nodes)
        return self._may_come() or (target.kind == "task" and not target.is_own() and self._runs())

    def _may_come(self) -> bool:
        """Whether the task or actor, whatever has become of its executors, has not ended."""
        target = self._target
        if target.kind == "task":
            return target.is_pending()
        if target.kind == "actor":
            answer = look(target.owner, "actor", target.id, timeout=ANSWER)
            return not isinstance(answer, str) and answer[0] != "dead"
        return False

    def _runs(self) -> bool:
        """Whether a task that another process has submitted is what an executor began last, and serves somebody."""
        return any(row.state == "tasks" for _, row in self._target.rows())


__all__ = ["Log", "LogLine", "logs"]
