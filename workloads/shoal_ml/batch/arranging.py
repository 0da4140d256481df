"""The methods of datasets that put rows together, apart, or in another order."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Generic, TypeVar

from shoal.errors import OptionError
from shoal_ml.batch import consuming, frames
from shoal_ml.batch.checking import check_choice, check_function, check_names, check_share, check_whole
from shoal_ml.batch.execution import RunOptions
from shoal_ml.batch.handles import Handle
from shoal_ml.batch.plan import Compute, Plan, Step
from shoal_ml.batch.sources.combined import ArrangedSource, UnionSource, ZipSource, cut_anew, mixed
from shoal_ml.batch.sources.memory import RefsSource
from shoal_ml.batch.splitting import Shard, deal, split_rows
from shoal_ml.batch.transforms import MapBatches

Self = TypeVar("Self", bound="Arranging")
Arrange = Callable[[Sequence[Handle]], Iterator[Handle]]


class Arranging:
    """A part of :class:`~shoal_ml.batch.Dataset`."""

    _plan: Plan
    _options: RunOptions

    def __init__(self, plan: Plan, options: RunOptions) -> None:
        self._plan = plan
        self._options = options

    def union(self: Self, *others: Arranging) -> Self:
        """Return all rows of this dataset, and then those of the others, which have the same columns."""
        return self._of(UnionSource([self._plan, *(other._plan for other in others)], self._run))

    def zip(self: Self, other: Arranging) -> Self:
        """Return the columns of both, row by row; of two with one name the second gets ``_1``.

        Raises
        ------
        RowCountError
            When it runs: one has more rows.
        """
        return self._of(ZipSource(self._plan, other._plan, self._run))

    def repartition(self: Self, num_blocks: int) -> Self:
        """Return the rows in this many blocks of the same size, in the same order. All are made first."""
        number = check_whole("num_blocks", num_blocks, 1)
        return self._arranged(f"repartition({number})", functools.partial(cut_anew, num_blocks=number))

    def random_shuffle(self: Self, seed: int | None = None) -> Self:
        """Return the rows in random order: every order is as likely. All are made first, and go to disk if need be.

        With the same *seed* and rows the order is the same; without, each run has another.
        """
        if seed is not None:
            check_whole("seed", seed, 0)
        return self._arranged("random_shuffle", functools.partial(mixed, seed=seed))

    def sort(self: Self, columns: str | Sequence[str], *, descending: bool = False) -> Self:
        """Return the rows in the order of some columns. A Dask dataframe does it: array columns become objects."""
        names = check_names(columns)
        arrange = functools.partial(frames.sorted_by, columns=names, descending=descending)
        return self._arranged(f"sort({', '.join(names)})", arrange)

    def join(self: Self, other: Arranging, on: str | Sequence[str], *, how: str = "inner") -> Self:
        """Return the rows of both that agree in some columns, in no particular order. A Dask dataframe does it.

        Parameters
        ----------
        how
            ``"inner"``, ``"left"``, ``"right"`` or ``"outer"``.
        """
        names = check_names(on)
        check_choice("how", how, ("inner", "left", "right", "outer"))

        def arrange(handles: Sequence[Handle]) -> Iterator[Handle]:
            return frames.joined(handles, list(other._run(other._plan)), names, how)

        return self._arranged(f"join({', '.join(names)})", arrange)

    def groupby(self: Self, columns: str | Sequence[str]) -> Grouped[Self]:
        """Group rows that agree in some columns: follow with ``.map_groups(function)`` or ``.agg(…)``."""
        return Grouped(self, check_names(columns))

    def split(self: Self, num_parts: int, *, equal: bool = False) -> list[Self]:
        """Run the plan and return its rows in parts, in order; the data stays where it is.

        Parameters
        ----------
        equal
            All parts have the same number of rows; the last few, fewer than there are parts, are left out.
        """
        number = check_whole("num_parts", num_parts, 1)
        handles = list(self._run(self._plan))
        total = sum(handle.num_rows for handle in handles)
        if equal:
            sizes = [total // number] * number
        else:
            sizes = [total * (n + 1) // number - total * n // number for n in range(number)]
        return [self._of(RefsSource(f"part {n}", part)) for n, part in enumerate(split_rows(handles, sizes))]

    def train_test_split(
        self: Self, test_size: float | int, *, shuffle: bool = False, seed: int | None = None
    ) -> tuple[Self, Self]:
        """Run the plan and return its rows in two parts: for training, and the last *test_size* for testing.

        Parameters
        ----------
        test_size
            A share between 0 and 1, or a number of rows.
        shuffle, seed
            Mix the rows before; see :meth:`random_shuffle`.
        """
        if isinstance(test_size, float):
            check_share("test_size", test_size)
        else:
            check_whole("test_size", test_size, 0)
        source = self.random_shuffle(seed) if shuffle else self
        handles = list(self._run(source._plan))
        total = sum(handle.num_rows for handle in handles)
        test = round(total * test_size) if isinstance(test_size, float) else int(test_size)
        if test > total:
            raise OptionError(f"`test_size` is {test:,} rows, and there are {total:,}.", option="test_size")
        parts = split_rows(handles, [total - test, test])
        train, rest = (self._of(RefsSource(name, part)) for name, part in zip(("train", "test"), parts, strict=True))
        return train, rest

    def streaming_split(self, num_parts: int, *, equal: bool = True) -> list[Shard]:
        """Return iterators over parts of the rows, for the ranks of a training run: the plan runs once for all of them.

        Pass one to each rank. Blocks are dealt out as they are made; each rank's iteration is one epoch, and the next
        runs the plan anew.

        Parameters
        ----------
        equal
            All ranks get the same number of rows; the last few, fewer than there are ranks, are left out.
        """
        return deal(self._plan, self._options, check_whole("num_parts", num_parts, 1), equal)

    def _arranged(self: Self, name: str, arrange: Arrange) -> Self:
        return self._of(ArrangedSource(name, self._plan, self._run, arrange))

    def _of(self: Self, source: Any) -> Self:
        return self._with(Plan(source))

    def _with(self: Self, plan: Plan) -> Self:
        return type(self)(plan, self._options)

    @property
    def _run(self) -> Callable[[Plan], Iterator[Handle]]:
        return functools.partial(consuming.iterate_handles, options=self._options)


class Grouped(Generic[Self]):
    """Rows in groups; made by :meth:`Dataset.groupby`."""

    def __init__(self, dataset: Self, columns: tuple[str, ...]) -> None:
        self._dataset, self._columns = dataset, columns

    def map_groups(self, function: Callable[[Any], Any], **options: Any) -> Self:
        """Call a function with all rows of each group, as a DataFrame; it returns a batch with any number of rows.

        A Dask dataframe brings the groups together; groups of one block come in the order of their keys, blocks in no
        particular order.
        """
        check_function("map_groups", function)
        arrange = functools.partial(frames.gathered_by, columns=self._columns)
        gathered = self._dataset._arranged(f"groupby({', '.join(self._columns)})", arrange)
        by_group = MapBatches(frames.ByGroup(function, self._columns), None, "pandas")
        return gathered._with(gathered._plan.then(Step(by_group, Compute(tuple(options.items())))))

    def agg(self, spec: Any) -> Self:
        """Return one row for each group; *spec* as for pandas: ``{"price": ["mean", "max"]}``, ``"sum"``."""
        arrange = functools.partial(frames.aggregated, columns=self._columns, spec=spec)
        return self._dataset._arranged(f"groupby({', '.join(self._columns)}).agg", arrange)

    def count(self) -> Self:
        """Return the number of rows of each group, in column ``count``."""
        arrange = functools.partial(frames.counted, columns=self._columns)
        return self._dataset._arranged(f"groupby({', '.join(self._columns)}).count", arrange)


__all__ = ["Arranging", "Grouped"]
