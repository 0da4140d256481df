"""What runs in an executor: the fits of one chunk, one after the other, each in peace from the others."""

from __future__ import annotations

import pickle
import time
import traceback
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import cloudpickle

from shoal_ml.train.many.keys import Key
from shoal_ml.train.many.trainers import Trainer

#: Characters of a traceback that are kept: its end.
MAX_TRACEBACK = 10_000


class FitOrder(NamedTuple):
    """One fit that is to be made."""

    number: int
    key: Key
    start: int
    stop: int
    params: Mapping[str, Any]


class Outcome(NamedTuple):
    """What became of a fit: a pickled model with metrics, or an error."""

    number: int
    seconds: float
    pickled: bytes | None
    metrics: dict[str, float]
    error: str = ""
    traceback: str = ""


class FitChunk:
    """Fits models. It is sent to an executor once for each trainer, and called for each chunk."""

    def __init__(self, trainer: Trainer) -> None:
        self._trainer = trainer

    def __call__(self, block: Any, data: Any, orders: Sequence[FitOrder]) -> list[Outcome]:
        return [self._fit(block, data, order) for order in orders]

    def _fit(self, block: Any, data: Any, order: FitOrder) -> Outcome:
        began = time.perf_counter()
        try:
            rows = None if block is None else rows_of(block, order.start, order.stop)
            fitted = self._trainer.fit(order.key, rows, order.params, data)
            pickled = _pickled(fitted.model)
        except Exception as error:  # boundary: user code; it becomes a row of the catalog
            seconds = time.perf_counter() - began
            # the user's frames: those below ours
            frames = error.__traceback__
            while (
                frames is not None
                and frames.tb_next is not None
                and frames.tb_frame.f_globals.get("__name__", "").startswith("shoal_ml.")
            ):
                frames = frames.tb_next
            text = "".join(traceback.format_exception(type(error), error, frames))[-MAX_TRACEBACK:]
            summary = f"{type(error).__name__}: {error}".strip().partition("\n")[0]
            return Outcome(order.number, seconds, None, {}, summary, text)
        return Outcome(order.number, time.perf_counter() - began, pickled, fitted.metrics)


def _pickled(model: Any) -> bytes:
    """Pickle a model: by reference to its class where that can be imported, which takes a fraction of the time."""
    try:
        pickled = pickle.dumps(model, pickle.HIGHEST_PROTOCOL)
        by_name = b"__main__" not in pickled  # which is another module where it is loaded
    except Exception:  # boundary: what plain pickle cannot do, cloudpickle may
        by_name = False
    return pickled if by_name else bytes(cloudpickle.dumps(model))


def rows_of(block: Any, start: int, stop: int) -> Any:
    """Return the rows of a group: a slice of a data frame, or the value at *start* of a list."""
    return block[start] if isinstance(block, list) else block.iloc[start:stop]
