"""Batch inference: spread the rows of an array over actors that hold a model."""

from __future__ import annotations

import dataclasses
import time
from collections import deque
from collections.abc import Sequence
from typing import Any

import shoal
from shoal.errors import OptionError
from shoal.model.options import is_number

#: Batches that wait at each replica beside the one it works on, so that it never idles between two.
AHEAD = 1


@dataclasses.dataclass(frozen=True, slots=True)
class BatchRecord:
    """Who predicted what, and when.

    Attributes
    ----------
    replica
        Position of the actor in ``replicas``.
    start, stop
        Rows of the batch: ``data[start:stop]``.
    began, ended
        Seconds since the first batch was sent; *began* is when the replica was free for this batch.
    """

    replica: int
    start: int
    stop: int
    began: float
    ended: float


@dataclasses.dataclass(frozen=True, slots=True)
class BatchPredictions:
    """What :func:`predict_batches` returns.

    Attributes
    ----------
    batches
        The results of ``predict``, one for each batch, in the order of the rows.
    records
        One for each batch, in the order in which they ended.
    seconds
        From the first batch sent to the last result.
    """

    batches: list[Any]
    records: list[BatchRecord]
    seconds: float


def predict_batches(replicas: Sequence[shoal.ActorHandle], data: Any, *, batch_size: int = 256) -> BatchPredictions:
    """Predict on *data* in batches, in parallel on every replica.

    A replica gets its next batch while it works on one, so that at most two batches per replica are under way, whatever
    the length of *data*; a slow replica simply gets fewer.

    Parameters
    ----------
    replicas
        Actors with a method ``predict(batch)``. A batch is ``data[start:stop]``.
    data
        Anything with a length and slices: an array of shape ``(rows, …)``, a tensor, a list.
    batch_size
        Rows of a batch, 1 or more; the last one may be shorter.

    Returns
    -------
    BatchPredictions

    Raises
    ------
    OptionError
        No replicas, or *batch_size* out of range.
    Exception
        What ``predict`` raised; batches that had been sent are cancelled.
    """
    if not replicas:
        raise OptionError("`replicas` is empty: start at least one actor.", option="replicas")
    if not (is_number(batch_size) and batch_size == int(batch_size) and batch_size >= 1):
        raise OptionError(f"`batch_size` must be a whole number from 1 up, not {batch_size!r}.", option="batch_size")
    starts = deque(range(0, len(data), batch_size))
    results: dict[int, Any] = {}
    records: list[BatchRecord] = []
    pending: dict[shoal.ObjectRef, tuple[int, int]] = {}
    free_since = [0.0] * len(replicas)
    origin = time.perf_counter()

    def send(replica: int) -> None:
        if starts:
            start = starts.popleft()
            pending[replicas[replica].predict.remote(data[start : start + batch_size])] = replica, start

    for _ in range(1 + AHEAD):
        for replica in range(len(replicas)):
            send(replica)
    try:
        while pending:
            (ref,), _ = shoal.wait(list(pending))
            results[pending[ref][1]] = shoal.get(ref)
            replica, start = pending.pop(ref)
            now = time.perf_counter() - origin
            stop = min(start + batch_size, len(data))
            records.append(BatchRecord(replica, start, stop, free_since[replica], now))
            free_since[replica] = now
            send(replica)
    finally:
        for ref in pending:
            shoal.cancel(ref)
    return BatchPredictions([results[start] for start in sorted(results)], records, time.perf_counter() - origin)
