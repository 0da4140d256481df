"""What people have their data in, as a dataset."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path, PurePath
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
    if isinstance(data, str | Path):
        return _read(str(data))
    if isinstance(data, list):
        return reading.from_items(data)
    for package, name, make in _FOREIGN:
        if _is_a(data, package, name):
            return make(data)
    if hasattr(data, "__dask_graph__"):
        return reading.from_dask(data)
    if isinstance(data, Iterable):
        return reading.from_iterable(data)
    raise TypeError(
        f"There is no way to predict on {type(data).__name__}: give a `Dataset`, an array, a dict of arrays, a "
        "DataFrame, a `pyarrow.Table`, a list of rows, an iterable, or the name of a file."
    )


#: Types of other packages, and what makes a dataset of them. None of the packages is imported for this.
_FOREIGN: tuple[tuple[str, str, Callable[[Any], Dataset]], ...] = (
    ("pandas", "DataFrame", reading.from_pandas),
    ("pyarrow", "Table", reading.from_arrow),
    ("torch.utils.data", "Dataset", reading.from_torch),
    ("datasets", "Dataset", reading.from_huggingface),
)
_READERS: dict[str, Callable[[str], Dataset]] = {
    ".parquet": reading.read_parquet,
    ".csv": reading.read_csv,
    ".json": reading.read_json,
    ".jsonl": reading.read_json,
    ".txt": reading.read_text,
}


def _read(path: str) -> Dataset:
    suffix = PurePath(path).suffix.lower()
    if suffix not in _READERS:
        raise TypeError(
            f"`{path}` does not say what it holds: its name ends with none of {', '.join(_READERS)}. Read it, such as "
            "with `batch.read_parquet`, and give the dataset."
        )
    return _READERS[suffix](path)


def _is_a(value: Any, package: str, name: str) -> bool:
    kind = getattr(sys.modules.get(package), name, None)
    return isinstance(kind, type) and isinstance(value, kind)


__all__ = ["as_dataset"]
