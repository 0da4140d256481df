"""What makes datasets: ``from_…`` and ``read_…``."""

from __future__ import annotations

import builtins
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from shoal_ml.batch.batch_formats import from_batch
from shoal_ml.batch.dataset import Dataset, check_whole
from shoal_ml.batch.plan import Plan
from shoal_ml.batch.sources.memory import (
    BatchesSource,
    ColumnsSource,
    IterableSource,
    RangeSource,
    columns_of_arrow,
)


def range(num_rows: int) -> Dataset:
    """Make a dataset of the whole numbers from 0 up to *num_rows*, in column ``id``; executors make them."""
    return Dataset(Plan(RangeSource(check_whole("num_rows", num_rows, 0))))


def from_items(items: Iterable[Any]) -> Dataset:
    """Make a dataset of items in memory: a dict is a row; anything else becomes column ``item``."""
    given = items if isinstance(items, list) else list(items)
    return Dataset(Plan(IterableSource("from_items", lambda: given, len(given))))


def from_iterable(iterable: Any) -> Dataset:
    """Make a dataset of what an iterable gives, read no further ahead than it is worked on.

    Parameters
    ----------
    iterable
        An iterable, or a function that returns one. Items are rows as for :func:`from_items`. What can be iterated
        over only once makes a dataset that can run only once.
    """
    if not callable(iterable) and not isinstance(iterable, Iterable):
        raise TypeError(f"`from_iterable` takes an iterable or a function, not {type(iterable).__name__}.")
    return Dataset(Plan(IterableSource("from_iterable", iterable if callable(iterable) else lambda: iterable)))


def from_batches(batches: Any) -> Dataset:
    """Make a dataset of batches (dicts of arrays, DataFrames, tables) that an iterable, or a function that returns one,
    gives; read no further ahead than they are worked on."""
    return Dataset(Plan(BatchesSource("from_batches", batches if callable(batches) else lambda: batches)))


def from_numpy(arrays: Any) -> Dataset:
    """Make a dataset of arrays in memory, or mapped from a file.

    Parameters
    ----------
    arrays
        One array, whose first axis is the rows: column ``data``; or a mapping of names to arrays of equal length.
    """
    columns = dict(arrays) if isinstance(arrays, Mapping) else {"data": arrays}
    return Dataset(Plan(ColumnsSource("from_numpy", from_batch(columns, "from_numpy"))))


def from_pandas(frames: Any) -> Dataset:
    """Make a dataset of a DataFrame, or of several with the same columns. The index is left out."""
    if isinstance(frames, Sequence):
        return from_batches(builtins.list(frames))
    return Dataset(Plan(ColumnsSource("from_pandas", from_batch(frames, "from_pandas"))))


def from_arrow(tables: Any) -> Dataset:
    """Make a dataset of a ``pyarrow.Table``, or of several with the same columns; numbers are not copied."""
    return Dataset(Plan(ColumnsSource("from_arrow", columns_of_arrow(tables))))


__all__ = [
    "from_arrow",
    "from_batches",
    "from_items",
    "from_iterable",
    "from_numpy",
    "from_pandas",
    "range",
]
