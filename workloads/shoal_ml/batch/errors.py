"""Errors of datasets: what was wrong with the data, a function or a file, and where."""

from __future__ import annotations

from collections.abc import Iterable

from shoal.errors import ShoalError
from shoal.model.suggest import did_you_mean

#: Columns that an error lists at most.
MAX_LISTED = 20


class ColumnError(ShoalError, LookupError):
    """A column that is not there, or that is there already. ``column`` names it, ``columns`` are those there are."""

    column: str
    columns: tuple[str, ...]


class BatchError(ShoalError, TypeError):
    """A function returned what cannot be a batch. ``function`` names it."""

    function: str


class RaggedBatchError(ShoalError, ValueError):
    """Columns of one batch differ in length; ``lengths`` maps each to its own."""

    lengths: dict[str, int]


class RowCountError(ShoalError, ValueError):
    """A function returned ``returned`` rows for ``given``, where each row must have its result."""

    given: int
    returned: int


class SchemaError(ShoalError, TypeError):
    """Blocks that belong together differ in their columns or in the types of these."""


class ReadError(ShoalError, OSError):
    """A file cannot be read: it is missing, damaged, or of another format. ``path`` names it."""

    path: str


class WriteError(ShoalError, OSError):
    """Output cannot be written. ``path`` says where; files that were finished are there and whole."""

    path: str


def missing_column(column: object, columns: Iterable[str], why: str = "") -> ColumnError:
    """Return the error for a column that is not there, with the closest one that is."""
    names = tuple(columns)
    shown = ", ".join(f"`{name}`" for name in names[:MAX_LISTED]) or "none"
    rest = f" and {len(names) - MAX_LISTED} more" if len(names) > MAX_LISTED else ""
    hint = did_you_mean(str(column), names)
    return ColumnError(
        f"There is no column `{column}`{why}.{hint} Columns are: {shown}{rest}.", column=str(column), columns=names
    )


__all__ = [
    "BatchError",
    "ColumnError",
    "RaggedBatchError",
    "ReadError",
    "RowCountError",
    "SchemaError",
    "WriteError",
]
