"""What people have their data in, as a dataset."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from shoal_ml.batch import reading
from shoal_ml.batch.dataset import Dataset


def as_dataset(data: Any) -> Dataset:
    """Return *data* as a dataset; one is what it is.

    Raises
    ------
    TypeError
        It is nothing that has rows.
    """
    if isinstance(data, Dataset):
        return data
    if isinstance(data, np.ndarray | Mapping):
        return reading.from_numpy(data)
    if _is_a(data, "torch", "Tensor"):
        return reading.from_numpy(data.detach().cpu().numpy())
    if _is_a(data, "pandas", "DataFrame"):
        return reading.from_pandas(data)
    if _is_a(data, "pyarrow", "Table"):
        return reading.from_arrow(data)
    if isinstance(data, list):
        return reading.from_items(data)
    if isinstance(data, str | Path):
        raise TypeError(
            f"`{data}` is a name: read it, such as with `shoal_ml.batch.read_parquet`, and give the dataset."
        )
    raise TypeError(
        f"There is no way to predict on {type(data).__name__}: give a `Dataset`, an array, a dict of arrays, a "
        "DataFrame, a `pyarrow.Table` or a list of rows; `shoal_ml.batch.from_iterable` takes iterators."
    )


def _is_a(value: Any, package: str, name: str) -> bool:
    kind = getattr(sys.modules.get(package), name, None)
    return isinstance(kind, type) and isinstance(value, kind)


__all__ = ["as_dataset"]
