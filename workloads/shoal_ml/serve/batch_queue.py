"""What makes batches of single requests: a queue without clock and without I/O.

A batch goes out when it is full, or when its oldest item has waited long enough, as soon as a place for a batch is
free. While all places are taken, items gather, so that batches grow with the load by themselves.
"""

from __future__ import annotations

import dataclasses
from collections import OrderedDict, deque
from collections.abc import Callable, Hashable
from typing import Any


@dataclasses.dataclass(slots=True)
class _Waiting:
    item: Any
    arrived: float
    size: float


class BatchQueue:
    """Items wait in buckets; a batch is of one bucket.

    Parameters
    ----------
    max_size
        Items of a batch, or the sum of their sizes if *size_of* is given. An item that alone is larger goes out alone.
    max_wait
        Seconds that the oldest item waits for others.
    max_batches
        Batches under way at once.
    size_of, bucket_of
        Size of an item, and which others it may be batched with.
    """

    def __init__(
        self,
        max_size: float,
        max_wait: float,
        max_batches: int = 1,
        size_of: Callable[[Any], float] | None = None,
        bucket_of: Callable[[Any], Hashable] | None = None,
    ) -> None:
        self.max_size = max_size
        self.max_wait = max_wait
        self.max_batches = max_batches
        self._size_of = size_of
        self._bucket_of = bucket_of
        self._buckets: OrderedDict[Hashable, deque[_Waiting]] = OrderedDict()
        self.under_way = 0

    def __len__(self) -> int:
        return sum(map(len, self._buckets.values()))

    def add(self, item: Any, now: float) -> None:
        """An item arrives."""
        bucket = self._bucket_of(item) if self._bucket_of is not None else None
        size = self._size_of(item) if self._size_of is not None else 1.0
        self._buckets.setdefault(bucket, deque()).append(_Waiting(item, now, size))

    def discard(self, item: Any) -> None:
        """Nobody wants an item any more; harmless if it has gone."""
        for bucket, waiting in list(self._buckets.items()):
            for row in waiting:
                if row.item is item:
                    waiting.remove(row)
                    if not waiting:
                        del self._buckets[bucket]
                    return

    def take(self, now: float) -> list[Any] | None:
        """Return a batch that goes out now, None if there is none; :meth:`done` follows."""
        if self.under_way >= self.max_batches:
            return None
        ready = [
            (waiting[0].arrived, bucket)
            for bucket, waiting in self._buckets.items()
            if now >= waiting[0].arrived + self.max_wait or self._is_full(waiting)
        ]
        if not ready:
            return None
        bucket = min(ready, key=lambda row: row[0])[1]
        waiting = self._buckets[bucket]
        batch, size = [waiting.popleft()], 0.0
        size = batch[0].size
        while waiting and size + waiting[0].size <= self.max_size:
            batch.append(waiting.popleft())
            size += batch[-1].size
        if not waiting:
            del self._buckets[bucket]
        self.under_way += 1
        return [row.item for row in batch]

    def _is_full(self, waiting: deque[_Waiting]) -> bool:
        if self._size_of is None:
            return len(waiting) >= self.max_size
        size = 0.0
        for row in waiting:
            size += row.size
            if size >= self.max_size:
                return True
        return False

    def done(self) -> None:
        """A batch has been processed."""
        self.under_way -= 1

    def next_time(self) -> float | None:
        """Return when the next batch is due if nothing else happens; None if nothing waits, or no place is free."""
        if not self._buckets or self.under_way >= self.max_batches:
            return None
        return min(waiting[0].arrived for waiting in self._buckets.values()) + self.max_wait
