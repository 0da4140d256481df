"""``Dataset``: rows that are read, changed and given in a stream of blocks."""

from __future__ import annotations

import dataclasses
import inspect
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from shoal.errors import OptionError
from shoal.model.options import ActorOptions, TaskOptions, with_changes
from shoal_ml.batch import consuming
from shoal_ml.batch.arranging import Arranging
from shoal_ml.batch.batch_formats import to_numpy_batch, to_pandas_batch
from shoal_ml.batch.blocks import Block, concat, schema_of
from shoal_ml.batch.checking import check_concurrency, check_format, check_function, check_names, check_whole
from shoal_ml.batch.execution import Run, RunOptions
from shoal_ml.batch.explaining import PlanExplanation, RunStats
from shoal_ml.batch.plan import Compute, Plan, Step
from shoal_ml.batch.rows import Row, iterate_rows
from shoal_ml.batch.saving import Saving
from shoal_ml.batch.sources.memory import RefsSource
from shoal_ml.batch.transforms import AddColumn, Columns, Filter, FlatMap, MapBatches, MapRows, Transform


class Dataset(Arranging, Saving):
    """Rows in blocks, and what is to be done to them: a plan that runs when its results are asked for.

    Make one with :func:`shoal_ml.batch.from_numpy`, :func:`~shoal_ml.batch.read_parquet` and the like. Methods that
    change it return another and run nothing; those that give rows run the plan, block by block: reading, functions and
    models work at the same time, no more than a budget of memory is held, and rows come in the order of the source.
    Each time results are asked for, the plan runs anew; :meth:`materialize` keeps them.

    A *batch* is a dict of column names to numpy arrays whose first axis is the rows, unless ``batch_format`` says
    otherwise. A *row* is a dict of column names to values.

    Leaving an iteration early, by ``break``, an exception or the stop button, cancels what is under way.

    Examples
    --------
    >>> import shoal, numpy as np
    >>> import shoal_ml.batch as batch
    >>> class Model:
    ...     def __init__(self, bias):
    ...         self.bias = bias
    ...     def __call__(self, batch):
    ...         return {"y": batch["data"].sum(axis=1) + self.bias}
    >>> with shoal.init(num_cpus=2):
    ...     ds = batch.from_numpy(np.ones((1000, 4))).map_batches(Model, fn_constructor_args=(1,), concurrency=2)
    ...     ds.take(2)
    [{'y': 5.0}, {'y': 5.0}]
    """

    def __init__(self, plan: Plan, options: RunOptions = RunOptions()) -> None:  # noqa: B008 (frozen)
        super().__init__(plan, dataclasses.replace(options, watch=None))
        self._last_run: Run | None = None

    # -- changing ----------------------------------------------------------------------------------------------

    def map_batches(
        self,
        function: Any,
        *,
        batch_size: int | None = None,
        batch_format: str = "numpy",
        concurrency: int | tuple[int, int] | None = None,
        fn_args: Sequence[Any] = (),
        fn_kwargs: Mapping[str, Any] | None = None,
        fn_constructor_args: Sequence[Any] = (),
        fn_constructor_kwargs: Mapping[str, Any] | None = None,
        **options: Any,
    ) -> Dataset:
        """Call a function, or an instance of a class, with batches of rows.

        Parameters
        ----------
        function
            - A function: runs in tasks, together with the reading and the functions before it.
            - A class: each replica of a pool makes one instance, which is called with batches. The place for a model.

            Called with a batch; returns a batch with any number of rows, or yields several.
        batch_size
            Rows of a batch, the last one of a block may have fewer; None for a block's rows, as many as they are.
        batch_format
            ``"numpy"``, ``"pandas"``, ``"arrow"`` or ``"torch"``: what the function is given. It may return any.
        concurrency
            For a class: the number of replicas, or the smallest and largest; as many as there are CPUs by default.
            For a function: tasks at once.
        fn_args, fn_kwargs
            Further arguments of each call.
        fn_constructor_args, fn_constructor_kwargs
            Arguments of the class; refs among them arrive as their values.
        **options
            Of the tasks or actors: ``num_cpus``, ``num_gpus``, ``memory``, ``resources``, …. Replicas reserve nothing
            unless told; they have one thread for torch, or as many as ``num_cpus``.

        Raises
        ------
        OptionError
            An option that there is not, or a value out of range.
        """
        if not callable(function):
            raise TypeError(f"`map_batches` takes a function or a class, not {type(function).__name__}.")
        is_pool = inspect.isclass(function)
        if not is_pool and (fn_constructor_args or fn_constructor_kwargs):
            raise OptionError(
                f"`{getattr(function, '__name__', function)!s}` is no class: it has no constructor to take arguments.",
                option="fn_constructor_args",
            )
        transform = MapBatches(
            function,
            None if batch_size is None else check_whole("batch_size", batch_size, 1),
            check_format(batch_format),
            tuple(fn_args),
            tuple((fn_kwargs or {}).items()),
            tuple(fn_constructor_args),
            tuple((fn_constructor_kwargs or {}).items()),
        )
        return self._then(transform, make_compute(options, concurrency, is_pool))

    def map(self, function: Callable[[Row], Row], **options: Any) -> Dataset:
        """Call a function with each row; it returns a row. ``**options`` as for :meth:`map_batches`."""
        return self._then(MapRows(check_function("map", function)), _task_compute(options))

    def flat_map(self, function: Callable[[Row], Sequence[Row]], **options: Any) -> Dataset:
        """Call a function with each row; it returns, or yields, any number of rows."""
        return self._then(FlatMap(check_function("flat_map", function)), _task_compute(options))

    def filter(self, function: Callable[[Row], bool], **options: Any) -> Dataset:
        """Keep the rows for which a function is true."""
        return self._then(Filter(check_function("filter", function)), _task_compute(options))

    def add_column(self, name: str, function: Callable[[dict[str, Any]], Any], **options: Any) -> Dataset:
        """Add a column, or replace it: a function makes it of each batch, one value for each row."""
        return self._then(AddColumn(name, check_function("add_column", function)), _task_compute(options))

    def select(self, columns: str | Sequence[str]) -> Dataset:
        """Keep these columns, in this order. Where the source can, it reads no others."""
        return self._then(Columns("select", check_names(columns)))

    def drop(self, columns: str | Sequence[str]) -> Dataset:
        """Keep all but these columns."""
        return self._then(Columns("drop", check_names(columns)))

    def rename(self, columns: Mapping[str, str]) -> Dataset:
        """Give columns other names; a mapping of old to new."""
        return self._then(Columns("rename", tuple(columns), tuple(columns.values())))

    def limit(self, num_rows: int) -> Dataset:
        """Keep the first rows; the rest is not read."""
        return self._with(self._plan.then(Step(limit=check_whole("num_rows", num_rows, 0))))

    def with_options(self, *, memory_budget: int | None = None, preserve_order: bool | None = None) -> Dataset:
        """Say how the plan is to run.

        Parameters
        ----------
        memory_budget
            Bytes of blocks that may be held at once: waiting, worked on, made and not taken. 512 MiB by default. One
            block of each stage is worked on whatever its size.
        preserve_order
            False gives blocks as they are ready; True, as by default, in the order of the source.
        """
        options = RunOptions(
            self._options.memory_budget if memory_budget is None else check_whole("memory_budget", memory_budget, 1),
            self._options.preserve_order if preserve_order is None else preserve_order,
        )
        return Dataset(self._plan, options)

    # -- asking for results ------------------------------------------------------------------------------------

    def iter_batches(
        self, *, batch_size: int | None = 256, batch_format: str = "numpy", drop_last: bool = False
    ) -> Iterator[Any]:
        """Run the plan and give its rows in batches.

        Parameters
        ----------
        batch_size
            Rows of a batch, the last one may have fewer; None for the blocks as they are.
        batch_format
            As for :meth:`map_batches`.
        drop_last
            Leave out a last batch that is smaller.
        """
        size = None if batch_size is None else check_whole("batch_size", batch_size, 1)
        return consuming.iterate_batches(self._plan, self._watched, size, check_format(batch_format), drop_last)

    def iter_torch_batches(
        self, *, batch_size: int | None = 256, drop_last: bool = False, device: str | None = None
    ) -> Iterator[dict[str, Any]]:
        """Run the plan and give its rows as dicts of tensors, on *device* if one is named; see :meth:`iter_batches`.

        A column that torch has no type for stays a numpy array.
        """
        for rows in self.iter_batches(batch_size=batch_size, batch_format="torch", drop_last=drop_last):
            if device is None:
                yield rows
            else:
                yield {name: value.to(device) if hasattr(value, "to") else value for name, value in rows.items()}

    def iter_rows(self) -> Iterator[Row]:
        """Run the plan and give its rows."""
        return self._rows(self._plan)

    def take(self, num_rows: int = 20) -> list[Row]:
        """Return the first rows; the plan runs as far as it must."""
        return [_plain(row) for row in self._rows(self.limit(num_rows)._plan)]

    def take_all(self) -> list[Row]:
        """Return all rows."""
        return [_plain(row) for row in self.iter_rows()]

    def show(self, num_rows: int = 20) -> None:
        """Print the first rows."""
        for row in self.take(num_rows):
            print(row)

    def count(self) -> int:
        """Return the number of rows; the plan runs, unless the source knows and no step changes it."""
        known = self._plan.source.num_rows()
        if known is not None and all(step.limit is not None or _keeps_rows(step) for step in self._plan.steps):
            return min([known, *(step.limit for step in self._plan.steps if step.limit is not None)])
        return sum(handle.num_rows for handle in consuming.iterate_handles(self._plan, self._watched))

    def schema(self) -> dict[str, str]:
        """Return the type of each column, as the first rows have it; ``float32[8, 8]`` is an array in each row."""
        block = concat(list(consuming.iterate_blocks(self.limit(1)._plan, self._watched)))
        return {
            name: kind + (f"[{', '.join(map(str, shape))}]" if shape else "")
            for name, (kind, shape) in schema_of(block).items()
        }

    def materialize(self) -> Dataset:
        """Run the plan and keep its blocks in the cluster's object stores; return a dataset of them."""
        handles = list(consuming.iterate_handles(self._plan, self._watched))
        return Dataset(Plan(RefsSource("materialized", handles)), self._options)

    def to_pandas(self) -> Any:
        """Return all rows as one DataFrame."""
        return to_pandas_batch(self._all())

    def to_numpy(self) -> dict[str, Any]:
        """Return all rows as a dict of arrays."""
        return to_numpy_batch(self._all())

    def explain(self) -> PlanExplanation:
        """Say what the plan will do: its stages, where each runs, and what is done in one process. Runs nothing."""
        return PlanExplanation(self._plan)

    def stats(self) -> RunStats:
        """Say what the last run has done, or is doing: for each stage blocks, rows, rows a second, bytes, what waits;
        and the most memory held."""
        return RunStats(self._last_run)

    # -- inside ------------------------------------------------------------------------------------------------

    def _all(self) -> Block:
        return concat(list(consuming.iterate_blocks(self._plan, self._watched)))

    def _rows(self, plan: Plan) -> Iterator[Row]:
        for block in consuming.iterate_blocks(plan, self._watched):
            yield from iterate_rows(block)

    @property
    def _watched(self) -> RunOptions:
        return dataclasses.replace(self._options, watch=self._remember)

    def _remember(self, run: Run) -> None:
        self._last_run = run

    def _then(self, transform: Transform, compute: Compute = Compute()) -> Dataset:  # noqa: B008 (frozen)
        return self._with(self._plan.then(Step(transform, compute)))

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self._plan, self._options)

    def __repr__(self) -> str:
        return f"<dataset {' → '.join([self._plan.source.name, *(step.name for step in self._plan.steps)])}>"


def make_compute(options: Mapping[str, Any], concurrency: int | tuple[int, int] | None, is_pool: bool) -> Compute:
    """Check the options of a step and say where it runs."""
    kind = ActorOptions if is_pool else TaskOptions
    with_changes(kind(), options)
    return Compute(tuple(options.items()), check_concurrency(concurrency), is_pool)


def _task_compute(options: dict[str, Any]) -> Compute:
    concurrency = options.pop("concurrency", None)
    return make_compute(options, concurrency, is_pool=False)


def _keeps_rows(step: Step) -> bool:
    return step.transform is not None and step.transform.keeps_rows


def _plain(row: Row) -> Row:
    """Return a row with Python's own numbers, as people read them."""
    return {name: value.item() if getattr(value, "shape", None) == () else value for name, value in row.items()}


__all__ = ["Dataset"]
