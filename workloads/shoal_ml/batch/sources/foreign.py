"""Sources that are collections of other libraries: torch's datasets, Dask's dataframes, bags and arrays."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from typing import Any

import shoal
from shoal_ml.batch.blocks import Block
from shoal_ml.batch.handles import Handle
from shoal_ml.batch.rows import block_of_rows
from shoal_ml.batch.sources.combined import FramePiece
from shoal_ml.batch.sources.memory import handle_of
from shoal_ml.batch.sources.source import Piece, Source, Wishes, fingerprint

#: Items in one block, and blocks for each that can be worked on at once.
MAX_ITEMS, BLOCKS_PER_WORKER = 1024, 8


@dataclasses.dataclass(frozen=True, slots=True, eq=False)
class IndexedPiece(Piece):
    """Items *start* up to *stop* of something with items."""

    name: str
    items: shoal.ObjectRef
    start: int
    stop: int

    @property
    def key(self) -> str:
        return f"{self.name}[{self.start}:{self.stop}]"

    def read(self) -> Iterator[Block]:
        items = shoal.get(self.items)
        yield block_of_rows([as_row(items[position]) for position in range(self.start, self.stop)], self.name)


def as_row(item: Any) -> Any:
    """Return an item as a row: the parts of a tuple get names."""
    return {f"item_{n}": part for n, part in enumerate(item)} if isinstance(item, tuple) else item


class IndexedSource(Source):
    """Something with a length and items, that executors read; it is put into the cluster once."""

    reads = True

    def __init__(self, name: str, items: Any) -> None:
        self.name = name
        self._items = items

    def handles(self, wishes: Wishes) -> Iterator[Handle]:
        ref, rows = shoal.put(self._items), len(self._items)
        step = max(1, min(MAX_ITEMS, -(-rows // (wishes.parallelism * BLOCKS_PER_WORKER))))
        step = -(-step // wishes.rows_multiple) * wishes.rows_multiple
        for start in range(0, rows, step):
            yield handle_of(IndexedPiece(self.name, ref, start, min(start + step, rows)))

    def num_rows(self) -> int:
        return len(self._items)


class DaskSource(Source):
    """A collection of Dask's: its partitions, handed over by the workers that make them."""

    name, reads = "from_dask", True

    def __init__(self, collection: Any) -> None:
        self._collection = collection

    def handles(self, wishes: Wishes) -> Iterator[Handle]:
        collection = self._collection
        if getattr(collection, "ndim", 0) > 1 and hasattr(collection, "rechunk"):  # rows are whole
            collection = collection.rechunk({axis: -1 for axis in range(1, collection.ndim)})
        refs = shoal.from_dask(collection)
        tag = fingerprint(getattr(collection, "_name", None) or getattr(collection, "name", ""))
        for position, ref in enumerate(refs if isinstance(refs, list) else [refs]):
            yield handle_of(FramePiece(f"from_dask#{tag}[{position}]", ref))


__all__ = ["DaskSource", "IndexedSource", "as_row"]
