"""Blocks to batches, in the form that a function wants, and what it returns to blocks.

Numbers and arrays pass without a copy, unless the memory is read-only: a function may always write to its batch.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from shoal_ml.batch.blocks import Block, Column, check_lengths, is_arrow, objects_array
from shoal_ml.batch.errors import BatchError

BATCH_FORMATS = ("numpy", "pandas", "arrow", "torch")

#: Python types whose lists are columns of pyarrow's: numpy has no type for them that can be missing, or that travels.
_ARROW_ITEMS = ("str", "bytes", "dict", "date", "time", "Decimal", "NoneType")


def to_batch(block: Block, batch_format: str) -> Any:
    """Return *block* as a batch.

    Parameters
    ----------
    batch_format
        - ``"numpy"``: a dict of arrays,
        - ``"pandas"``: a DataFrame; a column whose rows are arrays has them as objects,
        - ``"arrow"``: a ``pyarrow.Table``; such a column is a fixed-shape tensor,
        - ``"torch"``: a dict of tensors on the CPU; a column that torch has no type for stays a numpy array.
    """
    return _TO_BATCH[batch_format](block)


def to_numpy_batch(block: Block) -> dict[str, np.ndarray[Any, Any]]:
    """Return *block* as a dict of arrays that may be written to."""
    return {name: _writable(column_to_numpy(column)) for name, column in block.items()}


def column_to_numpy(column: Column) -> np.ndarray[Any, Any]:
    """Return a column as an array; strings, lists and structs as objects, missing numbers as NaN."""
    array: np.ndarray[Any, Any] = column
    if not is_arrow(column):
        return array
    import pyarrow as pa

    if isinstance(column.type, pa.DictionaryType):
        column = column.dictionary_decode()
    array = column.to_numpy(zero_copy_only=False)
    return array


def _writable(array: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    return array if array.flags.writeable else array.copy()


def to_pandas_batch(block: Block) -> Any:
    """Return *block* as a DataFrame."""
    import pandas as pd

    return pd.DataFrame(
        {
            name: column.to_pandas()
            if is_arrow(column)
            else (objects_array(list(column)) if column.ndim > 1 else _writable(column))
            for name, column in block.items()
        }
    )


def to_arrow_batch(block: Block) -> Any:
    """Return *block* as a ``pyarrow.Table``."""
    import pyarrow as pa

    return pa.table({name: _column_to_arrow(name, column) for name, column in block.items()})


def _column_to_arrow(name: str, column: Any) -> Any:
    import pyarrow as pa

    if is_arrow(column):
        return column
    if column.ndim > 1:
        if not len(column):  # what it would be made of has no rows to look at
            kind = pa.fixed_shape_tensor(pa.from_numpy_dtype(column.dtype), column.shape[1:])
            return pa.ExtensionArray.from_storage(kind, pa.array([], kind.storage_type))
        return pa.FixedShapeTensorArray.from_numpy_ndarray(np.ascontiguousarray(column))
    try:
        return pa.array(column)
    except (pa.ArrowInvalid, pa.ArrowTypeError, pa.ArrowNotImplementedError) as error:
        raise BatchError(
            f"Column `{name}` holds Python objects that Arrow has no type for: {error}. Drop it, or turn it into "
            "numbers, strings or lists.",
            function="",
        ) from error


def _to_torch_batch(block: Block) -> dict[str, Any]:
    import torch

    batch = to_numpy_batch(block)
    return {name: array if array.dtype.kind in "OMmUS" else torch.from_numpy(array) for name, array in batch.items()}


_TO_BATCH: dict[str, Callable[[Block], Any]] = {
    "numpy": to_numpy_batch,
    "pandas": to_pandas_batch,
    "arrow": to_arrow_batch,
    "torch": _to_torch_batch,
}


def from_batch(batch: Any, function: str) -> Block:
    """Return what a function returned as a block.

    Parameters
    ----------
    batch
        A mapping of column names to arrays, tensors or lists of equal length; a DataFrame; a ``pyarrow.Table``.
    function
        Who returned it, for errors.

    Raises
    ------
    BatchError
        It is none of these.
    RaggedBatchError
        Its columns differ in length.
    """
    block: Block
    if isinstance(batch, Mapping):
        block = {_name(name, function): to_column(column, str(name), function) for name, column in batch.items()}
    elif _is("pyarrow", "Table", batch) or _is("pyarrow", "RecordBatch", batch):
        return from_arrow(batch)
    elif _is("pandas", "DataFrame", batch):
        block = {str(name): to_column(batch[name], str(name), function) for name in batch.columns}
    else:
        raise BatchError(
            f"`{function}` returned {_a(batch)}, not a batch: return a dict of column names to arrays with one entry "
            "for each row, a DataFrame, or a pyarrow.Table.",
            function=function,
        )
    check_lengths(block, f"what `{function}` returned")
    return block


def from_arrow(table: Any) -> Block:
    """Return a ``pyarrow.Table`` or ``RecordBatch`` as a block: numbers become numpy arrays, without a copy."""
    import pyarrow as pa

    block: Block = {}
    for name, column in zip(table.schema.names, table.columns, strict=True):
        block[name] = _column_from_arrow(column.combine_chunks() if isinstance(column, pa.ChunkedArray) else column)
    return block


def _column_from_arrow(column: Any) -> Column:
    import pyarrow as pa

    if isinstance(column, pa.ChunkedArray):  # an extension type without rows
        column = column.chunk(0) if column.num_chunks else pa.array([], column.type)
    if column.null_count:
        return column
    kind = column.type
    if isinstance(kind, pa.FixedShapeTensorType):
        return column.to_numpy_ndarray()
    if pa.types.is_fixed_size_list(kind) and pa.types.is_floating(kind.value_type):
        return column.flatten().to_numpy(zero_copy_only=False).reshape(len(column), kind.list_size)
    if pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_boolean(kind):
        return column.to_numpy(zero_copy_only=False)
    return column


def to_column(values: Any, name: str, function: str) -> Column:
    """Return values as a column.

    Raises
    ------
    BatchError
        They have no length, such as one number.
    """
    if _is("torch", "Tensor", values):
        values = values.detach().cpu().numpy()
    if isinstance(values, np.ndarray):
        if values.ndim == 0:
            raise _scalar(values, name, function)
        return values if values.dtype.kind not in "OUS" else _from_objects(values.tolist(), values)
    if is_arrow(values) or _is("pyarrow", "ChunkedArray", values):
        return _column_from_arrow(values.combine_chunks() if hasattr(values, "combine_chunks") else values)
    if _is("pandas", "Series", values) or _is("pandas", "Index", values):
        return _from_pandas(values, name, function)
    if not isinstance(values, Sequence) or isinstance(values, str | bytes):
        raise _scalar(values, name, function)
    return _from_list(list(values))


def _from_pandas(series: Any, name: str, function: str) -> Column:
    if isinstance(series.dtype, np.dtype):
        return to_column(series.to_numpy(), name, function)
    import pyarrow as pa

    found = pa.array(series, from_pandas=True)
    return _column_from_arrow(found.combine_chunks() if isinstance(found, pa.ChunkedArray) else found)


def _from_list(values: list[Any]) -> Column:
    if not values:
        return np.empty(0)
    if any(type(value).__name__ in _ARROW_ITEMS for value in values[:2]) or any(value is None for value in values):
        return _from_objects(values, None)
    if _is("torch", "Tensor", values[0]):
        values = [value.detach().cpu().numpy() for value in values]
    try:
        array = np.asarray(values)
    except ValueError:  # rows of different shapes
        return _from_objects(values, None)
    return array if array.dtype.kind not in "OUS" else _from_objects(values, None)


def _from_objects(values: list[Any], array: np.ndarray[Any, Any] | None) -> Column:
    """Return Python objects as what holds them best: arrays of one shape as one, text and the like as Arrow's."""
    import pyarrow as pa

    if values and all(isinstance(value, np.ndarray) and value.dtype != object for value in values):
        if len({(value.shape, value.dtype) for value in values}) == 1:
            return np.stack(values)
        if any(value.ndim != 1 for value in values):
            return objects_array(values)
    try:
        return pa.array(values)
    except (pa.ArrowInvalid, pa.ArrowTypeError, pa.ArrowNotImplementedError, OverflowError):
        return array if array is not None and array.dtype == object and array.ndim == 1 else objects_array(values)


def _name(name: Any, function: str) -> str:
    if not isinstance(name, str):
        raise BatchError(f"`{function}` returned a column called {name!r}: names are strings.", function=function)
    return name


def _scalar(value: Any, name: str, function: str) -> BatchError:
    return BatchError(
        f"`{function}` returned {_a(value)} as column `{name}`: return an array or list with one entry for each row.",
        function=function,
    )


def _a(value: Any) -> str:
    if value is None:
        return "None"
    shape = getattr(value, "shape", None)
    return f"`{type(value).__name__}`" + (f" of shape {tuple(shape)}" if isinstance(shape, tuple) else "")


def _is(package: str, name: str, value: Any) -> bool:
    """Whether *value* is of a class of a package, which is not imported for that."""
    module = sys.modules.get(package)
    kind = getattr(module, name, None)
    return isinstance(kind, type) and isinstance(value, kind)


__all__ = ["BATCH_FORMATS", "column_to_numpy", "from_arrow", "from_batch", "to_batch", "to_column", "to_numpy_batch"]
