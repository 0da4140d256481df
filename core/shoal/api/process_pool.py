"""``Pool``: the interface of ``multiprocessing.Pool``, in the cluster."""

from __future__ import annotations

import concurrent.futures
import itertools
import multiprocessing
import os
from collections.abc import Callable, Iterable, Iterator
from typing import Any

from shoal.api.futures import Executor
from shoal.api.iteration import map as map_in_chunks
from shoal.api.remote import RemoteFunction, remote
from shoal.model.errors import OptionError
from shoal.model.ids import random_id

#: Pools whose initializer has run in this process.
_initialized: set[str] = set()


class Pool:
    """Runs functions as ``multiprocessing.Pool`` does, on as many executors as the cluster has.

    There are no processes of its own: an executor serves whoever needs it, and runs the pool's *initializer* before the
    pool's first function there.

    Parameters
    ----------
    processes
        Functions that run at once at most; by default as many as there is room for.
    initializer, initargs
        Called once in each executor.
    **options
        Options of the tasks.
    """

    def __init__(
        self,
        processes: int | None = None,
        initializer: Callable[..., Any] | None = None,
        initargs: Iterable[Any] = (),
        **options: Any,
    ) -> None:
        if initializer is not None and not callable(initializer):
            raise TypeError("initializer must be a callable")
        if "maxtasksperchild" in options:
            raise OptionError(
                "`maxtasksperchild` means nothing here: executors are the cluster's.", option="maxtasksperchild"
            )
        self._executor = Executor(processes, **options)
        self._processes = processes
        self._options = options
        self._id = random_id("pool")
        self._initializer = initializer
        self._initargs = tuple(initargs)
        self._results: list[AsyncResult] = []
        self._state = "running"

    def apply(self, func: Callable[..., Any], args: Iterable[Any] = (), kwds: dict[str, Any] | None = None) -> Any:
        """Call *func* and wait for its result."""
        return self.apply_async(func, args, kwds).get()

    def apply_async(
        self,
        func: Callable[..., Any],
        args: Iterable[Any] = (),
        kwds: dict[str, Any] | None = None,
        callback: Callable[[Any], Any] | None = None,
        error_callback: Callable[[BaseException], Any] | None = None,
    ) -> AsyncResult:
        """Call *func*; returns at once."""
        self._check_running()
        future = self._executor.submit(self._prepared(func), *args, **(kwds or {}))
        return self._result([future], single=True, callback=callback, error_callback=error_callback)

    def map(self, func: Callable[..., Any], iterable: Iterable[Any], chunksize: int | None = None) -> list[Any]:
        """Return the results of *func* for each item, in order."""
        return list(self.imap(func, iterable, chunksize))

    def map_async(
        self,
        func: Callable[..., Any],
        iterable: Iterable[Any],
        chunksize: int | None = None,
        callback: Callable[[Any], Any] | None = None,
        error_callback: Callable[[BaseException], Any] | None = None,
    ) -> AsyncResult:
        """As :meth:`map`; returns at once."""
        return self.starmap_async(func, ((item,) for item in iterable), chunksize, callback, error_callback)

    def starmap(
        self, func: Callable[..., Any], iterable: Iterable[Iterable[Any]], chunksize: int | None = None
    ) -> list[Any]:
        """As :meth:`map` for items that are tuples of arguments."""
        return self.starmap_async(func, iterable, chunksize).get()  # type: ignore[no-any-return]

    def starmap_async(
        self,
        func: Callable[..., Any],
        iterable: Iterable[Iterable[Any]],
        chunksize: int | None = None,
        callback: Callable[[Any], Any] | None = None,
        error_callback: Callable[[BaseException], Any] | None = None,
    ) -> AsyncResult:
        """As :meth:`starmap`; returns at once."""
        self._check_running()
        rows = [tuple(row) for row in iterable]
        size = chunksize or max(1, len(rows) // (4 * (self._processes or os.cpu_count() or 1)))
        call = _CallEach(self._prepared(func))
        chunks = [rows[start : start + size] for start in range(0, len(rows), size)]
        futures = [self._executor.submit(call, chunk) for chunk in chunks]
        return self._result(futures, single=False, callback=callback, error_callback=error_callback)

    def imap(self, func: Callable[..., Any], iterable: Iterable[Any], chunksize: int | None = None) -> Iterator[Any]:
        """Give the results in order, reading the items as results are taken."""
        return self._imap(func, iterable, chunksize, ordered=True)

    def imap_unordered(
        self, func: Callable[..., Any], iterable: Iterable[Any], chunksize: int | None = None
    ) -> Iterator[Any]:
        """Give the results as they are ready."""
        return self._imap(func, iterable, chunksize, ordered=False)

    def close(self) -> None:
        """Take no more work."""
        self._state = "closed"
        self._executor.shutdown(wait=False)

    def terminate(self) -> None:
        """Stop what runs, and take no more work."""
        self._state = "terminated"
        for result in self._results:
            result._cancel()
        self._executor.shutdown(wait=False, cancel_futures=True)

    def join(self) -> None:
        """Wait until all work has ended; after :meth:`close` or :meth:`terminate`."""
        if self._state == "running":
            raise ValueError("Pool is still running")
        self._executor.shutdown(wait=True)

    def __enter__(self) -> Pool:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.terminate()

    def _imap(
        self, func: Callable[..., Any], iterable: Iterable[Any], chunksize: int | None, ordered: bool
    ) -> Iterator[Any]:
        self._check_running()
        function = remote(self._prepared(func))
        assert isinstance(function, RemoteFunction)
        return map_in_chunks(
            function.options(**self._options),
            iterable,
            chunk_size=chunksize,
            max_in_flight=self._processes,
            ordered=ordered,
        )

    def _prepared(self, func: Callable[..., Any]) -> Callable[..., Any]:
        if not callable(func):
            raise TypeError(f"A pool calls functions, not {type(func).__name__}.")
        if self._initializer is None:
            return func
        return _Initialized(self._id, self._initializer, self._initargs, func)

    def _result(self, futures: list[concurrent.futures.Future[Any]], **more: Any) -> AsyncResult:
        self._results = [result for result in self._results if not result.ready()]
        result = AsyncResult(futures, **more)
        self._results.append(result)
        return result

    def _check_running(self) -> None:
        if self._state != "running":
            raise ValueError("Pool not running")


class AsyncResult:
    """What the ``…_async`` methods of a pool return."""

    def __init__(
        self,
        futures: list[concurrent.futures.Future[Any]],
        *,
        single: bool,
        callback: Callable[[Any], Any] | None,
        error_callback: Callable[[BaseException], Any] | None,
    ) -> None:
        self._futures = futures
        self._single = single
        self._callback = callback
        self._error_callback = error_callback
        self._left = len(futures)
        for future in futures:
            future.add_done_callback(self._one_done)

    def get(self, timeout: float | None = None) -> Any:
        """Return the result, or raise what the function raised.

        Raises
        ------
        multiprocessing.TimeoutError
            It was not there within *timeout* seconds.
        """
        self.wait(timeout)
        if not self.ready():
            raise multiprocessing.TimeoutError
        values = [future.result() for future in self._futures]
        return values[0] if self._single else list(itertools.chain.from_iterable(values))

    def wait(self, timeout: float | None = None) -> None:
        """Wait until the result is there, or *timeout* seconds."""
        concurrent.futures.wait(self._futures, timeout)

    def ready(self) -> bool:
        return all(future.done() for future in self._futures)

    def successful(self) -> bool:
        """Return whether it ended without an exception; ``ValueError`` if it has not ended."""
        if not self.ready():
            raise ValueError(f"{self!r} not ready")
        return not any(future.cancelled() or future.exception() for future in self._futures)

    def _one_done(self, future: concurrent.futures.Future[Any]) -> None:
        self._left -= 1
        if self._left:
            return
        if self.successful():
            if self._callback is not None:
                self._callback(self.get())
        elif self._error_callback is not None:
            failed = [future.exception() for future in self._futures if not future.cancelled()]
            self._error_callback(next((error for error in failed if error), concurrent.futures.CancelledError()))

    def _cancel(self) -> None:
        for future in self._futures:
            future.cancel()


class _Initialized:
    """A function before whose first call, in each process, the pool's initializer is called."""

    def __init__(self, pool_id: str, initializer: Callable[..., Any], initargs: tuple[Any, ...], func: Any) -> None:
        self._parts = pool_id, initializer, initargs, func

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        pool_id, initializer, initargs, func = self._parts
        if pool_id not in _initialized:
            initializer(*initargs)
            _initialized.add(pool_id)
        return func(*args, **kwargs)


class _CallEach:
    """Calls a function for each of a list of argument tuples."""

    def __init__(self, func: Callable[..., Any]) -> None:
        self._func = func

    def __call__(self, rows: list[tuple[Any, ...]]) -> list[Any]:
        return [self._func(*row) for row in rows]


__all__ = ["AsyncResult", "Pool"]
