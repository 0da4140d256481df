"""``Queue``: a first-in-first-out queue that any task, actor and driver can use."""

from __future__ import annotations

import asyncio
import queue
from collections.abc import Iterable, Mapping
from typing import Any

from shoal.api.actors import kill
from shoal.api.remote import ActorClass, remote
from shoal.api.values import check_timeout, get
from shoal.model.errors import OptionError
from shoal.model.options import is_number


class Queue:
    """A queue that lives in an actor; pass it to tasks and actors like any value.

    It works as the standard library's ``queue.Queue``, whose ``Full`` and ``Empty`` it raises. It ends with its last
    holder, or by :meth:`shutdown`.

    Parameters
    ----------
    maxsize
        Items it holds at most; 0 for any number.
    actor_options
        Options of the actor, such as ``{"name": "results"}``.

    Examples
    --------
    >>> import shoal
    >>> with shoal.init(num_cpus=1):
    ...     queue = shoal.Queue(maxsize=2)
    ...     queue.put("a")
    ...     queue.get()
    'a'
    """

    def __init__(self, maxsize: int = 0, *, actor_options: Mapping[str, Any] | None = None) -> None:
        if not (is_number(maxsize, int) and maxsize >= 0):
            raise OptionError(f"`maxsize` must be a whole number from 0 up, not {maxsize!r}.", option="maxsize")
        actor_class = remote(_QueueActor)
        assert isinstance(actor_class, ActorClass)
        self.maxsize = maxsize
        self._actor = actor_class.options(**dict(actor_options or {})).remote(maxsize)

    def put(self, item: Any, block: bool = True, timeout: float | None = None) -> None:
        """Add *item*; waits for room if *block*, for *timeout* seconds at most.

        Raises
        ------
        queue.Full
            There was no room (in time).
        """
        check_timeout(timeout)
        if not get(self._actor.put.remote([item], timeout if block else 0.0)):
            raise queue.Full

    def get(self, block: bool = True, timeout: float | None = None) -> Any:
        """Take the oldest item; waits for one if *block*, for *timeout* seconds at most.

        Raises
        ------
        queue.Empty
            There was none (in time).
        """
        check_timeout(timeout)
        items = get(self._actor.get.remote(timeout if block else 0.0))
        if not items:
            raise queue.Empty
        return items[0]

    def put_nowait(self, item: Any) -> None:
        """As :meth:`put` without waiting."""
        self.put(item, block=False)

    def get_nowait(self) -> Any:
        """As :meth:`get` without waiting."""
        return self.get(block=False)

    async def put_async(self, item: Any, timeout: float | None = None) -> None:
        """As :meth:`put`, on the caller's event loop."""
        check_timeout(timeout)
        if not await self._actor.put.remote([item], timeout):
            raise queue.Full

    async def get_async(self, timeout: float | None = None) -> Any:
        """As :meth:`get`, on the caller's event loop."""
        check_timeout(timeout)
        items = await self._actor.get.remote(timeout)
        if not items:
            raise queue.Empty
        return items[0]

    def put_nowait_batch(self, items: Iterable[Any]) -> None:
        """Add all of *items*, or none and raise ``queue.Full``."""
        if not get(self._actor.put.remote(list(items), 0.0)):
            raise queue.Full

    def get_nowait_batch(self, num_items: int) -> list[Any]:
        """Take the *num_items* oldest items, or none and raise ``queue.Empty``."""
        if not (is_number(num_items, int) and num_items >= 0):
            raise OptionError(f"`num_items` must be a whole number from 0 up, not {num_items!r}.", option="num_items")
        items = get(self._actor.get_batch.remote(num_items))
        if items is None:
            raise queue.Empty
        return list(items)

    def qsize(self) -> int:
        """Return how many items there are now."""
        return int(get(self._actor.qsize.remote()))

    def empty(self) -> bool:
        return self.qsize() == 0

    def full(self) -> bool:
        return bool(self.maxsize) and self.qsize() >= self.maxsize

    def shutdown(self) -> None:
        """End the queue; whoever waits for it gets ``ActorDiedError``."""
        kill(self._actor)

    def __len__(self) -> int:
        return self.qsize()


class _QueueActor:
    """Holds the items; all calls run on one event loop, so none needs a lock."""

    def __init__(self, maxsize: int) -> None:
        self._items: asyncio.Queue[Any] = asyncio.Queue(maxsize)

    async def put(self, items: list[Any], timeout: float | None) -> bool:
        if timeout == 0:
            if self._items.maxsize and self._items.qsize() + len(items) > self._items.maxsize:
                return False
            for item in items:
                self._items.put_nowait(item)
            return True
        try:
            await asyncio.wait_for(self._items.put(items[0]), timeout)
        except TimeoutError:
            return False
        return True

    async def get(self, timeout: float | None) -> list[Any]:
        if timeout == 0:
            return [] if self._items.empty() else [self._items.get_nowait()]
        try:
            return [await asyncio.wait_for(self._items.get(), timeout)]
        except TimeoutError:
            return []

    async def get_batch(self, count: int) -> list[Any] | None:
        if self._items.qsize() < count:
            return None
        return [self._items.get_nowait() for _ in range(count)]

    async def qsize(self) -> int:
        return self._items.qsize()


__all__ = ["Queue"]
