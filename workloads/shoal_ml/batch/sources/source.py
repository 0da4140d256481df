"""What a source of blocks is: pieces that can be read anywhere, or blocks that are there already."""

from __future__ import annotations

import abc
import dataclasses
import hashlib
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import shoal

if TYPE_CHECKING:
    from shoal_ml.batch.blocks import Block
    from shoal_ml.batch.handles import Handle


class Piece(abc.ABC):
    """A part of a source that an executor reads: a file, some row groups, a range of numbers. Small, and picklable.

    :meth:`read` may be called more than once, in several processes, and gives the same blocks each time.
    """

    @property
    @abc.abstractmethod
    def key(self) -> str:
        """What tells it from all other pieces: the same in the next run, unless what it reads has changed."""

    @abc.abstractmethod
    def read(self) -> Iterator[Block]:
        """Give its rows in blocks of moderate size."""

    @property
    def nbytes(self) -> int:
        """What its blocks will probably hold; 0 if that is not known."""
        return 0


@dataclasses.dataclass(frozen=True, slots=True)
class Wishes:
    """What the plan would like of its source; a source may do otherwise.

    Attributes
    ----------
    parallelism
        Blocks that can be worked on at once: there should be several times as many.
    rows_multiple
        Rows of a block, except the last, should be a multiple of this: the batch size of the first function.
    columns
        The only columns that are wanted.
    """

    parallelism: int = 2
    rows_multiple: int = 1
    columns: tuple[str, ...] | None = None


class Source(abc.ABC):
    """Where the blocks of a plan come from."""

    #: What plans call it, such as ``read_parquet``.
    name: str = ""
    #: Whether it gives pieces that have to be read.
    reads: bool = False

    @abc.abstractmethod
    def handles(self, wishes: Wishes) -> Iterator[Handle]:
        """Give handles of blocks or pieces, in order.

        Called on a thread of its own; it may take its time, and is closed when nobody wants more.
        """

    def num_rows(self) -> int | None:
        """Return the number of rows if it is known without reading them."""
        return None

    def describe(self) -> str:
        """Return a few words for plans and pictures."""
        return ""


def fingerprint(*parts: object) -> str:
    """Return a short name for what *parts* say, the same in every process."""
    return hashlib.blake2b(repr(parts).encode(), digest_size=8).hexdigest()


def put_block(block: Block, keys: Sequence[str]) -> Handle:
    """Store a block and return its handle."""
    from shoal_ml.batch.blocks import compacted, nbytes_of, num_rows
    from shoal_ml.batch.handles import Handle

    return Handle(shoal.put(compacted(block)), num_rows(block), nbytes_of(block), tuple(keys))


__all__ = ["Piece", "Source", "Wishes", "fingerprint", "put_block"]
