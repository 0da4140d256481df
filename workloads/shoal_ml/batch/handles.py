"""What flows through a plan instead of the data: handles of blocks, and of sources' pieces that were not read yet."""

from __future__ import annotations

import dataclasses
from typing import Any

#: ``num_rows`` of a piece that was not read, and ``stop`` of a handle of all rows.
UNKNOWN = -1


@dataclasses.dataclass(frozen=True, slots=True, eq=False)
class Handle:
    """One block, or a part of one, wherever it lies.

    Attributes
    ----------
    value
        The ref of the block; of a piece that was not read, the :class:`~shoal_ml.batch.sources.source.Piece`.
    num_rows
        Of this part, :data:`UNKNOWN` before it is read.
    nbytes
        What it holds in the object store; of a piece that was not read, what it will probably come to.
    keys
        Which pieces of the source its rows come from: stable from run to run, as long as the source is what it was.
    remarks
        What the transforms that made it, and what it was made of, had to tell besides.
    start, stop
        Rows of the block that are meant; *stop* is :data:`UNKNOWN` for all.
    """

    value: Any
    num_rows: int
    nbytes: int
    keys: tuple[str, ...] = ()
    start: int = 0
    stop: int = UNKNOWN
    remarks: tuple[Any, ...] = ()

    @property
    def is_read(self) -> bool:
        """Whether it is a block, and no piece that has to be read."""
        return self.num_rows != UNKNOWN

    def rows(self, start: int, stop: int) -> Handle:
        """Return a handle of rows *start* up to *stop* of this one; nothing is moved or copied."""
        if start <= 0 and stop >= self.num_rows:
            return self
        start, stop = max(0, start), min(stop, self.num_rows)
        return dataclasses.replace(
            self, num_rows=max(0, stop - start), start=self.start + start, stop=self.start + max(start, stop)
        )


__all__ = ["UNKNOWN", "Handle"]
