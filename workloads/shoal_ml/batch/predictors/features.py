"""From the columns of a batch to what a model takes."""

from __future__ import annotations

from typing import Any

import numpy as np

from shoal.errors import OptionError
from shoal_ml.batch.errors import BatchError
from shoal_ml.batch.predictors.contract import Batch

#: How several columns reach a model.
INPUTS = ("stack", "named", "ordered")


def check_inputs(inputs: str) -> str:
    """Refuse a way of passing columns that there is not."""
    if inputs not in INPUTS:
        raise OptionError(f"`inputs` is one of {', '.join(INPUTS)}, not {inputs!r}.", option="inputs")
    return inputs


def stack_columns(batch: Batch) -> np.ndarray[Any, Any]:
    """Return the columns as one array of shape (rows, …).

    One column is given as it is. Several are put beside one another along the second axis, in their order: columns of
    numbers become (rows, columns), and vectors are laid end to end.

    Raises
    ------
    BatchError
        There is no column, or they do not fit together.
    """
    if len(batch) == 1:
        return rows_together(*next(iter(batch.items())))
    if not batch:
        raise BatchError("The model gets no column: name some in `feature_columns`.", function="stack")
    parts = [rows_together(name, column) for name, column in batch.items()]
    parts = [part[:, None] if part.ndim == 1 else part for part in parts]
    try:
        return np.concatenate(parts, axis=1)
    except ValueError as error:
        shapes = ", ".join(f"`{name}` {part.shape[1:]}" for name, part in zip(batch, parts, strict=True))
        raise BatchError(
            f"The columns cannot be stacked, their rows have the shapes {shapes}. Choose some in `feature_columns`, or "
            'pass them to the model by name with `inputs="named"`.',
            function="stack",
        ) from error


def rows_together(name: str, column: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """Return a column whose rows are arrays of one shape as one array; numbers are that already.

    Raises
    ------
    BatchError
        It holds something else: text, missing values, rows of different shapes.
    """
    if column.dtype != object:
        return column
    if not len(column):
        return np.empty(0, dtype=np.float32)
    try:
        array = np.stack([np.asarray(value) for value in column])
    except ValueError as error:
        raise BatchError(
            f"The rows of column `{name}` differ in shape, the model needs them in one array: {error}", function="stack"
        ) from error
    if array.dtype.kind not in "biufc":
        raise BatchError(
            f"Column `{name}` holds {type(column[0]).__name__}, the model needs numbers. Leave it out of "
            "`feature_columns`, or turn it into numbers before (`Dataset.map_batches`).",
            function="stack",
        )
    return array


__all__ = ["INPUTS", "check_inputs", "rows_together", "stack_columns"]
