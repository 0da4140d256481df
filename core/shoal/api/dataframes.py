"""Tables as dataframes. pandas is imported by the first of them, and need not be there for rows."""

from __future__ import annotations

import importlib
import math
from collections.abc import Mapping, Sequence
from typing import Any

from shoal.observe.state_tables import COUNT, DTYPES, TABLES, TEXT, THING, TIME


class Rows(list[dict[str, Any]]):
    """A table as a list of dictionaries; times are Unix seconds, those that there are not are None.

    Attributes
    ----------
    unanswered
        Ids of processes that were asked and gave no answer in time: what they know is missing.
    """

    def __init__(self, rows: Sequence[dict[str, Any]] = (), unanswered: Sequence[str] = ()) -> None:
        super().__init__(rows)
        self.unanswered = list(unanswered)


def make_table(
    table: str, columns: Mapping[str, Sequence[Any]], unanswered: Sequence[str] = (), *, as_rows: bool = False
) -> Any:
    """Return a dataframe, or :class:`Rows`, of the columns of a *table* (:data:`TABLES`).

    Raises
    ------
    ImportError
        A dataframe is wanted, and pandas is not installed.
    """
    kinds = TABLES[table]
    if as_rows:
        names = list(kinds)
        plain = [_plain(columns[name], kinds[name]) for name in names]
        return Rows([dict(zip(names, row, strict=True)) for row in zip(*plain, strict=True)], unanswered)
    pandas = _pandas()
    frame = pandas.DataFrame({name: _series(pandas, columns[name], kind) for name, kind in kinds.items()})
    frame.attrs["unanswered"] = list(unanswered)
    return frame


def _pandas() -> Any:
    try:
        return importlib.import_module("pandas")
    except ImportError as error:
        raise ImportError(
            "`shoal.state` makes pandas dataframes, and pandas is not installed in this environment. Install it with "
            "`pip install pandas`, or pass `as_rows=True` for a list of dictionaries.",
            name="pandas",
        ) from error


def _series(pandas: Any, values: Sequence[Any], kind: str) -> Any:
    if kind == TIME:
        times = pandas.to_datetime(pandas.Series(values, dtype="float64"), unit="s", utc=True)
        return times.astype(DTYPES[TIME])
    if kind == COUNT:
        values = [int(value) for value in values]
    if kind == TEXT:
        values = [value.encode(errors="replace").decode() for value in values]  # pyarrow takes no lone surrogates
    return pandas.Series(list(values), dtype=DTYPES[kind] if kind != THING else "object")


def _plain(values: Sequence[Any], kind: str) -> Sequence[Any]:
    if kind in (TEXT, THING):
        return values
    return [None if isinstance(value, float) and math.isnan(value) else value for value in values]


__all__ = ["Rows", "make_table"]
