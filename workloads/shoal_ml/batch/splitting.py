"""Datasets in parts: for training and testing, and a stream that several ranks share."""

from __future__ import annotations

import dataclasses
import itertools
import threading
from collections import deque
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

import shoal
from shoal_ml.batch import consuming
from shoal_ml.batch.batch_formats import to_batch
from shoal_ml.batch.execution import Run, RunOptions
from shoal_ml.batch.handles import Handle
from shoal_ml.batch.plan import Plan
from shoal_ml.batch.sources.combined import take_first

if TYPE_CHECKING:
    from shoal_ml.batch.blocks import Block

#: Shares that may wait for one rank while another takes none.
MAX_AHEAD = 64


def split_rows(handles: Sequence[Handle], sizes: Sequence[int]) -> list[list[Handle]]:
    """Divide handles into parts of these many rows, in order; the data stays where it is."""
    queue = deque(handle for handle in handles if handle.num_rows)
    return [take_first(queue, size) for size in sizes]


class Dealer:
    """An actor that runs a plan and deals its blocks to ranks; each epoch runs the plan anew.

    With *equal* every rank gets the same number of rows: of each block the same share, what does not divide goes on
    with the next, and the last few rows, fewer than there are ranks, are left out.
    """

    def __init__(self, plan: Plan, options: RunOptions, num_ranks: int, equal: bool) -> None:
        self._plan, self._options = plan, options
        self._num_ranks, self._equal = num_ranks, equal
        self._changed = threading.Condition()
        self._epoch = -1
        self._run: Run | None = None
        self._error: BaseException | None = None
        self._rest: deque[Handle] = deque()
        self._waiting: list[deque[list[Handle]]] = []
        self._turns = itertools.cycle(range(num_ranks))
        self._dealing = False

    def next(self, rank: int, epoch: int) -> list[Handle] | None:
        """Return the next blocks of a rank; None at the end of the epoch."""
        with self._changed:
            if epoch > self._epoch:
                self._begin(epoch)
            while True:
                if epoch < self._epoch:
                    return None  # the others have begun another
                if self._waiting[rank]:
                    self._changed.notify_all()
                    return self._waiting[rank].popleft()
                if self._error is not None:
                    raise self._error
                if self._run is None:
                    return None
                if self._dealing or max(map(len, self._waiting)) >= MAX_AHEAD:
                    self._changed.wait()
                else:
                    self._deal()

    def close(self) -> None:
        """End what runs."""
        with self._changed:
            self._end()

    def _begin(self, epoch: int) -> None:
        self._end()
        self._epoch, self._error = epoch, None
        self._rest.clear()
        self._waiting = [deque() for _ in range(self._num_ranks)]
        self._turns = itertools.cycle(range(self._num_ranks))
        self._run = Run(self._plan, self._options).start()

    def _deal(self) -> None:
        """Take one block of the run and share it out; the others wait, or take what is there."""
        run, epoch = self._run, self._epoch
        assert run is not None
        self._dealing = True
        handle, error = None, None
        self._changed.release()
        try:
            handle = next(run, None)
        except BaseException as raised:  # whatever the plan raised, every rank is told
            error = raised
        finally:
            self._changed.acquire()
            self._dealing = False
            self._changed.notify_all()
        if epoch != self._epoch:
            return
        self._error = error
        if handle is None:
            self._end()
        elif handle.num_rows and self._equal:
            self._share(handle)
        elif handle.num_rows:
            self._waiting[next(self._turns)].append([handle])

    def _share(self, handle: Handle) -> None:
        self._rest.append(handle)
        each = sum(rest.num_rows for rest in self._rest) // self._num_ranks
        if each:
            for waiting in self._waiting:
                waiting.append(take_first(self._rest, each))

    def _end(self) -> None:
        if self._run is not None:
            run, self._run = self._run, None
            run.close()
        self._changed.notify_all()


@dataclasses.dataclass
class Shard:
    """One rank's part of a dataset that is dealt out as it is made. Pass it to the rank's process.

    Each iteration is an epoch; the ranks' epochs go together: the plan runs once for all of them.
    """

    dealer: shoal.ActorHandle
    rank: int
    num_ranks: int
    epoch: int = -1

    def iter_batches(
        self, *, batch_size: int | None = 256, batch_format: str = "numpy", drop_last: bool = False
    ) -> Iterator[Any]:
        """Give this rank's rows of one epoch in batches; see :meth:`Dataset.iter_batches`."""
        for block in consuming.in_batches(self._blocks(), batch_size, drop_last=drop_last):
            yield to_batch(block, batch_format)

    def iter_torch_batches(self, *, batch_size: int | None = 256, drop_last: bool = False) -> Iterator[dict[str, Any]]:
        """The same as dicts of tensors."""
        return self.iter_batches(batch_size=batch_size, batch_format="torch", drop_last=drop_last)

    def _blocks(self) -> Iterator[Block]:
        self.epoch += 1
        ahead = self.dealer.next.remote(self.rank, self.epoch)
        while (handles := shoal.get(ahead)) is not None:
            ahead = self.dealer.next.remote(self.rank, self.epoch)
            for handle in handles:
                yield consuming.load(handle)


def deal(plan: Plan, options: RunOptions, num_ranks: int, equal: bool) -> list[Shard]:
    """Start the dealer and return its shards, which keep it alive."""
    actor = shoal.remote(Dealer).options(max_concurrency=2 * num_ranks + 1)
    dealer = actor.remote(plan, options, num_ranks, equal)
    return [Shard(dealer, rank, num_ranks) for rank in range(num_ranks)]


__all__ = ["Dealer", "Shard", "deal", "split_rows"]
