"""What makes datasets: ``from_…`` and ``read_…``."""

from __future__ import annotations

import builtins
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from shoal_ml.batch.batch_formats import from_batch
from shoal_ml.batch.checking import check_whole
from shoal_ml.batch.dataset import Dataset
from shoal_ml.batch.paths import File, Paths, find_files
from shoal_ml.batch.plan import Plan
from shoal_ml.batch.sources.files import (
    BinaryReader,
    CsvReader,
    FilesSource,
    ImageReader,
    JsonReader,
    Reader,
    TextReader,
)
from shoal_ml.batch.sources.foreign import DaskSource, IndexedSource, as_row
from shoal_ml.batch.sources.memory import (
    BatchesSource,
    ColumnsSource,
    IterableSource,
    RangeSource,
    columns_of_arrow,
)

#: Rows of a Hugging Face dataset in one block.
HUGGINGFACE_ROWS = 4096


def range(num_rows: int) -> Dataset:
    """Make a dataset of the whole numbers from 0 up to *num_rows*, in column ``id``; executors make them."""
    return Dataset(Plan(RangeSource(check_whole("num_rows", num_rows, 0))))


def from_items(items: Iterable[Any]) -> Dataset:
    """Make a dataset of items in memory: a dict is a row; anything else becomes column ``item``."""
    given = items if isinstance(items, list) else list(items)
    return Dataset(Plan(IterableSource("from_items", lambda: given, len(given))))


def from_iterable(iterable: Any) -> Dataset:
    """Make a dataset of what an iterable gives, read no further ahead than it is worked on.

    Parameters
    ----------
    iterable
        An iterable, or a function that returns one. Items are rows as for :func:`from_items`. What can be iterated
        over only once makes a dataset that can run only once.
    """
    if not callable(iterable) and not isinstance(iterable, Iterable):
        raise TypeError(f"`from_iterable` takes an iterable or a function, not {type(iterable).__name__}.")
    return Dataset(Plan(IterableSource("from_iterable", iterable if callable(iterable) else lambda: iterable)))


def from_batches(batches: Any) -> Dataset:
    """Make a dataset of batches (dicts of arrays, DataFrames, tables) that an iterable, or a function that returns one,
    gives; read no further ahead than they are worked on."""
    return Dataset(Plan(BatchesSource("from_batches", batches if callable(batches) else lambda: batches)))


def from_numpy(arrays: Any) -> Dataset:
    """Make a dataset of arrays in memory, or mapped from a file.

    Parameters
    ----------
    arrays
        One array, whose first axis is the rows: column ``data``; or a mapping of names to arrays of equal length.
    """
    columns = dict(arrays) if isinstance(arrays, Mapping) else {"data": arrays}
    return Dataset(Plan(ColumnsSource("from_numpy", from_batch(columns, "from_numpy"))))


def from_pandas(frames: Any) -> Dataset:
    """Make a dataset of a DataFrame, or of several with the same columns. The index is left out."""
    if isinstance(frames, Sequence):
        return from_batches(builtins.list(frames))
    return Dataset(Plan(ColumnsSource("from_pandas", from_batch(frames, "from_pandas"))))


def from_arrow(tables: Any) -> Dataset:
    """Make a dataset of a ``pyarrow.Table``, or of several with the same columns; numbers are not copied."""
    return Dataset(Plan(ColumnsSource("from_arrow", columns_of_arrow(tables))))


def from_torch(dataset: Any) -> Dataset:
    """Make a dataset of a torch dataset.

    One with a length and items is read by executors, a part of the items each; an iterable one here. A dict is a row;
    the parts of a tuple become columns ``item_0``, ``item_1``, …; anything else becomes column ``item``.
    """
    if hasattr(dataset, "__getitem__") and hasattr(dataset, "__len__"):
        return Dataset(Plan(IndexedSource("from_torch", dataset)))
    return Dataset(Plan(IterableSource("from_torch", lambda: map(as_row, dataset))))


def from_huggingface(dataset: Any) -> Dataset:
    """Make a dataset of one of the ``datasets`` package: its Arrow memory is read a part at a time; one that streams is
    read as far as its rows are wanted."""
    if not hasattr(dataset, "with_format"):
        raise TypeError(f"`from_huggingface` takes a dataset of the `datasets` package, not {type(dataset).__name__}.")
    if not hasattr(dataset, "__len__"):
        return Dataset(Plan(IterableSource("from_huggingface", lambda: dataset)))
    tables = dataset.with_format("arrow")
    starts = builtins.range(0, len(dataset), HUGGINGFACE_ROWS)
    return Dataset(Plan(BatchesSource("from_huggingface", lambda: (tables[s : s + HUGGINGFACE_ROWS] for s in starts))))


def from_dask(collection: Any) -> Dataset:
    """Make a dataset of a Dask dataframe, bag or array of the cluster that shoal uses; each partition is a block.

    Dask computes it when the dataset runs, and its workers hand the partitions over; see :func:`shoal.from_dask`. An
    array's first axis is the rows: column ``data``.
    """
    return Dataset(Plan(DaskSource(collection)))


def read_parquet(paths: Paths, *, columns: Sequence[str] | None = None) -> Dataset:
    """Make a dataset of Parquet files; executors read them, some row groups at a time.

    Parameters
    ----------
    paths
        A file, a directory, a glob, an fsspec URL, or a list of these.
    columns
        Read only these; :meth:`Dataset.select` right after reading does the same.

    Raises
    ------
    ReadError
        There is no such file. Damaged ones are found when they are read.
    """
    from shoal_ml.batch.sources.parquet import ParquetSource

    return Dataset(Plan(ParquetSource(find_files(paths, (".parquet", ".pq")), columns)))


def read_csv(paths: Paths, *, delimiter: str = ",", **options: Any) -> Dataset:
    """Make a dataset of delimited text files, each with a line of names; types follow from the values.

    Parameters
    ----------
    paths
        As for :func:`read_parquet`.
    delimiter
        Between two values.
    **options
        Of ``pyarrow.csv.ParseOptions``.
    """
    reader = CsvReader((("delimiter", delimiter), *options.items()))
    return _files("read_csv", find_files(paths, (".csv", ".tsv", ".txt")), reader, 1.5)


def read_json(paths: Paths) -> Dataset:
    """Make a dataset of files that have one JSON object in each line, or are a list of objects."""
    return _files("read_json", find_files(paths, (".json", ".jsonl", ".ndjson")), JsonReader(), 1.5)


def read_text(paths: Paths, *, encoding: str = "utf-8", drop_empty: bool = False) -> Dataset:
    """Make a dataset of the lines of text files: column ``text``, without line ends."""
    return _files("read_text", find_files(paths), TextReader(encoding, drop_empty), 1.2)


def read_binary_files(paths: Paths) -> Dataset:
    """Make a dataset of whole files, one in each row: columns ``bytes`` and ``path``."""
    return _files("read_binary_files", find_files(paths), BinaryReader())


def read_images(
    paths: Paths, *, size: tuple[int, int] | None = None, mode: str | None = None, include_paths: bool = False
) -> Dataset:
    """Make a dataset of images: column ``image``, arrays of shape ``(height, width, channels)``.

    Parameters
    ----------
    paths
        As for :func:`read_parquet`.
    size
        Height and width that all are brought to. Images of different sizes stay separate arrays.
    mode
        What they are converted to: ``"RGB"``, ``"L"``, …; see Pillow.
    include_paths
        Add column ``path``.
    """
    suffixes = (".png", ".jpg", ".jpeg", ".bmp", ".gif", ".tif", ".tiff", ".webp")
    return _files("read_images", find_files(paths, suffixes), ImageReader(size, mode, include_paths), 10.0)


def _files(name: str, files: Sequence[File], reader: Reader, growth: float = 1.0) -> Dataset:
    return Dataset(Plan(FilesSource(name, files, reader, growth)))


__all__ = [
    "from_arrow",
    "from_batches",
    "from_dask",
    "from_huggingface",
    "from_items",
    "from_iterable",
    "from_numpy",
    "from_pandas",
    "from_torch",
    "range",
    "read_binary_files",
    "read_csv",
    "read_images",
    "read_json",
    "read_parquet",
    "read_text",
]
