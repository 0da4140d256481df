"""``BatchPredictor``: a model, put once into the cluster, and replicas that predict with it."""

from __future__ import annotations

import dataclasses
import threading
import uuid
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import shoal
from shoal.errors import OptionError
from shoal.model.options import ActorOptions, is_number, with_changes
from shoal_ml.batch import consuming, resuming
from shoal_ml.batch.blocks import Block
from shoal_ml.batch.checking import check_concurrency, check_whole
from shoal_ml.batch.data import as_dataset
from shoal_ml.batch.dataset import Dataset
from shoal_ml.batch.dead_letters import DeadLetters, ErrorPolicy
from shoal_ml.batch.fingerprints import fingerprint_of
from shoal_ml.batch.kept_letters import keep_letters, read_letters
from shoal_ml.batch.plan import Compute, Plan, Step
from shoal_ml.batch.predicting import Model, Predict
from shoal_ml.batch.predictions import Predictions
from shoal_ml.batch.predictors.checkpoints import Checkpoint
from shoal_ml.batch.predictors.choosing import choose_predictor
from shoal_ml.batch.predictors.contract import Batch, Predictor
from shoal_ml.batch.replicas import Replicas
from shoal_ml.batch.sources.memory import ColumnsSource, RefsSource

#: Seconds for which replicas stay ready after their last run; and if they reserve what others may wait for.
IDLE_SECONDS, RESERVED_IDLE_SECONDS = 300.0, 10.0
#: Options of replicas that take something away from others.
_RESERVES = ("num_cpus", "num_gpus", "memory", "resources")


@dataclasses.dataclass(frozen=True, slots=True)
class Wanted:
    """One call of ``predict``: its options, checked."""

    batch_size: int | str
    feature_columns: tuple[str, ...] | None
    keep_columns: tuple[str, ...]
    concurrency: tuple[int, int] | None
    policy: ErrorPolicy
    #: Options of the replicas.
    options: tuple[tuple[str, Any], ...]


class BatchPredictor:
    """Predicts with one model on any amount of data, in parallel.

    The model is put into the cluster's shared memory once. Replicas, processes of their own, map it from there: ten
    replicas on a node need its memory once. They stay for the next ``predict`` until :meth:`close`, the end of a
    ``with`` block, *idle_seconds*, or the end of this process.

    Parameters
    ----------
    model
        A torch module, a scikit-learn estimator, the path or bytes of an ONNX file, a ``transformers`` pipeline, a
        callable, a :class:`~shoal_ml.batch.Checkpoint`; with a *predictor* that knows it, anything. Or a ref of one.
    predictor
        How it predicts: a :class:`~shoal_ml.batch.Predictor` such as ``TorchPredictor(outputs="logits")``, or a
        function of model and batch that returns a dict of columns. By default what the model is decides.
    idle_seconds
        How long replicas wait for another ``predict``; 5 minutes by default, or 10 seconds if they reserve CPUs, GPUs
        or the like, which others may wait for. ``math.inf`` for ever.

    Raises
    ------
    OptionError
        Nothing says how the model predicts.
    SerializationError
        The model cannot travel.

    Examples
    --------
    >>> import numpy as np, shoal, torch
    >>> import shoal_ml.batch as batch
    >>> with shoal.init(num_cpus=1), batch.BatchPredictor(torch.nn.Linear(4, 2)) as predictor:
    ...     predictor.predict(np.zeros((1000, 4), np.float32), batch_size=100).to_numpy()["predictions"].shape
    (1000, 2)
    """

    def __init__(
        self,
        model: Any,
        predictor: Predictor | type[Predictor] | Callable[[Any, Batch], Any] | None = None,
        *,
        idle_seconds: float | None = None,
    ) -> None:
        if idle_seconds is not None and not (is_number(idle_seconds) and idle_seconds >= 0):
            raise OptionError(
                f"`idle_seconds` must be a number from 0 up, or None, not {idle_seconds!r}.", option="idle_seconds"
            )
        is_ref = isinstance(model, shoal.ObjectRef)
        chosen = predictor if is_ref and predictor is None else choose_predictor(model, predictor)
        self._value = model
        self._print: str | None = None
        self._model = Model(uuid.uuid4().hex, model if is_ref else shoal.put(model), chosen)
        self._idle_seconds = idle_seconds
        self._pools: dict[tuple[tuple[str, Any], ...], Replicas] = {}
        self._timer: threading.Timer | None = None
        self._closed = False

    @classmethod
    def from_checkpoint(
        cls,
        path: str | Path,
        factory: Callable[..., Any] | None = None,
        *arguments: Any,
        predictor: Predictor | type[Predictor] | Callable[[Any, Batch], Any] | None = None,
        trust: bool = False,
        idle_seconds: float | None = None,
    ) -> BatchPredictor:
        """Predict with a model from a file; see :meth:`Checkpoint.from_file <shoal_ml.batch.Checkpoint.from_file>`."""
        checkpoint = Checkpoint.from_file(path, factory, *arguments, trust=trust)
        return cls(checkpoint, predictor, idle_seconds=idle_seconds)

    def predict(
        self,
        data: Any,
        *,
        batch_size: int | str = "auto",
        feature_columns: str | Sequence[str] | None = None,
        keep_columns: str | Sequence[str] = (),
        concurrency: int | tuple[int, int] | None = None,
        on_error: str = "raise",
        max_errors: float | None = None,
        resume: str | Path | None = None,
        if_changed: str = "refuse",
        **options: Any,
    ) -> Predictions:
        """Predict on *data* and return the predictions, in the order of its rows.

        They stay in the object stores of the cluster, or with *resume* on disk, until they are asked for.

        Parameters
        ----------
        data
            A :class:`~shoal_ml.batch.Dataset`, an array or tensor (its first axis is the rows), a dict of arrays, a
            DataFrame, a ``pyarrow.Table``, a list or iterable of rows, a torch or Hugging Face dataset, a Dask
            collection, or the name of files (``"scans/*.parquet"``).
        batch_size
            Rows that the model is given at once. ``"auto"`` doubles them while rows per second rise. Where memory does
            not suffice, a replica halves them, for good, and says so.
        feature_columns
            The columns that the model gets, in this order; all by default.
        keep_columns
            Columns of *data* to have beside the predictions.
        concurrency
            The number of replicas, or the smallest and the largest; as many as the cluster has CPUs by default.
        on_error
            What is done when the model raises. ``"raise"``: the error ends the run. ``"skip"`` and ``"dead_letter"``
            find the rows at fault, by dividing the batch, and leave them out; the latter keeps their inputs.
        max_errors
            The run ends when more rows fail: a number of rows, or a share of them below 1; None for no limit.
        resume
            A directory. Predictions are written there, as parquet files, with a journal of what is done. The same call
            goes on where an earlier one ended, however it ended, and does what is missing.
        if_changed
            When *resume* finds that model, options or data are others: ``"refuse"``, ``"restart"``, or ``"go_on"`` and
            keep what is done.
        **options
            Of the replicas: ``num_cpus`` (threads of torch as well), ``num_gpus``, ``memory``, ``resources``, ….

        Raises
        ------
        Exception
            What the model raised, if *on_error* is ``"raise"``.
        TooManyErrors
            More rows failed than *max_errors* allows.
        ColumnError
            There is no such column.
        RowCountError
            The predictor returned more or fewer predictions than it was given rows.
        InfeasibleError
            The cluster cannot hold a single replica.
        PlanChangedError, JournalError
            The directory of *resume* belongs to something else.
        """
        wanted = _check(batch_size, feature_columns, keep_columns, concurrency, on_error, max_errors, options)
        return self._predict(as_dataset(data), wanted, 1, resume, if_changed)

    def predict_pipelined(
        self,
        data: Any,
        *,
        batch_size: int | str = "auto",
        feature_columns: str | Sequence[str] | None = None,
        keep_columns: str | Sequence[str] = (),
        concurrency: int | tuple[int, int] | None = None,
        on_error: str = "raise",
        max_errors: float | None = None,
        **options: Any,
    ) -> Predictions:
        """Return a dataset that predicts while its rows are taken, in bounded memory; nothing has run yet.

        Iterate over it (``iter_batches``, ``iter_rows``), write it to files, or go on with ``map_batches`` and the
        like. Reading, preprocessing, predicting and what follows work at the same time. Parameters and errors as for
        :meth:`predict`.
        """
        wanted = _check(batch_size, feature_columns, keep_columns, concurrency, on_error, max_errors, options)
        return self._pipeline(as_dataset(data), wanted, 1)

    def close(self) -> None:
        """End the replicas. Harmless if repeated; datasets of ``predict`` stay."""
        self._closed = True
        self._cancel_timer()
        self._end_replicas()

    def __enter__(self) -> BatchPredictor:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"<batch predictor of {type(self._value).__name__}, {self.num_idle} replicas ready>"

    @property
    def num_idle(self) -> int:
        """Replicas that are ready for another ``predict``."""
        return sum(pool.num_idle for pool in self._pools.values())

    # -- inside ------------------------------------------------------------------------------------------------

    def _predict(
        self, data: Dataset, wanted: Wanted, attempt: int, resume: str | Path | None = None, if_changed: str = "refuse"
    ) -> Predictions:
        lazy = self._pipeline(data, wanted, attempt, gathers=resume is None)
        letters = lazy._letters
        try:
            if resume is None:
                handles = list(consuming.iterate_handles(lazy._plan, lazy._options))
                plan = Plan(RefsSource("predictions", handles))
            else:
                plan, done = resuming.run_into(
                    lazy._plan,
                    lazy._options,
                    resume,
                    describes=self._describe(data, wanted),
                    keep_remarks=keep_letters,
                    if_changed=if_changed,
                )
                letters = DeadLetters(wanted.policy, attempt)
                letters.add(read_letters(Path(resume), done), sum(entry.num_rows for entry in done))
        finally:
            self._start_timer()
        letters.end()
        return Predictions(plan, lazy._options, letters, lazy._retry)

    def _pipeline(self, data: Dataset, wanted: Wanted, attempt: int, *, gathers: bool = True) -> Predictions:
        if self._closed:
            raise RuntimeError("This `BatchPredictor` is closed: make another.")
        self._cancel_timer()
        letters = DeadLetters(wanted.policy, attempt)
        step = Predict(
            self._model,
            wanted.batch_size,
            wanted.feature_columns,
            wanted.keep_columns,
            wanted.policy.on_error,
            wanted.policy.max_in_a_block,
            gathers,
        )
        compute = Compute(
            wanted.options, wanted.concurrency, is_pool=True, replicas=self._pool(wanted), listen=letters.listen
        )

        def retry(inputs: Block, attempt: int, changes: dict[str, Any]) -> Predictions:
            using = changes.pop("using", self)
            again = dataclasses.replace(wanted, **_changed(wanted, changes))
            rows = Dataset(Plan(ColumnsSource("failed rows", inputs)))
            return using._predict(rows, again, attempt)  # type: ignore[no-any-return]

        return Predictions(data._plan.then(Step(step, compute)), data._options, letters, retry)

    def _pool(self, wanted: Wanted) -> Replicas:
        """Return the replicas with these options, those that are ready among them; end those with others.

        They may reserve what these wait for.
        """
        if wanted.options not in self._pools:
            self._end_replicas()
            self._pools[wanted.options] = Replicas(dict(wanted.options), name=self._name, keep=True)
        return self._pools[wanted.options]

    @property
    def _name(self) -> str:
        return f"predict({type(self._value).__name__})"

    def _describe(self, data: Dataset, wanted: Wanted) -> dict[str, Any]:
        if self._print is None:
            value = shoal.get(self._value) if isinstance(self._value, shoal.ObjectRef) else self._value
            self._print = fingerprint_of(value)
        return {
            "model": self._print,
            "predictor": fingerprint_of(self._model.predictor),
            "feature_columns": _listed(wanted.feature_columns),
            "keep_columns": _listed(wanted.keep_columns),
            "on_error": wanted.policy.on_error,
            "source": data._plan.source.name,
            **resuming.describe_steps(data._plan),
        }

    def _start_timer(self) -> None:
        self._cancel_timer()
        reserves = any(amount for options in self._pools for name, amount in options if name in _RESERVES)
        seconds = RESERVED_IDLE_SECONDS if reserves else IDLE_SECONDS
        seconds = seconds if self._idle_seconds is None else self._idle_seconds
        if not self._closed:
            self._timer = threading.Timer(min(seconds, threading.TIMEOUT_MAX), self._end_replicas)
            self._timer.daemon = True
            self._timer.start()

    def _cancel_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _end_replicas(self) -> None:
        pools, self._pools = self._pools, {}
        for pool in pools.values():
            pool.close()


def _check(
    batch_size: int | str,
    feature_columns: str | Sequence[str] | None,
    keep_columns: str | Sequence[str],
    concurrency: int | tuple[int, int] | None,
    on_error: str,
    max_errors: float | None,
    options: Mapping[str, Any],
) -> Wanted:
    """Check the options of a call."""
    with_changes(ActorOptions(), options)
    if isinstance(batch_size, str) and batch_size != "auto":
        raise OptionError(f'`batch_size` is a number of rows or "auto", not {batch_size!r}.', option="batch_size")
    return Wanted(
        batch_size if batch_size == "auto" else check_whole("batch_size", batch_size, 1),
        None if feature_columns is None else _names(feature_columns),
        _names(keep_columns),
        check_concurrency(concurrency),
        ErrorPolicy(on_error, max_errors),
        tuple(options.items()),
    )


def _changed(wanted: Wanted, changes: Mapping[str, Any]) -> dict[str, Any]:
    """Return the fields of *wanted* as they are with some options changed."""
    options = dict(wanted.options)
    own = {
        "batch_size": wanted.batch_size,
        "feature_columns": wanted.feature_columns,
        "keep_columns": wanted.keep_columns,
        "concurrency": wanted.concurrency,
        "on_error": wanted.policy.on_error,
        "max_errors": wanted.policy.max_errors,
    }
    for name, value in changes.items():
        (own if name in own else options)[name] = value
    again = _check(**own, options=options)  # type: ignore[arg-type]
    return {field.name: getattr(again, field.name) for field in dataclasses.fields(Wanted)}


def _names(columns: str | Sequence[str]) -> tuple[str, ...]:
    return (columns,) if isinstance(columns, str) else tuple(columns)


def _listed(names: tuple[str, ...] | None) -> str:
    return "all" if names is None else ", ".join(names)


__all__ = ["BatchPredictor"]
