"""Values as they come: ``as_completed``, and ``map`` over any number of small calls."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import math
import queue
import threading
import time
from collections import deque
from collections.abc import AsyncIterator, Callable, Iterable, Iterator
from typing import Any

from shoal.api.remote import RemoteFunction, remote
from shoal.api.session import owner_or_init
from shoal.api.values import as_refs, cancel, check_timeout, get, wait
from shoal.machines.objects import Entry
from shoal.model.errors import GetTimeoutError, OptionError
from shoal.model.options import is_number
from shoal.runtime import remote_errors
from shoal.runtime.refs import ObjectRef

#: Seconds of work that one chunk should hold: long beside what sending it costs, short beside a person's patience.
CHUNK_SECONDS = 0.03
#: Items in one chunk at most, and how much larger a chunk may be than the one before.
MAX_CHUNK, GROWTH = 10_000, 4
#: Chunks under way at once, unless told otherwise: work for every executor of a small cluster, with some to spare.
MAX_IN_FLIGHT = 64


class as_completed(Iterator[ObjectRef], AsyncIterator[ObjectRef]):
    """Iterate over refs in the order in which they become ready; with ``for`` or ``async for``.

    Each comes once; one whose task has failed comes too, and ``get`` of it raises. However many there are, each costs
    the same.

    Parameters
    ----------
    refs
        Distinct refs.
    timeout
        Seconds for all of them together; None waits without end.

    Raises
    ------
    GetTimeoutError
        Some were not ready in time; how many says ``missing``.

    Examples
    --------
    >>> import shoal
    >>> with shoal.init(num_cpus=1):
    ...     sorted(shoal.get(ref) for ref in shoal.as_completed([shoal.put(2), shoal.put(1)]))
    [1, 2]
    """

    def __init__(self, refs: Iterable[ObjectRef], *, timeout: float | None = None) -> None:
        check_timeout(timeout)
        wanted = as_refs(refs)
        self._left = {ref.id: ref for ref in wanted}
        if len(self._left) != len(wanted):
            raise OptionError("`as_completed` takes each ref once.", option="refs")
        self._deadline = None if timeout is None else time.monotonic() + timeout
        self._timeout = timeout
        self._arrivals = _Arrivals()
        if wanted:
            self._owner = wanted[0]._owner
            self._entries = self._owner.watch(wanted, self._arrivals)

    @property
    def missing(self) -> int:
        """How many have not come."""
        return len(self._left)

    def __next__(self) -> ObjectRef:
        if not self._left:
            raise StopIteration
        with contextlib.suppress(queue.Empty):
            return self._left.pop(self._arrivals.queue.get_nowait())
        seconds = self._seconds_left()
        try:
            with self._owner.telling_that_we_wait(self._entries):
                return self._left.pop(self._arrivals.queue.get(timeout=seconds))
        except queue.Empty:
            raise self._too_late() from None

    async def __anext__(self) -> ObjectRef:
        if not self._left:
            raise StopAsyncIteration
        while True:
            self._arrivals.listen(asyncio.get_running_loop())
            with contextlib.suppress(queue.Empty):
                return self._left.pop(self._arrivals.queue.get_nowait())
            seconds = self._seconds_left()
            try:
                await asyncio.wait_for(self._arrivals.event.wait(), seconds)
            except TimeoutError:
                raise self._too_late() from None

    def _seconds_left(self) -> float | None:
        if self._deadline is None:
            return None
        return max(0.0, min(self._deadline - time.monotonic(), threading.TIMEOUT_MAX))

    def _too_late(self) -> GetTimeoutError:
        return GetTimeoutError(
            f"Waited {self._timeout:g} s; {len(self._left)} values are not ready. The work goes on.",
            timeout=self._timeout,
            missing=len(self._left),
        )

    def __del__(self) -> None:
        arrivals = getattr(self, "_arrivals", None)
        if arrivals is not None:
            arrivals.over = True


class _Arrivals:
    """Notes the ids of objects that have become ready; on any thread."""

    def __init__(self) -> None:
        self.over = False
        self.queue: queue.SimpleQueue[str] = queue.SimpleQueue()
        self.event = asyncio.Event()
        self._loop: asyncio.AbstractEventLoop | None = None

    def __call__(self, entry: Entry, /) -> None:
        if not self.over:
            self.queue.put(entry.object_id)
            if self._loop is not None:
                with contextlib.suppress(RuntimeError):  # the loop has ended
                    self._loop.call_soon_threadsafe(self.event.set)

    def listen(self, loop: asyncio.AbstractEventLoop) -> None:
        """Set the event, on *loop*, at each arrival from now on."""
        self.event.clear()
        self._loop = loop


def map(
    function: Callable[..., Any] | RemoteFunction,
    /,
    *iterables: Iterable[Any],
    chunk_size: int | None = None,
    max_in_flight: int | None = None,
    ordered: bool = True,
    timeout: float | None = None,
) -> Iterator[Any]:
    """Call *function* with the items of the iterables, in the cluster, and give the results as they come.

    Calls are sent in chunks, so that a million calls of a microsecond each take seconds: the first are small and are
    timed, later ones hold about 30 ms of work. Inputs are read as results are taken, not far ahead: they may be
    endless.

    Parameters
    ----------
    function
        A plain function, or a remote one: its options hold for each chunk.
    *iterables
        As for the built-in ``map``; the shortest ends it. Refs among the items arrive as their values.
    chunk_size
        Calls in one chunk; by default it follows what they take.
    max_in_flight
        Chunks sent and not taken, 1 or more; 64 by default.
    ordered
        Give results in the order of the items; otherwise as they are ready.
    timeout
        Seconds to wait for the next result at most.

    Raises
    ------
    Exception
        What *function* raised for an item, in the place of its result, with the remote traceback. That, or dropping or
        closing the iterator, cancels the rest.
    GetTimeoutError
        The next result was not ready in time.

    Examples
    --------
    >>> import shoal
    >>> with shoal.init(num_cpus=1):
    ...     list(shoal.map(pow, range(4), [2] * 4))
    [0, 1, 4, 9]
    """
    if not iterables:
        raise OptionError("`map` takes at least one iterable.", option="iterables")
    for name, value in (("chunk_size", chunk_size), ("max_in_flight", max_in_flight)):
        if value is not None and not (is_number(value, int) and value >= 1):
            raise OptionError(f"`{name}` must be a whole number from 1 up, not {value!r}.", option=name)
    check_timeout(timeout)
    if not isinstance(function, RemoteFunction) and not callable(function):
        raise TypeError(f"`map` takes a function, not {type(function).__name__}.")
    items = zip(*(iter(iterable) for iterable in iterables), strict=False)
    return _run(_in_chunks(function), items, chunk_size, max_in_flight or MAX_IN_FLIGHT, ordered, timeout)


def _run(
    run_chunk: RemoteFunction,
    items: Iterator[tuple[Any, ...]],
    chunk_size: int | None,
    max_in_flight: int,
    ordered: bool,
    timeout: float | None,
) -> Iterator[Any]:
    owner_or_init()
    under_way: deque[ObjectRef] = deque()
    size = chunk_size or 1
    try:
        while True:
            while len(under_way) < max_in_flight:
                chunk = list(itertools.islice(items, size))
                if not chunk:
                    break
                under_way.append(run_chunk.remote(chunk))
            if not under_way:
                return
            ref = under_way[0] if ordered else _first_ready(under_way, timeout)
            values, seconds, error = get(ref, timeout=timeout)
            under_way.remove(ref)
            if chunk_size is None and values:
                size = _next_size(size, seconds / len(values))
            yield from values
            if error is not None:
                raise remote_errors.load(error)
    finally:
        for ref in under_way:
            cancel(ref)


def _first_ready(refs: Iterable[ObjectRef], timeout: float | None) -> ObjectRef:
    ready, _ = wait(list(refs), timeout=timeout)
    if not ready:
        raise GetTimeoutError(f"Waited {timeout:g} s for the next result.", timeout=timeout)
    first: ObjectRef = ready[0]
    return first


def _next_size(size: int, seconds_per_item: float) -> int:
    wanted = math.ceil(CHUNK_SECONDS / max(seconds_per_item, 1e-7))
    return max(1, min(wanted, size * GROWTH, MAX_CHUNK))


def _in_chunks(function: Callable[..., Any] | RemoteFunction) -> RemoteFunction:
    """Return a remote function that calls *function* for each of a list of argument tuples."""
    if isinstance(function, RemoteFunction):
        options, function = function._options, function._function
        made = RemoteFunction(_ChunkOf(function), options)
    else:
        made = remote(_ChunkOf(function))
    name = getattr(function, "__name__", type(function).__name__)
    return made.options(name=made._options.name or name, num_returns=1)


class _ChunkOf:
    """Calls a function many times in one task."""

    def __init__(self, function: Callable[..., Any]) -> None:
        self._function = function

    def __call__(self, rows: list[tuple[Any, ...]]) -> tuple[list[Any], float, bytes | None]:
        """Return the results up to the first exception, the seconds they took, and that exception."""
        function = self._function
        values: list[Any] = []
        begin = time.perf_counter()
        try:
            for row in rows:
                if any(isinstance(item, ObjectRef) for item in row):
                    row = tuple(get(item) if isinstance(item, ObjectRef) else item for item in row)
                values.append(function(*row))
        except Exception as error:  # boundary: user code; it is raised again where its result would have come
            error.__traceback__ = remote_errors.strip_own_frames(error.__traceback__, __file__)
            return values, time.perf_counter() - begin, remote_errors.dump(error)
        return values, time.perf_counter() - begin, None


__all__ = ["as_completed", "map"]
