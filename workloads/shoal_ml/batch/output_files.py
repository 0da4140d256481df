"""Output that is there whole or not at all: written under another name, brought to disk, and then given its name."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from shoal_ml.batch.batch_formats import from_arrow
from shoal_ml.batch.blocks import Block, num_rows
from shoal_ml.batch.errors import ReadError, WriteError
from shoal_ml.batch.sources.source import Piece
from shoal_ml.batch.transforms import Transform
from shoal_ml.batch.writing import write_parquet

#: What files are called that are not finished: readers of a directory leave out names that begin with a dot.
UNFINISHED = ".unfinished-"


def write_durably(path: Path, write: Callable[[Any], None]) -> int:
    """Have *write* fill a file, which is on disk when this returns; returns its size.

    Raises
    ------
    WriteError
        The disk is full, or the directory cannot be written to. Nothing is left of the file.
    """
    try:
        with open(path, "wb") as file:
            write(file)
            file.flush()
            os.fdatasync(file.fileno())
            return file.tell()
    except OSError as error:
        with contextlib.suppress(OSError):
            path.unlink()
        raise WriteError(
            f"Cannot write to `{path.parent}`: {error.strerror or error}. What was finished before is there.",
            path=str(path.parent),
        ) from error


def write_table(path: Path, block: Block) -> int:
    """Write a block as a parquet file; returns its size."""
    return write_durably(path, lambda file: write_parquet(block, file))


@dataclasses.dataclass(frozen=True)
class WriteUnfinished(Transform):
    """Writes each block to a file without its name, and gives a row that says which.

    Whoever takes that row gives the file its name: a block that was worked on twice has it once.
    """

    directory: str

    @property
    def name(self) -> str:
        return "write_parquet"

    def open(self) -> Callable[[Block], Iterator[Block]]:
        def run(block: Block) -> Iterator[Block]:
            if not num_rows(block):
                return
            name = f"{UNFINISHED}{uuid.uuid4().hex}"
            nbytes = write_table(Path(self.directory, name), block)
            yield {"file": np.array([name], object), "rows": np.array([num_rows(block)]), "nbytes": np.array([nbytes])}

        return run


@dataclasses.dataclass(frozen=True, slots=True)
class PartPiece(Piece):
    """A file of the output, to be read again."""

    path: str
    size: int

    @property
    def key(self) -> str:
        return f"{self.path}:{self.size}"

    def read(self) -> Iterator[Block]:
        yield read_table(Path(self.path))

    @property
    def nbytes(self) -> int:
        return self.size


def read_table(path: Path) -> Block:
    """Read a parquet file.

    Raises
    ------
    ReadError
        It is missing or damaged.
    """
    import pyarrow as pa
    import pyarrow.parquet

    try:
        return from_arrow(pyarrow.parquet.read_table(path, partitioning=None))
    except (OSError, pa.ArrowInvalid) as error:
        raise ReadError(f"Cannot read `{path}`: {error}", path=str(path)) from error


__all__ = ["UNFINISHED", "PartPiece", "WriteUnfinished", "read_table", "write_durably", "write_table"]
