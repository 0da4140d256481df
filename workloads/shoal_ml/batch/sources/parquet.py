"""Parquet files: a piece is some row groups of one file; only the columns that are wanted are read."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence
from typing import Any

from shoal_ml.batch.batch_formats import from_arrow
from shoal_ml.batch.blocks import Block
from shoal_ml.batch.errors import missing_column
from shoal_ml.batch.handles import Handle
from shoal_ml.batch.paths import File, open_to_read
from shoal_ml.batch.sources.files import unreadable
from shoal_ml.batch.sources.memory import TARGET_NBYTES, handle_of
from shoal_ml.batch.sources.source import Piece, Source, Wishes


@dataclasses.dataclass(frozen=True, slots=True)
class ParquetPiece(Piece):
    """Row groups *first* up to *stop* of a file."""

    file: File
    first: int
    stop: int
    columns: tuple[str, ...] | None
    held: int

    @property
    def key(self) -> str:
        return f"{self.file.key}[{self.first}:{self.stop}]"

    @property
    def nbytes(self) -> int:
        return min(self.held, TARGET_NBYTES)

    def read(self) -> Iterator[Block]:
        import pyarrow as pa
        from pyarrow import parquet

        with open_to_read(self.file.path) as opened:
            try:
                file = parquet.ParquetFile(opened)
                rows = sum(file.metadata.row_group(group).num_rows for group in range(self.first, self.stop))
                per_block = max(1, int(rows * min(1.0, TARGET_NBYTES / max(self.held, 1))))
                batches = file.iter_batches(
                    per_block, row_groups=range(self.first, self.stop), columns=_list(self.columns)
                )
                for batch in batches:
                    yield from_arrow(batch)
            except (pa.ArrowInvalid, OSError) as error:
                raise unreadable(self.file.path, "Parquet", error) from error


class ParquetSource(Source):
    """Parquet files; their metadata is read here, little by little, the rows where they are worked on."""

    name = "read_parquet"
    reads = True

    def __init__(self, files: Sequence[File], columns: Sequence[str] | None = None) -> None:
        self._files = tuple(files)
        self._columns = None if columns is None else tuple(columns)

    def handles(self, wishes: Wishes) -> Iterator[Handle]:
        columns = self._columns
        if wishes.columns is not None and (columns is None or set(wishes.columns) <= set(columns)):
            columns = wishes.columns
        for file in self._files:
            yield from self._pieces(file, columns)

    def _pieces(self, file: File, columns: tuple[str, ...] | None) -> Iterator[Handle]:
        metadata = _metadata_of(file)
        names = metadata.schema.to_arrow_schema().names
        for name in columns or ():
            if name not in names:
                raise missing_column(name, names, f" in `{file.path}`")
        first = held = 0
        share = len(columns) / max(1, len(names)) if columns is not None else 1.0
        for group in range(metadata.num_row_groups):
            mine = int(metadata.row_group(group).total_byte_size * share)
            if group > first and held + mine > TARGET_NBYTES:
                yield handle_of(ParquetPiece(file, first, group, columns, held))
                first, held = group, 0
            held += mine
        if first < metadata.num_row_groups or not metadata.num_row_groups:
            yield handle_of(ParquetPiece(file, first, metadata.num_row_groups, columns, held))

    def num_rows(self) -> int:
        return sum(_metadata_of(file).num_rows for file in self._files)

    def describe(self) -> str:
        return f"{len(self._files):,} files, {sum(file.nbytes for file in self._files) / 1e6:,.1f} MB"


def _metadata_of(file: File) -> Any:
    import pyarrow as pa
    from pyarrow import parquet

    with open_to_read(file.path) as opened:
        try:
            return parquet.read_metadata(opened)
        except (pa.ArrowInvalid, OSError) as error:
            raise unreadable(file.path, "Parquet", error) from error


def _list(names: tuple[str, ...] | None) -> list[str] | None:
    return None if names is None else list(names)


__all__ = ["ParquetSource"]
