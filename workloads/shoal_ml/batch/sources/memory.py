"""Sources that are in this process's memory, or need none: arrays, tables, lists, iterables, ranges."""

from __future__ import annotations

import dataclasses
import itertools
import zlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import numpy as np

from shoal_ml.batch.batch_formats import from_arrow, from_batch
from shoal_ml.batch.blocks import Block, nbytes_of, num_rows, slice_rows
from shoal_ml.batch.handles import UNKNOWN, Handle
from shoal_ml.batch.rows import block_of_rows
from shoal_ml.batch.sources.source import Piece, Source, Wishes, fingerprint, put_block

#: Bytes that a block should have at most, and at least: smaller ones cost more than they hold.
TARGET_NBYTES, LEAST_NBYTES = 16 << 20, 1 << 18
#: Blocks for each that can be worked on at once, so that all end at about the same time.
BLOCKS_PER_WORKER = 16
#: Items of an iterable in its first block, which so is there soon, and how much larger the next may be.
FIRST_ITEMS, GROWTH = 64, 4
#: Bytes of each column that go into a fingerprint, from its beginning, middle and end.
PRINTED_NBYTES = 1 << 16


def rows_per_block(rows: int, nbytes: int, wishes: Wishes) -> int:
    """Return how many rows the blocks of something of this size should have."""
    if not rows:
        return 1
    wanted = nbytes / (wishes.parallelism * BLOCKS_PER_WORKER)
    per_block = min(max(wanted, LEAST_NBYTES), TARGET_NBYTES) / max(nbytes / rows, 1e-9)
    multiple = wishes.rows_multiple
    return max(1, round(per_block / multiple)) * multiple


class ColumnsSource(Source):
    """Columns that are all in memory, or mapped from a file; blocks are views until they are stored."""

    def __init__(self, name: str, block: Block) -> None:
        self.name = name
        self._block = block
        self._print: str | None = None

    def handles(self, wishes: Wishes) -> Iterator[Handle]:
        block, rows = self._block, num_rows(self._block)
        if wishes.columns is not None and all(name in block for name in wishes.columns):
            block = {name: block[name] for name in wishes.columns}
        step = rows_per_block(rows, nbytes_of(block), wishes)
        for start in range(0, max(rows, 1), step):
            stop = min(start + step, rows)
            yield put_block(slice_rows(block, start, stop), [f"{self._fingerprint()}[{start}:{stop}]"])

    def num_rows(self) -> int:
        return num_rows(self._block)

    def describe(self) -> str:
        return f"{self.num_rows():,} rows of {', '.join(self._block) or 'nothing'}"

    def _fingerprint(self) -> str:
        if self._print is None:
            self._print = fingerprint(
                self.name, *((name, len(column), _sum_of(column)) for name, column in self._block.items())
            )
        return self._print


def _sum_of(column: Any) -> int:
    """Return a checksum of a part of a column: enough to tell data sets apart, and quick for large ones."""
    places = [0, max(0, len(column) // 2 - 50), max(0, len(column) - 100)]
    parts = [column[place : place + 100] for place in places]
    data = b"".join(
        np.ascontiguousarray(part).tobytes()[:PRINTED_NBYTES]
        if isinstance(part, np.ndarray) and part.dtype != object
        else repr(part.tolist()).encode()[:PRINTED_NBYTES]
        for part in parts
    )
    return zlib.crc32(data)


@dataclasses.dataclass(frozen=True, slots=True)
class RangePiece(Piece):
    """Whole numbers from *start* up to *stop*."""

    start: int
    stop: int

    @property
    def key(self) -> str:
        return f"range[{self.start}:{self.stop}]"

    def read(self) -> Iterator[Block]:
        yield {"id": np.arange(self.start, self.stop)}

    @property
    def nbytes(self) -> int:
        return 8 * (self.stop - self.start)


class RangeSource(Source):
    """The whole numbers below a number, made where they are wanted."""

    name, reads = "range", True

    def __init__(self, rows: int) -> None:
        self._rows = rows

    def handles(self, wishes: Wishes) -> Iterator[Handle]:
        step = rows_per_block(self._rows, 8 * self._rows, wishes)
        for start in range(0, max(self._rows, 1), step):
            yield handle_of(RangePiece(start, min(start + step, self._rows)))

    def num_rows(self) -> int:
        return self._rows

    def describe(self) -> str:
        return f"{self._rows:,} rows"


def handle_of(piece: Piece) -> Handle:
    """Return the handle of a piece that is to be read."""
    return Handle(piece, UNKNOWN, piece.nbytes, (piece.key,))


class IterableSource(Source):
    """Items of an iterable that is read here, as far as its rows are wanted and no further.

    A function that returns an iterator, or an iterable that can be iterated over anew, can be run more than once.
    """

    def __init__(self, name: str, make: Callable[[], Iterable[Any]], rows: int | None = None) -> None:
        self.name = name
        self._make = make
        self._rows = rows

    def handles(self, wishes: Wishes) -> Iterator[Handle]:
        items = iter(self._make())
        size, start = max(FIRST_ITEMS, wishes.rows_multiple), 0
        while True:
            rows = list(itertools.islice(items, size))
            if not rows and start:
                return
            block = block_of_rows(rows, self.name)
            yield put_block(block, [f"{self.name}[{start}:{start + len(rows)}]"])
            if len(rows) < size:
                return
            start += len(rows)
            per_row = max(nbytes_of(block) / len(rows), 1e-9)
            size = int(max(1, min(size * GROWTH, TARGET_NBYTES / 4 / per_row)))
            size = -(-size // wishes.rows_multiple) * wishes.rows_multiple

    def num_rows(self) -> int | None:
        return self._rows


class BatchesSource(Source):
    """Batches that an iterable gives (dicts of arrays, dataframes, tables): each is a block."""

    def __init__(self, name: str, make: Callable[[], Iterable[Any]]) -> None:
        self.name = name
        self._make = make

    def handles(self, wishes: Wishes) -> Iterator[Handle]:
        for position, batch in enumerate(self._make()):
            yield put_block(from_batch(batch, self.name), [f"{self.name}[{position}]"])


class RefsSource(Source):
    """Blocks that are in the cluster already."""

    def __init__(self, name: str, handles: Sequence[Handle]) -> None:
        self.name = name
        self._handles = tuple(handles)

    def handles(self, wishes: Wishes) -> Iterator[Handle]:
        return iter(self._handles)

    def num_rows(self) -> int:
        return sum(handle.num_rows for handle in self._handles)

    def describe(self) -> str:
        return f"{self.num_rows():,} rows in {len(self._handles):,} blocks"


def columns_of_arrow(table: Any) -> Block:
    """Return a table, or several that belong together, as columns."""
    import pyarrow as pa

    return from_arrow(pa.concat_tables(table) if isinstance(table, list | tuple) else table)


__all__ = ["BatchesSource", "ColumnsSource", "IterableSource", "RangeSource", "RefsSource", "columns_of_arrow"]
