"""Sorting, joining and grouping: Dask's dataframes do it, on the same workers, with blocks handed over by location."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import shoal
from shoal_ml.batch.batch_formats import to_pandas_batch
from shoal_ml.batch.blocks import Block, check_columns, slice_rows
from shoal_ml.batch.handles import UNKNOWN, Handle
from shoal_ml.batch.sources.combined import FramePiece
from shoal_ml.batch.sources.memory import handle_of
from shoal_ml.batch.sources.source import fingerprint


def to_frame(handles: Sequence[Handle], columns: Sequence[str] = ()) -> tuple[Any, Any]:
    """Return blocks as a Dask dataframe, one partition each, and the Dask client that it belongs to.

    Parameters
    ----------
    columns
        What has to be there.

    Raises
    ------
    ColumnError
        A column is not there.
    """
    import dask.dataframe
    from dask.delayed import delayed

    full = [handle for handle in handles if handle.num_rows] or list(handles[:1])
    first: Block = shoal.get(full[0].value)
    check_columns(first, columns, " to sort, join or group by")
    futures = [handle.value.to_dask() for handle in full]
    make = delayed(frame_of)
    parts = [
        make(future, handle.start, handle.start + handle.num_rows if handle.stop != UNKNOWN else handle.num_rows)
        for future, handle in zip(futures, full, strict=True)
    ]
    client = futures[0].client
    with client.as_current():
        return dask.dataframe.from_delayed(parts, meta=frame_of(first, 0, 0)), client


def frame_of(block: Block, start: int, stop: int) -> Any:
    """Return rows of a block as a DataFrame."""
    return to_pandas_batch(slice_rows(block, start, stop))


def from_frame(frame: Any, client: Any, name: str, tag: object) -> Iterator[Handle]:
    """Have Dask compute a dataframe, and give its partitions."""
    with client.as_current():
        refs = shoal.from_dask(frame)
    print_ = fingerprint(name, tag)
    for position, ref in enumerate(refs if isinstance(refs, list) else [refs]):
        yield handle_of(FramePiece(f"{name}#{print_}[{position}]", ref))


def sorted_by(handles: Sequence[Handle], columns: tuple[str, ...], descending: bool) -> Iterator[Handle]:
    """Give the rows in the order of some columns."""
    if not any(handle.num_rows for handle in handles):
        return iter(())
    frame, client = to_frame(handles, columns)
    with client.as_current():
        done = frame.sort_values(list(columns), ascending=not descending)
    return from_frame(done, client, "sort", columns)


def joined(left: Sequence[Handle], right: Sequence[Handle], columns: tuple[str, ...], how: str) -> Iterator[Handle]:
    """Give the rows of both sides that belong together."""
    mine, client = to_frame(left, columns)
    theirs, _ = to_frame(right, columns)
    with client.as_current():
        done = mine.merge(theirs, on=list(columns), how=how, suffixes=("", "_1"))
    return from_frame(done, client, "join", (columns, how))


def aggregated(handles: Sequence[Handle], columns: tuple[str, ...], spec: Any) -> Iterator[Handle]:
    """Give one row for each group."""
    if not any(handle.num_rows for handle in handles):
        return iter(())
    frame, client = to_frame(handles, columns)
    with client.as_current():
        done = frame.groupby(list(columns)).agg(spec).reset_index()
        if done.columns.nlevels > 1:
            done.columns = ["_".join(part for part in name if part) for name in done.columns]
    return from_frame(done, client, "aggregate", columns)


def counted(handles: Sequence[Handle], columns: tuple[str, ...]) -> Iterator[Handle]:
    """Give the number of rows of each group."""
    if not any(handle.num_rows for handle in handles):
        return iter(())
    frame, client = to_frame(handles, columns)
    with client.as_current():
        done = frame.groupby(list(columns)).size().rename("count").reset_index()
    return from_frame(done, client, "count", columns)


def gathered_by(handles: Sequence[Handle], columns: tuple[str, ...]) -> Iterator[Handle]:
    """Give all rows, those of one group in one block."""
    if not any(handle.num_rows for handle in handles):
        return iter(())
    frame, client = to_frame(handles, columns)
    with client.as_current():
        done = frame.shuffle(list(columns))
    return from_frame(done, client, "groupby", columns)


class ByGroup:
    """Calls a function with each group of the rows that it is given."""

    def __init__(self, function: Callable[[Any], Any], columns: tuple[str, ...]) -> None:
        self._function, self._columns = function, columns
        self.__name__ = getattr(function, "__name__", type(function).__name__)

    def __call__(self, frame: Any) -> Iterator[Any]:
        """Give what the function returns for each group, in the order of the groups."""
        for _, group in frame.groupby(list(self._columns), sort=True):
            yield self._function(group.reset_index(drop=True))


__all__ = ["ByGroup", "aggregated", "counted", "gathered_by", "joined", "sorted_by", "to_frame"]
