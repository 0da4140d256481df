"""Rows as dicts, for functions that take one at a time, and back to blocks."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from shoal_ml.batch.batch_formats import to_column
from shoal_ml.batch.blocks import Block, is_arrow, num_rows
from shoal_ml.batch.errors import BatchError, missing_column

#: The column of items that are no mappings.
ITEM = "item"

Row = dict[str, Any]


def iterate_rows(block: Block) -> Iterator[Row]:
    """Give each row as a dict: numbers as numpy scalars, so that their types are kept; text as ``str``."""
    names = list(block)
    columns = [column.to_pylist() if is_arrow(column) else column for column in block.values()]
    if not names:
        return
    for position in range(num_rows(block)):
        yield {name: column[position] for name, column in zip(names, columns, strict=True)}


def block_of_rows(rows: Sequence[Any], function: str) -> Block:
    """Return rows as a block: mappings, all with the same names; anything else becomes the column ``item``.

    Raises
    ------
    ColumnError
        A row lacks what the first one has, or has more.
    BatchError
        Some rows are mappings and others are not.
    """
    if not rows:
        return {}
    first = rows[0]
    if not isinstance(first, Mapping):
        return {ITEM: to_column(list(rows), ITEM, function)}
    names = list(first)
    for position, row in enumerate(rows):
        if not isinstance(row, Mapping):
            raise BatchError(
                f"`{function}` gave dicts at first, and then row {position:,} as {type(row).__name__}.",
                function=function,
            )
        if row.keys() != first.keys():
            odd = next((name for name in names if name not in row), None)
            if odd is not None:
                raise missing_column(odd, row, f" in row {position:,} of `{function}`, which the first row has")
            extra = next(name for name in row if name not in first)
            raise missing_column(extra, first, f" in the first row of `{function}`, which row {position:,} has")
    return {str(name): to_column([row[name] for row in rows], str(name), function) for name in names}


__all__ = ["ITEM", "Row", "block_of_rows", "iterate_rows"]
