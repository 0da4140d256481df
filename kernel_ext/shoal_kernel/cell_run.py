"""A cell that was launched: what becomes of its parts, and how they are stopped."""

from __future__ import annotations

import asyncio
import dataclasses
import time
from collections.abc import Callable, Generator, Sequence
from typing import Any

from IPython.core.error import UsageError

import shoal
from shoal.errors import ShoalError, TaskCancelledError
from shoal_kernel import debugging
from shoal_kernel.cell import CellResult, CellSource
from shoal_kernel.grouping import group_errors
from shoal_kernel.tasks import CellTasks

#: Seconds that an interrupted cell gets to end by itself before its processes are ended.
STOP_TIMEOUT = 2.0
#: Seconds within which the actor behind a background cell answers.
HOST_TIMEOUT = 30.0


@dataclasses.dataclass(frozen=True)
class Ended:
    """What came of all parts of a cell."""

    results: list[CellResult | None]
    #: Of each part what it returned beside its result.
    more: list[list[shoal.ObjectRef]]
    error: BaseException | None


class CellRun:
    """A launched cell: ``await`` it, ask for its ``result()``, or ``cancel()`` it.

    Made by ``%%remote --bg``, and by ``%remote attach``. Use it in the notebook's own thread.
    """

    def __init__(
        self,
        run_id: str,
        tasks: CellTasks,
        take: Callable[[CellRun, Ended], Any],
        refs: Sequence[list[shoal.ObjectRef]] = (),
        *,
        close: Callable[[], None] = lambda: None,
        is_call: bool = False,
        host: shoal.ActorHandle | None = None,
        begun: shoal.ObjectRef | None = None,
        started: float = 0.0,
    ) -> None:
        """Made where cells are launched.

        Parameters
        ----------
        take
            Called once with what has ended: brings names into the notebook and returns the value, or raises.
        refs
            Of each part its result, and what else it returns; for a background cell these are known when it has begun.
        close
            Called once when every part has ended.
        is_call
            It is a call of an actor, which is not ended by force: it has variables of other cells.
        host, begun
            For a background cell: the actor that looks after it, and the ref of the refs.
        started
            Seconds since the epoch; now, if not given.
        """
        self.id = run_id
        self.name = tasks.options.name
        self.started = started or time.time()
        self._tasks = tasks
        self._take = take
        self._refs = list(refs)
        self._close = close
        self._is_call = is_call
        self._host = host
        self._begun = begun
        #: Parts that have not ended, by number.
        self._open = set(range(len(tasks.parts)))
        #: Why a background cell could not begin.
        self._failure: BaseException | None = None
        #: The value or the error, once it has been taken.
        self._taken: tuple[Any, BaseException | None] | None = None
        self._cancelled = False

    # -- for users ---------------------------------------------------------------------------------------------------

    def done(self) -> bool:
        """Return whether it has ended, however."""
        return self.wait(0)

    def wait(self, timeout: float | None = None) -> bool:
        """Wait until it has ended, for *timeout* seconds at most; returns whether it has."""
        deadline = None if timeout is None else time.monotonic() + timeout
        while self._open:
            waiting = self._waiting()
            left = None if deadline is None else max(0.0, deadline - time.monotonic())
            ready, _ = shoal.wait(list(waiting), timeout=left)
            if not ready:
                return False
            for ref in ready:
                self._look(waiting[ref])
        return True

    def result(self, timeout: float | None = None) -> Any:
        """Wait for the end and return the cell's value; names that it assigned are in the notebook then.

        Raises
        ------
        TimeoutError
            It has not ended within *timeout* seconds; it goes on.
        Exception
            The cell's own.
        """
        if self._taken is None:
            if not self.wait(timeout):
                raise CellTimeoutError(
                    f"`{self.name}` has not ended within {timeout:g} s; it goes on.", timeout=timeout
                )
            self._taken = self._take_all()
        value, error = self._taken
        if error is not None:
            raise error
        return value

    def cancel(self, *, force: bool = False) -> None:
        """Stop what has not ended: as the stop button would, or by *force* by ending its processes."""
        if not self._open:
            return
        self._cancelled = True
        if self._host is None:
            for number in self._open:
                shoal.cancel(self._refs[number][0], force=force and not self._is_call)
        elif self._refs or self._begun is None or shoal.wait([self._begun], timeout=0)[0]:
            self._host.cancel.remote(force)
        else:  # there has been no room for it so far
            shoal.kill(self._host)

    def progress(self) -> tuple[int, int]:
        """Return how many parts have ended, and how many there are."""
        self.done()
        total = len(self._tasks.parts)
        return total - len(self._open), total

    def text(self) -> str:
        """Return what a background cell has printed so far: the last million characters.

        Raises
        ------
        ActorDiedError
            Its result was taken, and with it went what it had printed; that is under the cell that launched it.
        """
        if self._host is None:
            raise UsageError(f"What `{self.name}` prints is under its cell: it is a call of the actor that it runs in.")
        text: str = shoal.get(self._host.text.remote(), timeout=HOST_TIMEOUT)
        return text

    def __await__(self) -> Generator[Any, None, Any]:
        """Wait without holding up the notebook's event loop."""
        yield from asyncio.to_thread(self.wait).__await__()
        return self.result()

    def __repr__(self) -> str:
        return f"<{self.name} in the background, {self.id}: {self.state()}>"

    def state(self) -> str:
        """Say how it stands."""
        return describe_state(*self.progress(), self._cancelled)

    # -- for the magics ----------------------------------------------------------------------------------------------

    @property
    def is_taken(self) -> bool:
        """Whether somebody has asked for its result, after it had ended."""
        return self._taken is not None

    def waiting_for(self) -> shoal.ObjectRef | None:
        """Return what the first part that has not ended waits for; None if all have."""
        return None if self.wait(0) else next(iter(self._waiting()))

    def stop(self) -> str:
        """Cancel it, wait for its end, end what does not listen, and say in one line what came of it."""
        begin = time.monotonic()
        running = len(self._open)
        self.cancel()
        try:
            patient = self.wait(STOP_TIMEOUT)
        except KeyboardInterrupt:
            patient = False
        if not patient:
            self.cancel(force=True)
            self.wait(STOP_TIMEOUT)
        if self._open:
            self._close()  # its end may never be seen
        return self._say_stopped(running, time.monotonic() - begin, patient)

    def _say_stopped(self, running: int, seconds: float, patient: bool) -> str:
        total = len(self._tasks.parts)
        what = f"`{self.name}`" if total == 1 else f"{running} of {total} runs of `{self.name}`"
        if self._open:
            who = "it is" if running == 1 else "some are"
            return f"asked {what} to stop, but {who} still in code that does not listen."
        how = "" if patient else "; code that did not listen was ended with its process"
        return f"stopped {what} in {seconds:.1f} s{how}."

    def _waiting(self) -> dict[shoal.ObjectRef, int]:
        """Return what has to be ready before it can be told how parts go on; -1 stands for all."""
        if not self._refs:
            assert self._begun is not None
            return {self._begun: -1}
        return {self._refs[number][0]: number for number in sorted(self._open)}

    def _look(self, number: int) -> None:
        """What was waited for is ready."""
        if number >= 0:
            self._open.discard(number)
            if self._tasks.needs_all and self._open and not self._cancelled and self._fetch(number)[2] is not None:
                self.cancel()
        else:
            assert self._begun is not None
            try:
                self._refs = shoal.get(self._begun)
            except Exception as failure:  # there is no room for it, or the cluster is gone
                self._failure = failure
                self._open.clear()
        if not self._open:
            self._close()

    def _fetch(self, number: int) -> tuple[CellResult | None, list[shoal.ObjectRef], BaseException | None]:
        """Return a part's result, the refs of what else it returned, and its error."""
        if self._failure is not None:
            return None, [], self._failure
        try:
            return shoal.get(self._refs[number][0]), self._refs[number][1:], None
        except Exception as error:  # the cell's own, or that of its end
            return None, [], error

    def _take_all(self) -> tuple[Any, BaseException | None]:
        parts = self._tasks.parts
        found = [self._fetch(number) for number in range(len(parts))]
        failures = [(part.label, error) for part, (_, _, error) in zip(parts, found, strict=True) if error is not None]
        caused = [failure for failure in failures if not isinstance(failure[1], TaskCancelledError)]
        error: BaseException | None = None
        if len(parts) == 1 and failures:
            error = failures[0][1]
        elif failures:
            error = group_errors(caused or failures, len(parts) - len(failures))
        if error is not None:
            first = next(number for number, (_, _, failure) in enumerate(found) if failure is not None)
            debugging.remember_cell(error, self._tasks, first)
        ended = Ended([result for result, _, _ in found], [more for _, more, _ in found], error)
        try:
            return self._take(self, ended), None
        except Exception as failure:
            return None, failure
        finally:
            if self._host is not None:
                shoal.kill(self._host)

    @property
    def source(self) -> CellSource:
        """The cell."""
        return self._tasks.spec.source

    def collect(self, values: Sequence[Any]) -> Any:
        """Put the values of the parts together."""
        return collect(self._tasks.kind, [part.key for part in self._tasks.parts], values)


def describe_state(num_ended: int, num_parts: int, is_cancelled: bool) -> str:
    """Say how a cell stands of which so many parts have ended."""
    if num_ended < num_parts:
        return "running" if num_parts == 1 else f"{num_ended} of {num_parts} runs have ended"
    return "cancelled" if is_cancelled else "ended"


def collect(kind: str, keys: Sequence[Any], values: Sequence[Any]) -> Any:
    """Put values together: ``"one"``, a ``"list"``, or a ``"dict"`` by key; pairs, if keys cannot be a dictionary's."""
    if kind == "one":
        return values[0]
    if kind == "list":
        return list(values)
    pairs = list(zip(keys, values, strict=True))
    try:
        collected = dict(pairs)
    except TypeError:  # not hashable
        return pairs
    return collected if len(collected) == len(pairs) else pairs


class CellTimeoutError(ShoalError, TimeoutError):
    """The cell took longer than it may. ``timeout`` is in seconds."""

    timeout: float

    def _render_traceback_(self) -> list[str]:
        return [f"TimeoutError: {self}"]
