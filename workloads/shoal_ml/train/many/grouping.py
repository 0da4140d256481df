"""The data of many models: blocks in the object store, and which rows of which block belong to each key.

A data frame is sorted by its keys once and cut into blocks at their borders, so that a fit maps the block of its rows
and takes a slice: nothing is sent for each group. A Dask data frame is brought into this order by Dask, partition by
partition, and never passes through the driver.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import cloudpickle

import shoal
from shoal.errors import OptionError
from shoal_ml.train.many.keys import Key, encode, plain

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd

#: Bytes of one block, about: of a data frame, and of values that were given one by one.
FRAME_BLOCK, VALUES_BLOCK = 32 << 20, 4 << 20


class Group(NamedTuple):
    """One key and its data: rows ``start`` to ``stop`` of a data frame, or the value at ``start`` of a list."""

    key: Key
    #: Number of the block; -1 if the key is all there is.
    block: int
    start: int
    stop: int
    #: Changes when the data do; "" if there are none.
    data_hash: str


class Grouped(NamedTuple):
    """All keys with their data."""

    groups: list[Group]
    blocks: list[shoal.ObjectRef]
    #: Names of the columns that make the key; none if the groups were given as they are.
    by: tuple[str, ...]

    @property
    def has_rows(self) -> bool:
        return bool(self.blocks) or any(group.block >= 0 for group in self.groups)


def make_groups(groups: Any, by: str | Sequence[str] | None) -> Grouped:
    """Put the data of *groups* into the object store.

    Parameters
    ----------
    groups
        A pandas or Dask data frame, with *by*; a mapping of keys to data; or keys.
    by
        Column or columns of the data frame that make the key: with one its value is the key, with several a tuple.

    Raises
    ------
    OptionError
        *by* is missing, or names no column; a key is null or comes twice.
    TypeError
        *groups* is nothing of these.
    """
    columns = (by,) if isinstance(by, str) else tuple(by or ())
    if hasattr(groups, "columns") and hasattr(groups, "shuffle"):
        return _of_dask(groups, _checked(columns, list(groups.columns)))
    if hasattr(groups, "columns") and hasattr(groups, "iloc"):
        return _of_frame(groups, _checked(columns, list(groups.columns)))
    if columns:
        raise OptionError("`by` goes with a data frame: a mapping or a list has its keys already.", option="by")
    if isinstance(groups, Mapping):
        return _of_mapping(groups)
    if isinstance(groups, Iterable) and not isinstance(groups, (str, bytes)):
        keys = [_key(key) for key in groups]
        _refuse_repeats(keys)
        return Grouped([Group(key, -1, 0, 0, "") for key in keys], [], ())
    raise TypeError(f"`groups` is a data frame, a mapping of keys to data, or keys, not {type(groups).__name__}.")


def sort_by_key(frame: pd.DataFrame, by: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
    """Return in which order rows stand by key, those of one key as they came, and the borders of the keys in it.

    Key number *n* has the rows from ``borders[n]`` to ``borders[n + 1]``.

    Raises
    ------
    OptionError
        A key is null.
    """
    import numpy as np

    is_null = frame[list(by)].isna().any(axis=1).to_numpy()
    if is_null.any():
        raise OptionError(
            f"{int(is_null.sum()):,} of {len(frame):,} rows have no key in {_names(by)} (the first is row "
            f"{int(is_null.argmax()):,}). Drop them, or fill the key in.",
            option="by",
        )
    codes = frame.groupby(list(by), sort=True, observed=True).ngroup().to_numpy()
    order = np.argsort(codes, kind="stable")
    return order, np.flatnonzero(np.diff(codes[order], prepend=-1, append=-1)) if len(frame) else np.zeros(1, int)


def keys_of(frame: pd.DataFrame, by: Sequence[str], rows: np.ndarray) -> list[Key]:
    """Return the keys of some rows, given by their positions."""
    found = frame[list(by)].take(rows)
    if len(by) == 1:
        return [plain(value) for value in found[by[0]]]
    return [plain(values) for values in found.itertuples(index=False, name=None)]


def _of_frame(frame: pd.DataFrame, by: tuple[str, ...]) -> Grouped:
    in_order, rows = _arrange(frame, by)
    row_nbytes = max(1.0, float(frame.memory_usage(index=True, deep=True).sum()) / max(1, len(frame)))
    groups: list[Group] = []
    blocks: list[shoal.ObjectRef] = []
    first = 0  # the row with which the current block begins
    for key, start, stop, data_hash in rows:
        if (stop - first) * row_nbytes > FRAME_BLOCK and start > first:
            blocks.append(shoal.put(in_order.iloc[first:start]))
            first = start
        groups.append(Group(key, len(blocks), start - first, stop - first, data_hash))
    if groups:
        blocks.append(shoal.put(in_order.iloc[first:]))
    return Grouped(groups, blocks, by)


def _of_dask(frame: Any, by: tuple[str, ...]) -> Grouped:
    partitions = shoal.from_dask(frame.shuffle(on=list(by)))
    arrange = shoal.remote(num_returns=2)(_arrange)
    made = [arrange.remote(partition, by) for partition in partitions]  # type: ignore[union-attr]
    blocks = [block for block, _ in made]
    groups = [
        Group(key, number, start, stop, data_hash)
        for number, (_, rows) in enumerate(made)
        for key, start, stop, data_hash in shoal.get(rows)
    ]
    return Grouped(groups, blocks, by)


def _arrange(frame: pd.DataFrame, by: tuple[str, ...]) -> tuple[pd.DataFrame, list[tuple[Key, int, int, str]]]:
    """Return a data frame in the order of its keys, and for each key where its rows are and their hash."""
    order, borders = sort_by_key(frame, by)
    in_order = frame.take(order)
    keys, hashes = keys_of(frame, by, order[borders[:-1]]), _hash_groups(in_order, borders)
    return in_order, list(zip(keys, borders[:-1].tolist(), borders[1:].tolist(), hashes, strict=True))


def _of_mapping(groups: Mapping[Any, Any]) -> Grouped:
    found: list[Group] = []
    blocks: list[shoal.ObjectRef] = []
    values: list[Any] = []
    nbytes = 0
    for name, value in groups.items():
        pickled = cloudpickle.dumps(value)
        digest = hashlib.blake2b(pickled, digest_size=8).hexdigest()
        found.append(Group(_key(name), len(blocks), len(values), len(values) + 1, digest))
        values.append(value)
        nbytes += len(pickled)
        if nbytes > VALUES_BLOCK:
            blocks.append(shoal.put(values))
            values, nbytes = [], 0
    if values:
        blocks.append(shoal.put(values))
    _refuse_repeats([group.key for group in found])
    return Grouped(found, blocks, ())


def _hash_groups(frame: pd.DataFrame, borders: np.ndarray) -> list[str]:
    """Return a hash of each group's rows, in which their order counts and the index does not."""
    import numpy as np
    import pandas as pd

    starts, lengths = borders[:-1], np.diff(borders)
    if not len(starts):
        return []
    try:
        rows = pd.util.hash_pandas_object(frame, index=False).to_numpy()
    except TypeError:  # a column of lists, dictionaries or the like
        parts = np.split(np.arange(len(frame)), starts[1:])
        return [hashlib.blake2b(cloudpickle.dumps(frame.take(part)), digest_size=8).hexdigest() for part in parts]
    positions = np.arange(len(frame), dtype=np.uint64) - np.repeat(starts.astype(np.uint64), lengths)
    mixed = rows * (2 * positions + 1)  # odd factors: no bit is lost
    sums = np.add.reduceat(mixed, starts)
    columns = hashlib.blake2b(repr(list(map(str, frame.columns))).encode(), digest_size=4).hexdigest()
    return [f"{int(total):016x}{length:x}{columns}" for total, length in zip(sums, lengths, strict=True)]


def _checked(by: tuple[str, ...], columns: list[str]) -> tuple[str, ...]:
    if not by:
        raise OptionError(f"Say with `by` which column of the data frame is the key: {_names(columns)}.", option="by")
    for name in by:
        if name not in columns:
            raise OptionError(f"`by` names `{name}`, which is no column: {_names(columns)}.", option="by")
    return by


def _key(value: Any) -> Key:
    try:
        return plain(value)
    except (ValueError, TypeError) as error:
        raise OptionError(str(error), option="groups") from None


def _refuse_repeats(keys: Sequence[Key]) -> None:
    seen: set[str] = set()
    for key in keys:
        text = encode(key)
        if text in seen:
            raise OptionError(f"The key {key!r} comes twice in `groups`.", option="groups")
        seen.add(text)


def _names(names: Sequence[str]) -> str:
    return ", ".join(f"`{name}`" for name in names)
