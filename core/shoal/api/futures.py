"""``Executor``: the standard library's way of running functions elsewhere, in the cluster."""

from __future__ import annotations

import concurrent.futures
import queue
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING, Any

from shoal.api.iteration import map as map_in_chunks
from shoal.api.remote import RemoteFunction, remote
from shoal.api.session import owner_or_init
from shoal.api.values import cancel, get
from shoal.machines.objects import Entry
from shoal.model.errors import OptionError, TaskCancelledError
from shoal.model.options import TaskOptions, is_number, with_changes
from shoal.runtime.refs import ObjectRef

if TYPE_CHECKING:
    from shoal.runtime.base_owner import BaseOwner


class Executor(concurrent.futures.Executor):
    """A ``concurrent.futures.Executor`` whose functions run as tasks.

    Its futures are those of the standard library: ``wait``, ``as_completed``, ``loop.run_in_executor`` and callbacks
    work. ``cancel`` stops a function that runs, too.

    Parameters
    ----------
    max_workers
        Functions that run at once at most; by default as many as there is room for.
    **options
        Options of the tasks; see :class:`shoal.model.options.TaskOptions`.

    Examples
    --------
    >>> import shoal
    >>> with shoal.init(num_cpus=1), shoal.Executor() as executor:
    ...     executor.submit(pow, 2, 5).result()
    32
    """

    def __init__(self, max_workers: int | None = None, **options: Any) -> None:
        if max_workers is not None and not (is_number(max_workers, int) and max_workers >= 1):
            raise OptionError(
                f"`max_workers` must be a whole number from 1 up, not {max_workers!r}.", option="max_workers"
            )
        if "num_returns" in options:
            raise OptionError("A function of an executor has one result.", option="num_returns")
        with_changes(TaskOptions(), options)
        self._options = options
        self._max_workers = max_workers
        self._lock = threading.Lock()
        self._waiting: deque[tuple[_Future, Any]] = deque()
        self._running: dict[str, _Future] = {}
        self._functions: dict[Any, RemoteFunction] = {}
        self._done = _Done()
        self._thread: threading.Thread | None = None
        self._closed = False
        self._owner: BaseOwner | None = None

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> concurrent.futures.Future[Any]:
        """Have ``fn(*args, **kwargs)`` run in the cluster; what cannot travel there is the future's error.

        Raises
        ------
        RuntimeError
            The executor was shut down.
        """
        future = _Future(self)
        with self._lock:
            if self._closed:
                raise RuntimeError("cannot schedule new futures after shutdown")
            function, owner = self._remote(fn), self._owner_here()
            self._waiting.append((future, lambda: function.submit_to(owner, args, kwargs)))
            self._start_thread()
        self._launch()
        return future

    def map(
        self,
        fn: Callable[..., Any],
        *iterables: Iterable[Any],
        timeout: float | None = None,
        chunksize: int | None = None,
    ) -> Iterator[Any]:
        """Give the results of *fn* in order; chunks follow what the calls take unless *chunksize* is given."""
        if self._closed:
            raise RuntimeError("cannot schedule new futures after shutdown")
        function = self._remote(fn)
        return map_in_chunks(
            function, *iterables, chunk_size=chunksize, max_in_flight=self._max_workers, timeout=timeout
        )

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """Take no more work; with *wait*, return when all has ended."""
        with self._lock:
            self._closed = True
            dropped = list(self._waiting) if cancel_futures else []
            for item in dropped:
                self._waiting.remove(item)
            thread = self._thread
            if thread is not None and not self._waiting and not self._running:
                self._done.queue.put(None)
        for future, _ in dropped:
            concurrent.futures.Future.cancel(future)
        if wait and thread is not None and thread is not threading.current_thread():
            thread.join()

    def _remote(self, fn: Callable[..., Any]) -> RemoteFunction:
        if isinstance(fn, RemoteFunction):
            return fn.options(**self._options)
        try:
            function = self._functions.get(fn)
        except TypeError:  # not hashable
            return self._make(fn)
        if function is None:
            function = self._functions[fn] = self._make(fn)
        return function

    def _make(self, fn: Callable[..., Any]) -> RemoteFunction:
        function = remote(fn)
        if not isinstance(function, RemoteFunction):
            raise TypeError(f"An executor runs functions, not {type(fn).__name__}.")
        return function.options(**{"num_returns": 1, **self._options})

    def _launch(self) -> None:
        """Submit what may run now."""
        while True:
            with self._lock:
                if not self._waiting or (self._max_workers and len(self._running) >= self._max_workers):
                    return
                future, submit = self._waiting.popleft()
                if future.cancelled():
                    continue
                try:
                    ref = future.ref = submit()
                except Exception as error:  # boundary: what cannot travel, or not any more, is the future's own error
                    failure = error
                else:
                    self._running[ref.id] = future
                    ref._owner.watch([ref], self._done)
                    continue
            future.fail(failure)

    def _owner_here(self) -> BaseOwner:
        """Return the runtime of the session in which the executor was first used: it works in no other."""
        if self._owner is None:
            self._owner = owner_or_init()
        return self._owner

    def _start_thread(self) -> None:
        if self._thread is None:
            self._thread = threading.Thread(target=self._serve, name="shoal-executor", daemon=True)
            self._thread.start()

    def _serve(self) -> None:
        """Settle futures as their values come: callbacks are user code, and must not run on the event loop."""
        while True:
            object_id = self._done.queue.get()
            with self._lock:
                future = self._running.pop(object_id, None) if object_id is not None else None
            if future is not None:
                future.settle()
                self._launch()
            with self._lock:
                if self._closed and not self._waiting and not self._running:
                    return


class _Done:
    """Notes objects that are ready; None ends whoever takes them."""

    over = False

    def __init__(self) -> None:
        self.queue: queue.SimpleQueue[str | None] = queue.SimpleQueue()

    def __call__(self, entry: Entry, /) -> None:
        self.queue.put(entry.object_id)


class _Future(concurrent.futures.Future[Any]):
    """Stays pending, and so can be cancelled, until its value is there."""

    def __init__(self, executor: Executor) -> None:
        super().__init__()
        self._executor = executor
        self.ref: ObjectRef | None = None

    def cancel(self) -> bool:
        cancelled = super().cancel()
        if cancelled and self.ref is not None:
            cancel(self.ref)
        return cancelled

    def fail(self, error: Exception) -> None:
        """It was never begun."""
        if self.set_running_or_notify_cancel():
            self.set_exception(error)

    def settle(self) -> None:
        """Take over the value that is there."""
        ref, self.ref = self.ref, None
        if not self.set_running_or_notify_cancel():
            return
        try:
            value = get(ref) if ref is not None else None
        except TaskCancelledError as error:
            self.set_exception(concurrent.futures.CancelledError(str(error)))
        except BaseException as error:  # whatever the function raised
            self.set_exception(error)
        else:
            self.set_result(value)


__all__ = ["Executor"]
