"""Blocks: the unit of data that flows, a mapping of column names to columns of equal length.

A column is a numpy array whose first axis is the rows (numbers, images, vectors, or Python objects), or a pyarrow array
(strings, lists, structs, dates, whatever can be missing). Both lend their memory to the object store, so that a block
travels without a copy, and each is what the functions that read and write it want: no conversion is paid twice. Why not
a ``pyarrow.Table`` alone: ``docs/decisions/012-blocks.md``.

pyarrow is imported when the first column needs it.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from typing import Any, TypeAlias

import numpy as np

from shoal_ml.batch.errors import RaggedBatchError, SchemaError, missing_column

#: A ``numpy.ndarray``, or a ``pyarrow.Array``, which has no types to check.
Column: TypeAlias = Any
Block: TypeAlias = dict[str, Column]
#: What a column holds: the name of its type, and the shape of one row (numpy only).
Field: TypeAlias = tuple[str, tuple[int, ...]]
Schema: TypeAlias = dict[str, Field]

#: Rows of a column of objects that are looked at to guess its size.
SAMPLED = 64


def is_arrow(column: object) -> bool:
    """Whether *column* is an array of pyarrow's. Does not import it."""
    pyarrow = sys.modules.get("pyarrow")
    return pyarrow is not None and isinstance(column, pyarrow.Array)


def num_rows(block: Block) -> int:
    """Return the number of rows; 0 without columns."""
    return len(next(iter(block.values()))) if block else 0


def nbytes_of(block: Block) -> int:
    """Return the bytes that the columns hold; those of Python objects are an estimate."""
    return sum(_column_nbytes(column) for column in block.values())


def _column_nbytes(column: Any) -> int:
    if is_arrow(column) or column.dtype != object:
        return int(column.nbytes)
    sample = column[:SAMPLED]
    held = sum(getattr(item, "nbytes", None) or sys.getsizeof(item) for item in sample)
    return int(column.nbytes + (held * len(column) / len(sample) if len(sample) else 0))


def slice_rows(block: Block, start: int, stop: int) -> Block:
    """Return rows *start* up to *stop*, as views."""
    if start <= 0 and stop >= num_rows(block):
        return block
    return {name: column[start:stop] for name, column in block.items()}


def take_rows(block: Block, rows: np.ndarray[Any, Any]) -> Block:
    """Return the rows with these positions, or those where a mask is true."""
    if rows.dtype == bool:
        rows = np.flatnonzero(rows)
    return {
        name: column.take(_arrow_indices(rows)) if is_arrow(column) else column[rows] for name, column in block.items()
    }


def _arrow_indices(rows: np.ndarray[Any, Any]) -> Any:
    import pyarrow as pa

    return pa.array(rows)


def check_columns(block: Mapping[str, Any], names: Sequence[str], why: str = "") -> None:
    """Refuse names of columns that are not there."""
    for name in names:
        if name not in block:
            raise missing_column(name, block, why)


def check_lengths(block: Mapping[str, Any], where: str) -> None:
    """Refuse columns of different lengths."""
    lengths = {name: len(column) for name, column in block.items()}
    if len(set(lengths.values())) > 1:
        told = ", ".join(f"`{name}` {length:,}" for name, length in lengths.items())
        raise RaggedBatchError(f"Columns of {where} differ in length: {told}. Each row needs all.", lengths=lengths)


def concat(blocks: Sequence[Block]) -> Block:
    """Return all rows in one block; copies unless there is one block with rows.

    Raises
    ------
    SchemaError
        The blocks differ in their columns, or in the shape of one.
    """
    full = [block for block in blocks if num_rows(block)]
    if len(full) < 2:
        return full[0] if full else next((block for block in blocks if block), {})
    names = list(full[0])
    for block in full[1:]:
        if block.keys() != full[0].keys():
            raise SchemaError(
                f"Blocks differ in their columns: {_told(names)} and {_told(block)}. A function must return the same "
                "columns for every batch."
            )
    return {name: _concat_columns(name, [block[name] for block in full]) for name in names}


def _concat_columns(name: str, columns: list[Any]) -> Column:
    if any(is_arrow(column) for column in columns):
        return _concat_arrow(name, columns)
    if len({column.shape[1:] for column in columns}) > 1:
        return objects_array([item for column in columns for item in column])
    return np.concatenate(columns)


def _concat_arrow(name: str, columns: list[Any]) -> Column:
    import pyarrow as pa

    arrays = [column if is_arrow(column) else pa.array(list(column)) for column in columns]
    try:
        return pa.concat_arrays(arrays)
    except (pa.ArrowInvalid, pa.ArrowTypeError, pa.ArrowNotImplementedError):
        pass
    try:  # such as a column of nulls beside one of strings
        unified = pa.unify_schemas([pa.schema([(name, a.type)]) for a in arrays], promote_options="permissive")
        return pa.concat_arrays([array.cast(unified.field(0).type) for array in arrays])
    except (pa.ArrowInvalid, pa.ArrowTypeError, pa.ArrowNotImplementedError) as error:
        kinds = " and ".join(sorted({str(array.type) for array in arrays}))
        raise SchemaError(f"Blocks differ in the type of column `{name}`: {kinds}.") from error


def _told(names: Mapping[str, Any] | Sequence[str]) -> str:
    return ", ".join(f"`{name}`" for name in names) or "none"


def objects_array(values: Sequence[Any]) -> np.ndarray[Any, Any]:
    """Return a one-dimensional array of Python objects, whatever they are."""
    array = np.empty(len(values), dtype=object)
    for position, value in enumerate(values):  # a slice assignment would unpack lists and arrays
        array[position] = value
    return array


def compacted(block: Block) -> Block:
    """Return the block without what arrow arrays that are slices drag along: all of what they are slices of."""
    return {name: _compacted(column) if is_arrow(column) else column for name, column in block.items()}


def _compacted(column: Any) -> Any:
    if column.get_total_buffer_size() <= 2 * column.nbytes + 4096:
        return column
    return column.take(_arrow_indices(np.arange(len(column))))


def schema_of(block: Block) -> Schema:
    """Return what each column holds."""
    return {name: _field_of(column) for name, column in block.items()}


def _field_of(column: Any) -> Field:
    if is_arrow(column):
        return str(column.type), ()
    return str(column.dtype), tuple(column.shape[1:])


__all__ = ["Block", "Column", "Field", "Schema", "concat", "nbytes_of", "num_rows", "schema_of", "slice_rows"]
