"""Sources of files: each, or a group of small ones, is a piece that an executor reads, large ones in several blocks."""

from __future__ import annotations

import dataclasses
import io
import json
from collections.abc import Callable, Iterator, Sequence
from typing import IO, Any

import numpy as np

from shoal_ml.batch.batch_formats import from_arrow, to_column
from shoal_ml.batch.blocks import Block
from shoal_ml.batch.errors import ReadError
from shoal_ml.batch.handles import Handle
from shoal_ml.batch.paths import File, open_to_read
from shoal_ml.batch.sources.memory import TARGET_NBYTES, handle_of
from shoal_ml.batch.sources.source import Piece, Source, Wishes, fingerprint

#: Files in one piece at most.
MAX_FILES = 256

#: Gives the blocks of one open file; the path is for errors and for a column.
Reader = Callable[[IO[bytes], str], Iterator[Block]]


@dataclasses.dataclass(frozen=True, slots=True)
class FilesPiece(Piece):
    """Some files, one after the other."""

    files: tuple[File, ...]
    reader: Reader
    #: How much larger the rows are in memory than in the files.
    growth: float = 1.0

    @property
    def key(self) -> str:
        if len(self.files) == 1:
            return self.files[0].key
        return f"{self.files[0].key}+{len(self.files) - 1}#{fingerprint(*(file.key for file in self.files))}"

    @property
    def nbytes(self) -> int:
        return int(min(sum(file.nbytes for file in self.files) * self.growth, TARGET_NBYTES))

    def read(self) -> Iterator[Block]:
        for file in self.files:
            with open_to_read(file.path) as opened:
                yield from self.reader(opened, file.path)


class FilesSource(Source):
    """Files of one kind. Small ones are read together, as many as make a block of moderate size."""

    reads = True

    def __init__(self, name: str, files: Sequence[File], reader: Reader, growth: float = 1.0) -> None:
        self.name = name
        self._files = tuple(files)
        self._reader = reader
        self._growth = growth

    def handles(self, wishes: Wishes) -> Iterator[Handle]:
        total = sum(file.nbytes for file in self._files)
        target = min(TARGET_NBYTES, max(total / (4 * wishes.parallelism), 1)) / self._growth
        group: list[File] = []
        for file in self._files:
            if group and (sum(f.nbytes for f in group) + file.nbytes > target or len(group) >= MAX_FILES):
                yield handle_of(FilesPiece(tuple(group), self._reader, self._growth))
                group = []
            group.append(file)
        if group:
            yield handle_of(FilesPiece(tuple(group), self._reader, self._growth))

    def describe(self) -> str:
        return f"{len(self._files):,} files, {sum(file.nbytes for file in self._files) / 1e6:,.1f} MB"


def unreadable(path: str, kind: str, error: BaseException) -> ReadError:
    """Return the error for a file that is not what it should be."""
    return ReadError(f"`{path}` cannot be read as {kind}: {error}", path=path)


@dataclasses.dataclass(frozen=True)
class CsvReader:
    """Reads delimited text with a line of names, in blocks; types are those of the first block."""

    options: tuple[tuple[str, Any], ...] = ()

    def __call__(self, opened: IO[bytes], path: str) -> Iterator[Block]:
        import pyarrow as pa
        from pyarrow import csv

        try:
            batches = csv.open_csv(
                opened,
                read_options=csv.ReadOptions(block_size=TARGET_NBYTES // 2),
                parse_options=csv.ParseOptions(**dict(self.options)),
            )
            for batch in batches:
                yield from_arrow(batch)
        except pa.ArrowInvalid as error:
            if "Empty CSV file" in str(error):
                return
            raise unreadable(path, "CSV", error) from error


@dataclasses.dataclass(frozen=True)
class JsonReader:
    """Reads one JSON object per line, in blocks; or a file that is one list of objects."""

    def __call__(self, opened: IO[bytes], path: str) -> Iterator[Block]:
        schema = None
        for text in _whole_lines(opened):
            if schema is None and text.lstrip()[:1] == b"[":
                yield _read_list(text + opened.read(), path)
                return
            if text.strip():
                table = _parse_json(text, schema, path)
                schema = schema or table.schema
                yield from_arrow(table)


def _parse_json(text: bytes, schema: Any, path: str) -> Any:
    import pyarrow as pa
    from pyarrow import json as arrow_json

    try:
        return arrow_json.read_json(
            io.BytesIO(text),
            read_options=arrow_json.ReadOptions(block_size=max(len(text), 1)),
            parse_options=arrow_json.ParseOptions(explicit_schema=schema),
        )
    except pa.ArrowInvalid as error:
        raise unreadable(path, "JSON lines", error) from error


def _read_list(text: bytes, path: str) -> Block:
    from shoal_ml.batch.rows import block_of_rows

    try:
        return block_of_rows(json.loads(text), path)
    except ValueError as error:
        raise unreadable(path, "JSON", error) from error


@dataclasses.dataclass(frozen=True)
class TextReader:
    """Reads lines: column ``text``."""

    encoding: str = "utf-8"
    drop_empty: bool = False

    def __call__(self, opened: IO[bytes], path: str) -> Iterator[Block]:
        import pyarrow as pa

        for text in _whole_lines(opened):
            try:
                lines = text.decode(self.encoding).split("\n")
            except UnicodeDecodeError as error:
                raise unreadable(path, f"{self.encoding} text", error) from error
            if not lines[-1]:
                lines.pop()
            lines = [line.removesuffix("\r") for line in lines]
            yield {"text": pa.array([line for line in lines if line or not self.drop_empty], pa.string())}


def _whole_lines(opened: IO[bytes]) -> Iterator[bytes]:
    """Give the file in parts of moderate size that end where lines do."""
    rest = b""
    while data := opened.read(TARGET_NBYTES // 2):
        cut = data.rfind(b"\n") + 1
        if cut:
            yield rest + data[:cut]
            rest = data[cut:]
        else:
            rest += data
    if rest:
        yield rest


@dataclasses.dataclass(frozen=True)
class BinaryReader:
    """Reads whole files: columns ``bytes`` and ``path``."""

    def __call__(self, opened: IO[bytes], path: str) -> Iterator[Block]:
        yield {"bytes": to_column([opened.read()], "bytes", path), "path": to_column([path], "path", path)}


@dataclasses.dataclass(frozen=True)
class ImageReader:
    """Reads images: column ``image`` of arrays, height by width by channels; and ``path``."""

    size: tuple[int, int] | None = None
    mode: str | None = None
    paths: bool = False

    def __call__(self, opened: IO[bytes], path: str) -> Iterator[Block]:
        from PIL import Image, UnidentifiedImageError

        try:
            image: Any = Image.open(opened)
            if self.mode is not None:
                image = image.convert(self.mode)
            if self.size is not None:
                image = image.resize((self.size[1], self.size[0]))
            pixels = np.asarray(image)
        except (UnidentifiedImageError, OSError, ValueError, SyntaxError) as error:
            raise unreadable(path, "an image", error) from error
        block: Block = {"image": pixels[None]}
        if self.paths:
            block["path"] = to_column([path], "path", path)
        yield block


__all__ = ["BinaryReader", "CsvReader", "FilesSource", "ImageReader", "JsonReader", "TextReader", "unreadable"]
