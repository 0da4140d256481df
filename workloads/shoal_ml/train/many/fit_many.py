"""``fit_many``: a model for each key, each set of parameters, each trainer; as many at once as there is room for."""

from __future__ import annotations

import contextlib
import hashlib
import itertools
import json
import math
import sys
import tempfile
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import shoal
from shoal.errors import ExecutorCrashedError, OptionError
from shoal_ml.train.many import catalog as catalogs
from shoal_ml.train.many.catalog import Catalog, FitRow
from shoal_ml.train.many.errors import CatalogError, FitError
from shoal_ml.train.many.fitted import FittedModels
from shoal_ml.train.many.fitting import FitChunk, FitOrder, Outcome
from shoal_ml.train.many.grouping import Group, Grouped, make_groups
from shoal_ml.train.many.keys import encode
from shoal_ml.train.many.queueing import Chunk, FitQueue, Place
from shoal_ml.train.many.trainers import EstimatorTrainer, FunctionTrainer

Params = Mapping[str, Iterable[Any]] | Sequence[Mapping[str, Any]]


class _Fit(NamedTuple):
    """One fit to be made."""

    fit_id: str
    group: Group
    key: str
    trainer: str
    params: dict[str, Any]


def fit_many(
    train: Any,
    groups: Any,
    *,
    by: str | Sequence[str] | None = None,
    params: Params | None = None,
    data: Any = None,
    target: str | None = None,
    features: Sequence[str] | None = None,
    cv: int | None = None,
    scoring: str | None = None,
    metric: str | None = None,
    mode: str = "max",
    num_cpus: float = 1,
    num_gpus: float = 0,
    memory: int = 0,
    store: str | None = None,
    resume: bool = True,
    retries: int = 0,
    max_failures: int | float | None = None,
) -> FittedModels:
    """Fit a model for each group, with each set of parameters, in parallel; keep them in a catalog.

    Blocks until all is done. Fits that take milliseconds travel in chunks of about 50 ms, timed as they go; long ones
    run one to a process. What one fit raises, or that it ends its process, costs that fit only: see
    :attr:`FittedModels.failed`. When it is stopped, or the driver dies, the same call goes on where it was.

    Parameters
    ----------
    train
        A function ``train(rows, **params)`` that returns a model, or ``(model, metrics)`` with metrics a mapping of
        names to numbers. If it has parameters ``key`` and ``data`` it gets the group's key and the shared *data*. Where
        *groups* are keys only, it is called with the key instead of rows. Or a scikit-learn estimator (or XGBoost's,
        LightGBM's: anything with that interface), of which a clone is fitted to *target*. Or a mapping of names to
        such functions and estimators: all of them are fitted.
    groups
        A pandas or Dask data frame together with *by*; a mapping of keys to whatever the function takes; or keys.
    by
        Column or columns of the data frame that make the key.
    params
        Sets of parameters: a mapping of names to values, of which all combinations are tried, or a list of mappings.
        Where *train* is a mapping, a mapping of its names to such sets is for each its own.
    data
        What all fits read: it is put into the object store once and mapped by every process of a node.
    target, features, cv, scoring
        For estimators: the column to predict; those to predict from (by default all others but the key); folds of a
        cross-validation whose mean becomes the metric ``score``, and by which of scikit-learn's scorers.
    metric, mode
        What makes one model of a key better than another: a metric's name, and ``"max"`` or ``"min"``.
    num_cpus, num_gpus, memory
        What one fit needs, memory in bytes; a share of a GPU such as 0.1 packs ten onto one.
    store
        Directory of the catalog: made if it does not exist. Without one the models live as long as what is returned.
    resume
        Skip what *store* has already, made by the same code from the same data. With False, *store* must be new.
    retries
        How often a fit that has raised is tried again.
    max_failures
        Stop when more fits have failed than this: a number, or a share of all such as 0.1. By default, never.

    Returns
    -------
    FittedModels

    Raises
    ------
    OptionError
        An argument that makes no sense, before anything is sent: a column that does not exist, a key that is null or
        comes twice, a parameter that *train* does not take.
    FitError
        Every fit has failed, or more than *max_failures*.
    CatalogError
        *store* holds something else, or is being written by another run.

    Examples
    --------
    >>> import shoal
    >>> from shoal_ml.train import fit_many
    >>> with shoal.init(num_cpus=1):
    ...     models = fit_many(lambda rows, power: sum(rows) ** power, {"a": [1, 2], "b": [3]}, params={"power": [2]})
    ...     models["a"], models["b"]
    (9, 9)
    """
    _check_options(mode, retries, max_failures, cv)
    grouped = make_groups(groups, by)
    trainers = _trainers(train, grouped, list(getattr(groups, "columns", ())), target, features, cv, scoring)
    sets = _sets_by_trainer(params, trainers)
    for name, trainer in trainers.items():
        for one in sets[name]:
            trainer.check(one, has_data=data is not None)
    with contextlib.ExitStack() as stack:
        catalog = Catalog(tempfile.mkdtemp(prefix="shoal-models-") if store is None else store, create=True)
        models = FittedModels(catalog, is_temporary=store is None)
        stack.enter_context(catalog.writing())
        if not resume and catalog.count():
            raise CatalogError(
                f"`{catalog.directory}` holds {catalog.count():,} fits already. Take another directory, or go on with "
                "it by `resume=True`."
            )
        _note_about(catalog, grouped, metric, mode)
        models.by, models.metric, models.mode = grouped.by, metric, mode
        every = list(_fits(grouped, sets))
        fits = _missing(every, trainers, catalog)
        run = _Run(
            fits, grouped, trainers, catalog, data, {"num_cpus": num_cpus, "num_gpus": num_gpus, "memory": memory}
        )
        run.work(retries, _allowed(max_failures, len(every)))
        if fits and not catalog.count(catalogs.DONE):
            raise run.failed(f"None of {len(fits):,} fits has worked")
        return models


class _Run:
    """The fits of one call under way."""

    def __init__(
        self, fits: list[_Fit], grouped: Grouped, trainers: Mapping[str, Any], catalog: Catalog, data: Any,
        options: dict[str, Any],
    ) -> None:  # fmt: skip
        self._fits = fits
        self._grouped = grouped
        self._trainers = trainers
        self._catalog = catalog
        self._data = None if data is None else shoal.put(data)
        self._tasks = {
            # a chunk whose process ends is not tried again as it is: see FitQueue.crashed
            name: shoal.remote(FitChunk(trainer)).options(name=f"fit {name}", max_retries=0, **options)
            for name, trainer in trainers.items()
        }
        self._num_failed = 0
        self._first = ""

    def work(self, retries: int, max_failures: float) -> None:
        """Fit all of them."""
        places = [Place(fit.trainer, fit.group.block) for fit in self._fits]
        queue = FitQueue(places, retries=retries)
        under_way: dict[shoal.ObjectRef, Chunk] = {}
        try:
            while not queue.is_over:
                while (chunk := queue.next_chunk()) is not None:
                    under_way[self._send(chunk)] = chunk
                for ref in shoal.wait(list(under_way))[0]:
                    self._receive(ref, under_way.pop(ref), queue)
                if self._num_failed > max_failures:
                    raise self.failed(f"{self._num_failed:,} fits have failed, of which {max_failures:g} were allowed")
        finally:
            for ref in under_way:
                shoal.cancel(ref)

    def failed(self, what: str) -> FitError:
        """Return the error that ends the call."""
        return FitError(
            f"{what}. The first: {self._first}", num_failed=self._num_failed, store=str(self._catalog.directory)
        )

    def _send(self, chunk: Chunk) -> shoal.ObjectRef:
        orders = []
        for number in chunk.fits:
            fit = self._fits[number]
            orders.append(FitOrder(number, fit.group.key, fit.group.start, fit.group.stop, fit.params))
        block = None if chunk.place.block < 0 else self._grouped.blocks[chunk.place.block]
        ref: shoal.ObjectRef = self._tasks[chunk.place.trainer].remote(block, self._data, orders)
        return ref

    def _receive(self, ref: shoal.ObjectRef, chunk: Chunk, queue: FitQueue) -> None:
        try:
            outcomes: list[Outcome] = shoal.get(ref)
        except ExecutorCrashedError as error:
            dead = [Outcome(number, 0.0, None, {}, _one_line(error), str(error)) for number in queue.crashed(chunk)]
            self._keep(dead, queue)
            return
        failed = [outcome.number for outcome in outcomes if outcome.pickled is None]
        for_good = set(queue.ended(chunk, sum(outcome.seconds for outcome in outcomes), failed))
        self._keep([one for one in outcomes if one.pickled is not None or one.number in for_good], queue)

    def _keep(self, outcomes: Sequence[Outcome], queue: FitQueue) -> None:
        for outcome in outcomes:
            if outcome.pickled is None:
                self._note_failure(outcome)
        if outcomes:
            self._catalog.add((self._row(outcome, queue), outcome.pickled) for outcome in outcomes)

    def _note_failure(self, outcome: Outcome) -> None:
        self._num_failed += 1
        if self._num_failed == 1:
            self._first = f"{self._fits[outcome.number].group.key!r}: {outcome.error}"
            print(f"fit_many: a fit has failed and the others go on: {self._first}", file=sys.stderr)

    def _row(self, outcome: Outcome, queue: FitQueue) -> FitRow:
        fit = self._fits[outcome.number]
        return FitRow(
            fit_id=fit.fit_id,
            key=fit.key,
            trainer=fit.trainer,
            params=fit.params,
            state=catalogs.FAILED if outcome.pickled is None else catalogs.DONE,
            metrics=outcome.metrics,
            seconds=outcome.seconds,
            nbytes=len(outcome.pickled or b""),
            code_hash=self._trainers[fit.trainer].code_hash,
            data_hash=fit.group.data_hash,
            attempts=queue.attempts(outcome.number) + (outcome.pickled is not None),
            error=outcome.error,
            traceback=outcome.traceback,
            ended=time.time(),
        )


def _fits(grouped: Grouped, sets: Mapping[str, Sequence[dict[str, Any]]]) -> Iterator[_Fit]:
    """Give all fits, those of one trainer and block one after the other; *sets* are the parameters by trainer."""
    keys = [encode(group.key) for group in grouped.groups]
    for name, own in sets.items():
        described = [json.dumps(one, sort_keys=True) for one in own]
        for group, key in zip(grouped.groups, keys, strict=True):
            for one, text in zip(own, described, strict=True):
                digest = hashlib.blake2b(f"{key}\0{name}\0{text}".encode(), digest_size=10)
                yield _Fit(digest.hexdigest(), group, key, name, one)


def _missing(fits: Sequence[_Fit], trainers: Mapping[str, Any], catalog: Catalog) -> list[_Fit]:
    """Return the fits that the catalog does not have, made by this code from these data; says how many it has."""
    known = catalog.hashes()
    missing = [fit for fit in fits if known.get(fit.fit_id) != (trainers[fit.trainer].code_hash, fit.group.data_hash)]
    num_changed = sum(fit.fit_id in known for fit in missing)
    if len(missing) < len(fits) or num_changed:
        changed = f", {num_changed:,} of them because code or data have changed" if num_changed else ""
        done = len(fits) - len(missing)
        print(f"fit_many: {done:,} of {len(fits):,} done in {catalog.directory}; {len(missing):,} to go{changed}")
    return missing


def _trainers(
    train: Any, grouped: Grouped, columns: list[str], target: str | None, features: Sequence[str] | None,
    cv: int | None, scoring: str | None,
) -> dict[str, FunctionTrainer | EstimatorTrainer]:  # fmt: skip
    named = train if isinstance(train, Mapping) else {_name_of(train): train}
    if not named:
        raise OptionError("`train` is empty: name at least one function or estimator.", option="train")
    made: dict[str, FunctionTrainer | EstimatorTrainer] = {}
    for name, one in named.items():
        if hasattr(one, "fit") and hasattr(one, "get_params") and not isinstance(one, type):
            if not grouped.by:
                raise OptionError("An estimator is fitted to a data frame, with `by`.", option="groups")
            estimator = EstimatorTrainer(one, target=target, features=features, by=grouped.by, cv=cv, scoring=scoring)
            estimator.check_columns(columns)
            made[str(name)] = estimator
        elif callable(one):
            made[str(name)] = FunctionTrainer(one, has_rows=grouped.has_rows)
        else:
            raise TypeError(f"`train` is a function, an estimator or a mapping of names to these, not {one!r}.")
    return made


def _name_of(train: Any) -> str:
    name = getattr(train, "__name__", type(train).__name__)
    return "train" if name == "<lambda>" else str(name)


def _sets_by_trainer(params: Any, trainers: Mapping[str, Any]) -> dict[str, list[dict[str, Any]]]:
    if isinstance(params, Mapping) and len(trainers) > 1 and set(params) <= set(trainers):
        return {name: _parameter_sets(params.get(name)) for name in trainers}
    shared = _parameter_sets(params)
    return dict.fromkeys(trainers, shared)


def _parameter_sets(params: Params | None) -> list[dict[str, Any]]:
    if params is None:
        return [{}]
    if isinstance(params, Mapping):
        for name, values in params.items():
            if isinstance(values, (str, bytes)) or not isinstance(values, Iterable):
                raise OptionError(f"`params[{name!r}]` is a list of values to try, not {values!r}.", option="params")
        values = [list(one) for one in params.values()]
        sets = [dict(zip(params, chosen, strict=True)) for chosen in itertools.product(*values)]
    else:
        sets = [dict(one) for one in params]
    if not sets:
        raise OptionError("`params` has no set of parameters: leave it out, or give at least one.", option="params")
    try:
        json.dumps(sets, allow_nan=False)
    except (TypeError, ValueError) as error:
        raise OptionError(
            f"`params` are kept in the catalog as JSON (numbers, text, lists, true, false, null): {error}.",
            option="params",
        ) from None
    return sets


def _check_options(mode: str, retries: int, max_failures: float | None, cv: int | None) -> None:
    if mode not in ("max", "min"):
        raise OptionError(f"`mode` is `max` or `min`, not {mode!r}.", option="mode")
    if not isinstance(retries, int) or retries < 0:
        raise OptionError(f"`retries` is a whole number from 0 up, not {retries!r}.", option="retries")
    if cv is not None and (not isinstance(cv, int) or cv < 2):
        raise OptionError(f"`cv` is a number of folds from 2 up, not {cv!r}.", option="cv")
    is_number = isinstance(max_failures, (int, float)) and not isinstance(max_failures, bool)
    if max_failures is not None and (not is_number or max_failures < 0):
        raise OptionError(f"`max_failures` is a number or a share, not {max_failures!r}.", option="max_failures")


def _allowed(max_failures: float | None, num_fits: int) -> float:
    if max_failures is None:
        return math.inf
    return max_failures * num_fits if isinstance(max_failures, float) and max_failures < 1 else max_failures


def _note_about(catalog: Catalog, grouped: Grouped, metric: str | None, mode: str) -> None:
    by = catalog.about("by")
    if by is not None and tuple(by) != grouped.by:
        raise CatalogError(
            f"`{catalog.directory}` holds models by {by or 'their own keys'}, and this call makes some by "
            f"{list(grouped.by) or 'their own keys'}. Take another directory."
        )
    catalog.set_about({"by": list(grouped.by), "metric": metric, "mode": mode})


def _one_line(error: BaseException) -> str:
    return f"{type(error).__name__}: {error}".partition("\n")[0]
