"""Transforms: what is done to blocks, as small records that travel and are opened where they run.

A transform is *opened* once per replica, or once per piece of work of a stage of tasks; what it returns makes any
number of blocks of one block. Chains of them run lazily, so that a function that gives a hundred batches for one block
holds one of them at a time.
"""

from __future__ import annotations

import abc
import dataclasses
import inspect
import itertools
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import numpy as np

from shoal_ml.batch.batch_formats import from_batch, to_batch, to_column, to_numpy_batch
from shoal_ml.batch.blocks import Block, check_columns, num_rows, slice_rows, take_rows
from shoal_ml.batch.errors import BatchError, ColumnError, RowCountError
from shoal_ml.batch.rows import block_of_rows, iterate_rows

#: Makes blocks of a block.
Opened = Callable[[Block], Iterable[Block]]


class Transform(abc.ABC):
    """One step of a plan."""

    #: Whether each row of a block makes exactly one: a limit may go before it.
    keeps_rows: bool = False
    #: Whether it costs next to nothing, so that it joins whatever stage comes before.
    is_light: bool = False
    #: Rows that a function is to be given at once; 0 for whatever a block has.
    batch_rows: int = 0

    @property
    @abc.abstractmethod
    def name(self) -> str:
        """What plans, progress and errors call it."""

    @abc.abstractmethod
    def open(self) -> Opened:
        """Get ready, where it runs."""


def apply_batches(
    transform: Callable[[Any], Any], block: Block, batch_size: int | None, batch_format: str, name: str
) -> Iterator[Block]:
    """Call *transform* with the rows of *block* in batches, and give what it returns as blocks.

    Parameters
    ----------
    transform
        Takes a batch and returns one, or an iterator of several. It may write to its batch.
    batch_size
        Rows of a batch, the last one may have fewer; None for all. Blocks without rows are not batches: *transform* is
        not called.
    batch_format
        See :func:`~shoal_ml.batch.batch_formats.to_batch`.
    name
        What errors call *transform*.

    Raises
    ------
    BatchError, RaggedBatchError
        It returned what is no batch.
    """
    rows = num_rows(block)
    for start in range(0, rows, batch_size or max(rows, 1)):
        part = slice_rows(block, start, start + (batch_size or rows))
        returned = transform(to_batch(part, batch_format))
        if inspect.isgenerator(returned) or isinstance(returned, Iterator):
            for batch in returned:
                yield from_batch(batch, name)
        else:
            yield from_batch(returned, name)


@dataclasses.dataclass(frozen=True)
class MapBatches(Transform):
    """Calls a function, or an instance of a class that is made once, with batches."""

    function: Any
    batch_size: int | None
    batch_format: str
    args: tuple[Any, ...] = ()
    kwargs: tuple[tuple[str, Any], ...] = ()
    constructor_args: tuple[Any, ...] = ()
    constructor_kwargs: tuple[tuple[str, Any], ...] = ()

    @property
    def name(self) -> str:
        return f"map_batches({name_of(self.function)})"

    @property
    def batch_rows(self) -> int:  # type: ignore[override]
        return self.batch_size or 0

    def open(self) -> Opened:
        function = self.function
        if inspect.isclass(function):
            function = function(*self.constructor_args, **dict(self.constructor_kwargs))
        kwargs, args = dict(self.kwargs), self.args
        call = (lambda batch: function(batch, *args, **kwargs)) if args or kwargs else function
        name = name_of(self.function)
        return lambda block: apply_batches(call, block, self.batch_size, self.batch_format, name)


@dataclasses.dataclass(frozen=True)
class MapRows(Transform):
    """Calls a function with each row, which returns a row."""

    function: Any
    keeps_rows = True

    @property
    def name(self) -> str:
        return f"map({name_of(self.function)})"

    def open(self) -> Opened:
        name = name_of(self.function)

        def run(block: Block) -> Iterator[Block]:
            rows = [self.function(row) for row in iterate_rows(block)]
            for row in rows[:1]:
                if not isinstance(row, dict):
                    raise BatchError(
                        f"`{name}` returned {type(row).__name__}, not a row: return a dict of column names to values.",
                        function=name,
                    )
            yield block_of_rows(rows, name)

        return run


@dataclasses.dataclass(frozen=True)
class FlatMap(Transform):
    """Calls a function with each row, which returns any number of rows."""

    function: Any
    #: Rows that are gathered into one block.
    ROWS = 4096

    @property
    def name(self) -> str:
        return f"flat_map({name_of(self.function)})"

    def open(self) -> Opened:
        name = name_of(self.function)

        def run(block: Block) -> Iterator[Block]:
            rows = itertools.chain.from_iterable(self._rows(row, name) for row in iterate_rows(block))
            while some := list(itertools.islice(rows, self.ROWS)):
                yield block_of_rows(some, name)

        return run

    def _rows(self, row: Any, name: str) -> Iterable[Any]:
        found = self.function(row)
        if not isinstance(found, Iterable) or isinstance(found, str | bytes | dict):
            raise BatchError(
                f"`{name}` returned {type(found).__name__}: return a list of rows, or yield them.", function=name
            )
        return found


@dataclasses.dataclass(frozen=True)
class Filter(Transform):
    """Keeps the rows for which a function says so."""

    function: Any

    @property
    def name(self) -> str:
        return f"filter({name_of(self.function)})"

    def open(self) -> Opened:
        def run(block: Block) -> Iterator[Block]:
            keep = np.fromiter((bool(self.function(row)) for row in iterate_rows(block)), bool, num_rows(block))
            yield take_rows(block, keep)

        return run


@dataclasses.dataclass(frozen=True)
class Columns(Transform):
    """Chooses, drops or renames columns."""

    #: ``select``, ``drop`` or ``rename``.
    how: str
    names: tuple[str, ...]
    new_names: tuple[str, ...] = ()
    keeps_rows, is_light = True, True

    @property
    def name(self) -> str:
        shown = [f"{a}→{b}" for a, b in zip(self.names, self.new_names, strict=True)] if self.new_names else self.names
        return f"{self.how}({', '.join(shown)})"

    def open(self) -> Opened:
        return lambda block: (self.apply(block),)

    def apply(self, block: Block) -> Block:
        """Return the block with the columns wanted; one without any columns stays as it is."""
        if not block:
            return block
        check_columns(block, self.names, f" to {self.how}")
        if self.how == "select":
            return {name: block[name] for name in self.names}
        if self.how == "drop":
            return {name: column for name, column in block.items() if name not in self.names}
        renamed = dict(zip(self.names, self.new_names, strict=True))
        names = [renamed.get(name, name) for name in block]
        for name in names:
            if names.count(name) > 1:
                raise ColumnError(
                    f"Two columns would be called `{name}`: drop one first.", column=name, columns=tuple(block)
                )
        return dict(zip(names, block.values(), strict=True))


@dataclasses.dataclass(frozen=True)
class AddColumn(Transform):
    """Adds a column that a function makes of each batch."""

    column: str
    function: Any
    keeps_rows = True

    @property
    def name(self) -> str:
        return f"add_column({self.column})"

    def open(self) -> Opened:
        name = name_of(self.function)

        def run(block: Block) -> Iterator[Block]:
            if not block:
                yield block
                return
            column = to_column(self.function(to_numpy_batch(block)), self.column, name)
            check_same_rows(num_rows(block), len(column), name)
            yield {**block, self.column: column}

        return run


def check_same_rows(given: int, returned: int, name: str) -> None:
    """Refuse results that are more or fewer than what they were made of."""
    if given != returned:
        raise RowCountError(
            f"`{name}` returned {returned:,} rows for {given:,}: each row needs exactly one result. Use `map_batches` "
            "to make more or fewer.",
            given=given,
            returned=returned,
        )


def name_of(function: Any) -> str:
    """Return what to call a function or class."""
    inner = getattr(function, "func", None)  # of a `functools.partial`
    return str(getattr(function, "__name__", None) or getattr(inner, "__name__", None) or type(function).__name__)


class Chain:
    """Opened transforms, one after the other. Notes the seconds that each has taken and the rows it gave."""

    def __init__(self, transforms: Sequence[Transform]) -> None:
        self._opened = [transform.open() for transform in transforms]
        self.seconds = [0.0] * len(self._opened)
        self.rows = [0] * len(self._opened)

    def run(self, blocks: Iterable[Block]) -> Iterator[Block]:
        """Give the blocks that come of *blocks*."""
        for position, opened in enumerate(self._opened):
            blocks = self._timed(position, itertools.chain.from_iterable(map(opened, blocks)))
        return iter(blocks)

    def take_notes(self) -> list[tuple[int, float]]:
        """Return the rows and seconds of each transform since the last time."""
        inclusive, rows = self.seconds, self.rows
        self.seconds, self.rows = [0.0] * len(rows), [0] * len(rows)
        before = [0.0, *inclusive[:-1]]
        return [(count, max(0.0, mine - its)) for count, mine, its in zip(rows, inclusive, before, strict=False)]

    def take_remarks(self) -> tuple[Any, ...]:
        """Return what the transforms have to tell since the last time: those that have a ``take_remarks``."""
        takers = [getattr(opened, "take_remarks", None) for opened in self._opened]
        return tuple(remark for take in takers if take is not None for remark in take())

    def _timed(self, position: int, blocks: Iterator[Block]) -> Iterator[Block]:
        while True:
            begin = time.perf_counter()
            block = next(blocks, None)
            self.seconds[position] += time.perf_counter() - begin
            if block is None:
                return
            self.rows[position] += num_rows(block)
            yield block


__all__ = [
    "AddColumn", "Chain", "Columns", "Filter", "FlatMap", "MapBatches", "MapRows", "Opened", "Transform",
    "apply_batches", "check_same_rows", "name_of",
]  # fmt: skip
