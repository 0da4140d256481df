"""How an executor's work gets its turn: one thing at a time, on threads, or on an event loop.

Tasks, and calls of ordinary actors, run one after another on the main thread: that is where a signal can interrupt
them, and where libraries expect to be. An actor with ``max_concurrency`` or concurrency groups runs each group's calls
on threads of its own; one with ``async def`` methods runs all of them on an event loop in the main thread. In every
lane calls begin in the order in which they came.
"""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import ctypes
import queue
import signal
import threading
from collections import deque
from collections.abc import Callable, Mapping
from typing import Protocol

from shoal.runtime import context as contexts
from shoal.runtime.calling import Caller, Item, Outcome
from shoal.runtime.crew import CallLater, Crew
from shoal.runtime.inbox import Inbox

#: Calls of an async actor that run at once, unless told otherwise.
ASYNC_CONCURRENCY = 1_000


class Lane(Protocol):
    """``put`` and ``interrupt`` are called on the executor's event loop, :meth:`run` on its main thread, for ever."""

    def put(self, item: Item) -> None:
        """Run *item* when its turn comes."""

    def interrupt(self, item: Item) -> None:
        """Stop *item*, which has begun and may just have ended; ``context.cancelled`` is set."""

    def run(self) -> None:
        """Serve; returns only to have another lane take over."""


#: Takes an item for running; false if it was taken back or cancelled.
Begin = Callable[[Item], bool]
Finish = Callable[[Outcome], None]


class MainLane:
    """One piece of work at a time, on the main thread."""

    def __init__(self, caller: Caller, begin: Begin, finish: Finish, until: Callable[[], bool]) -> None:
        """Serve until ``until()`` is true after a piece of work."""
        self._caller = caller
        self._begin = begin
        self._finish = finish
        self._until = until
        self._queue: queue.SimpleQueue[Item] = queue.SimpleQueue()
        self._running: Item | None = None
        self._thread_id = threading.main_thread().ident or 0
        self._handler = self._on_interrupt
        signal.signal(signal.SIGINT, self._handler)

    @property
    def running(self) -> Item | None:
        return self._running

    def put(self, item: Item) -> None:
        self._queue.put(item)

    def interrupt(self, item: Item) -> None:
        if self._running is item:
            signal.pthread_kill(self._thread_id, signal.SIGINT)

    def run(self) -> None:
        while True:
            item = self._queue.get()
            self._running = item
            if not self._begin(item):
                continue  # taken back, or cancelled
            if signal.getsignal(signal.SIGINT) is not self._handler:  # user code has set one, for its own time
                signal.signal(signal.SIGINT, self._handler)
            try:
                contexts.set_main(item.context)
                outcome = self._caller.run(item)
            except KeyboardInterrupt:  # a cancellation that came in the moment the task ended
                outcome = self._caller.interrupted(item)
            contexts.set_main(None)
            self._finish(outcome)
            del item, outcome
            if self._until():
                return

    def _on_interrupt(self, number: int, frame: object) -> None:
        running = self._running
        if running is not None and running.context.cancelled and contexts.get_current() is running.context:
            raise KeyboardInterrupt


class ThreadLane:
    """Calls of each concurrency group on that group's threads."""

    def __init__(
        self, caller: Caller, begin: Begin, finish: Finish, limits: Mapping[str, int], call_later: CallLater
    ) -> None:
        """*limits* has the number of threads of each group; "" is for calls without one."""
        self._caller = caller
        self._begin = begin
        self._finish = finish
        self._crews = {group: Crew(group, limit, self._serve, call_later) for group, limit in limits.items()}

    def put(self, item: Item) -> None:
        group = item.recipe.group
        self._crews[group if group in self._crews else ""].put(item)

    def interrupt(self, item: Item) -> None:
        thread_id = item.runner
        if thread_id is not None:
            ctypes.pythonapi.PyThreadState_SetAsyncExc(ctypes.c_ulong(thread_id), ctypes.py_object(KeyboardInterrupt))

    def run(self) -> None:
        threading.Event().wait()

    def _serve(self, item: Item) -> None:
        if self._begin(item):
            self._run(item)

    def _run(self, item: Item) -> None:
        try:
            item.runner = threading.get_ident()
            contexts.set_current(item.context)
            outcome = self._caller.run(item)
            item.runner = None
        except KeyboardInterrupt:
            outcome = self._caller.interrupted(item)
        item.runner = None
        contexts.set_current(None)
        if item.context.cancelled:
            # The interrupt may be on its way still: it must not hit the next call.
            with contextlib.suppress(KeyboardInterrupt):
                threading.Event().wait(0.01)
        self._finish(outcome)


class AsyncLane:
    """Calls as tasks of an event loop in the main thread."""

    def __init__(
        self,
        caller: Caller,
        begin: Begin,
        finish: Finish,
        limits: Mapping[str, int],
        loop: asyncio.AbstractEventLoop,
    ) -> None:
        """*limits* as for :class:`ThreadLane`: how many calls of each group run at once."""
        self._caller = caller
        self._begin = begin
        self._finish = finish
        self._limits = limits
        self._running = dict.fromkeys(limits, 0)
        self._waiting: dict[str, deque[Item]] = {group: deque() for group in limits}
        self._loop = loop
        self._inbox = Inbox(self._loop, lambda: None)
        #: The loop itself would let them be collected.
        self._tasks: set[asyncio.Task[None]] = set()

    def put(self, item: Item) -> None:
        self._inbox.put(self._arrived, item)

    def interrupt(self, item: Item) -> None:
        self._inbox.put(self._cancel, item)

    def run(self) -> None:
        asyncio.set_event_loop(self._loop)
        self._loop.run_forever()

    def _arrived(self, item: Item) -> None:
        group = item.recipe.group if item.recipe.group in self._limits else ""
        if self._running[group] < self._limits[group]:
            self._start(item, group)
        else:
            self._waiting[group].append(item)

    def _start(self, item: Item, group: str) -> None:
        if not self._begin(item):
            return
        self._running[group] += 1
        surroundings = contextvars.copy_context()
        surroundings.run(contexts.set_current, item.context)
        task = item.runner = self._loop.create_task(self._run(item, group), context=surroundings)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _run(self, item: Item, group: str) -> None:
        try:
            outcome = await self._caller.run_async(item)
        except asyncio.CancelledError:
            outcome = self._caller.interrupted(item)
        item.runner = None
        self._finish(outcome)
        self._running[group] -= 1
        waiting = self._waiting[group]
        while waiting and self._running[group] < self._limits[group]:
            self._start(waiting.popleft(), group)

    @staticmethod
    def _cancel(item: Item) -> None:
        if item.runner is not None:
            item.runner.cancel()


def limits_of(max_concurrency: int, groups: Mapping[str, int]) -> dict[str, int]:
    """Return how many calls of each group may run at once."""
    return {"": max_concurrency, **groups}
