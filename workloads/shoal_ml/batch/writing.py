"""Output: one file for each block, which appears when it is complete."""

from __future__ import annotations

import dataclasses
import io
import json
import os
import secrets
from collections.abc import Callable, Iterator
from typing import IO, Any

import numpy as np

from shoal_ml.batch.batch_formats import column_to_numpy, to_arrow_batch
from shoal_ml.batch.blocks import Block, check_columns, num_rows
from shoal_ml.batch.errors import BatchError
from shoal_ml.batch.paths import make_folder, remove, written_whole
from shoal_ml.batch.rows import iterate_rows
from shoal_ml.batch.transforms import Opened, Transform
from shoal_ml.batch.work_info import current_work

MODES = ("error", "overwrite", "append")

#: Writes a block to an open file.
Format = Callable[[Block, IO[bytes]], None]


@dataclasses.dataclass(frozen=True, slots=True)
class Written:
    """What was written.

    Attributes
    ----------
    paths
        The files, in the order of the rows.
    num_rows
        In all of them.
    nbytes
        On disk.
    """

    paths: tuple[str, ...]
    num_rows: int
    nbytes: int

    def __repr__(self) -> str:
        return f"<{self.num_rows:,} rows in {len(self.paths):,} files, {self.nbytes / 1e6:,.1f} MB>"


@dataclasses.dataclass(frozen=True)
class WriteBlocks(Transform):
    """Writes each block to a file of its own and gives one row for it: ``path``, ``rows``, ``nbytes``.

    Work that is done again writes the same file again. Blocks without rows are left out, unless nothing else would say
    what the columns are.
    """

    folder: str
    suffix: str
    format: Format
    #: What tells the files of one run from those that are there.
    run: str = ""
    rows_per_file: int = 0

    @property
    def name(self) -> str:
        return f"write({self.suffix.lstrip('.')})"

    @property
    def batch_rows(self) -> int:  # type: ignore[override]
        return self.rows_per_file

    def open(self) -> Opened:
        count = {"number": -1, "within": 0}

        def run(block: Block) -> Iterator[Block]:
            number = current_work().number
            if number != count["number"]:
                count["number"], count["within"] = number, 0
            if num_rows(block) or (block and not number and not count["within"]):
                within = f"-{count['within']:04d}" if count["within"] else ""
                count["within"] += 1
                path = os.path.join(self.folder, f"part-{self.run}{number:06d}{within}{self.suffix}")
                yield from write_block(block, path, self.format)

        return run


def write_block(block: Block, path: str, write: Format) -> Iterator[Block]:
    """Write one file; gives the row that says so.

    Raises
    ------
    WriteError
        There is no room, or no permission; nothing of the file is left.
    """
    with written_whole(path) as file:
        write(block, file)
        nbytes = file.tell()
    yield {"path": np.array([path], dtype=object), "rows": np.array([num_rows(block)]), "nbytes": np.array([nbytes])}


def write_parquet(block: Block, file: IO[bytes]) -> None:
    """Write a block as Parquet."""
    from pyarrow import parquet

    parquet.write_table(to_arrow_batch(block), file)


def write_csv(block: Block, file: IO[bytes]) -> None:
    """Write a block as delimited text with a line of names."""
    from pyarrow import csv

    for name, column in block.items():
        if getattr(column, "ndim", 1) > 1:
            raise BatchError(
                f"Column `{name}` holds an array of shape {column.shape[1:]} in each row, which CSV cannot: drop "
                "it, or write Parquet.",
                function="write_csv",
            )
    csv.write_csv(to_arrow_batch(block), file)


def write_json(block: Block, file: IO[bytes]) -> None:
    """Write a block as one JSON object for each row and line."""
    for row in iterate_rows(block):
        file.write(json.dumps(row, default=_to_json, ensure_ascii=False).encode() + b"\n")


def _to_json(value: Any) -> Any:
    if isinstance(value, np.ndarray | np.generic):
        return value.tolist()
    if hasattr(value, "isoformat"):
        return value.isoformat()
    if isinstance(value, bytes):
        return value.decode("latin-1")
    raise TypeError(f"JSON has nothing for {type(value).__name__}: {value!r}")


@dataclasses.dataclass(frozen=True)
class WriteImages(Transform):
    """Writes the image of each row to a file of its own, and gives one row for each."""

    folder: str
    column: str
    suffix: str
    #: The column that names the files, without suffix; numbers otherwise.
    names: str | None = None
    run: str = ""

    @property
    def name(self) -> str:
        return "write(images)"

    def open(self) -> Opened:
        return self._write

    def _write(self, block: Block) -> Iterator[Block]:
        if not block:
            return
        check_columns(block, [self.column, *([self.names] if self.names else [])], " to write")
        number = current_work().number
        images = column_to_numpy(block[self.column])
        names = column_to_numpy(block[self.names]) if self.names else None
        for position, image in enumerate(images):
            name = f"{self.run}{number:06d}-{position:06d}" if names is None else str(names[position])
            path = os.path.join(self.folder, f"{name}{self.suffix}")
            yield from write_block({"image": image[None]}, path, self._encode)

    def _encode(self, block: Block, file: IO[bytes]) -> None:
        from PIL import Image

        data = io.BytesIO()
        kind = Image.registered_extensions()[self.suffix]
        Image.fromarray(np.ascontiguousarray(block["image"][0])).save(data, kind)
        file.write(data.getvalue())


def begin_writing(folder: str | os.PathLike[str], mode: str) -> tuple[str, str, list[str]]:
    """Make the directory; returns it, what to put into file names, and the files that go when all is written."""
    path = os.fspath(folder)
    path = path if "://" in path else os.path.abspath(os.path.expanduser(path))
    old = make_folder(path, mode)
    return path, f"{secrets.token_hex(3)}-" if old else "", old if mode == "overwrite" else []


def end_writing(rows: Block, old: list[str]) -> Written:
    """Remove what was overwritten and say what was written."""
    for path in old:
        remove(path)
    if not rows:
        return Written((), 0, 0)
    paths = tuple(str(path) for path in column_to_numpy(rows["path"]))
    return Written(paths, int(rows["rows"].sum()), int(rows["nbytes"].sum()))


__all__ = ["MODES", "WriteBlocks", "WriteImages", "Written", "begin_writing", "end_writing"]
