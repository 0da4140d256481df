"""``Tuner``: search for good configurations of anything that reports how it is doing."""

from __future__ import annotations

import dataclasses
import difflib
import functools
import inspect
import math
import random
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import shoal
from shoal.errors import OptionError, ShoalError
from shoal_ml.tune.experiment import Experiment, Limits
from shoal_ml.tune.journal import FILE, VERSION, Journal, JournalError, read_journal
from shoal_ml.tune.result_grid import ResultGrid
from shoal_ml.tune.running import Running
from shoal_ml.tune.schedulers.scheduler import TrialScheduler
from shoal_ml.tune.searchers.basic import RandomSearch
from shoal_ml.tune.searchers.searcher import Objective, Searcher, check_objective
from shoal_ml.tune.space import Space
from shoal_ml.tune.stoppers import make_stopper
from shoal_ml.tune.storing import TrialFiles
from shoal_ml.tune.trainable import Trainable
from shoal_ml.tune.trials import ENDED, ERROR, Trial

#: Where runs are stored unless they are told.
STORAGE = "shoal-runs"


class TuneError(ShoalError, RuntimeError):
    """A run has come to nothing. ``errors`` has the error of each trial."""

    errors: dict[str, str]


@dataclasses.dataclass(frozen=True, slots=True)
class TuneConfig:
    """How to search.

    Attributes
    ----------
    metric, mode
        What is optimised, and whether it is to be ``"max"`` or ``"min"``; lists for several objectives.
    num_samples
        Trials, for each point of the grid if there is one; -1 without end.
    searcher
        Who proposes configurations; at random by default.
    scheduler
        Who stops, pauses and clones trials; by default nobody does.
    max_concurrent
        Trials that run at once; by default as many as the cluster has room for.
    time_budget_s
        Seconds after which the run ends.
    points
        Configurations that are tried first; what they leave out is proposed.
    constraint
        ``constraint(config)`` returns whether a configuration may be tried.
    seed
        Makes proposals and decisions repeatable, as far as trials end in the same order.
    """

    metric: str | Sequence[str] | None = None
    mode: str | Sequence[str] = "max"
    num_samples: int = 1
    searcher: Searcher | None = None
    scheduler: TrialScheduler | None = None
    max_concurrent: int | None = None
    time_budget_s: float | None = None
    points: Sequence[Mapping[str, Any]] = ()
    constraint: Callable[[dict[str, Any]], bool] | None = None
    seed: int | None = None


@dataclasses.dataclass(frozen=True, slots=True)
class RunConfig:
    """How to run.

    Attributes
    ----------
    name
        Of the run, and of its directory in *storage*; made of the trainable's name and the time by default.
    storage
        Directory in which runs are stored.
    stop
        When trials end: thresholds of metrics, a function of trial id and metrics, or stoppers.
    max_failures
        How often a trial that has failed is begun again, from its last checkpoint; -1 without end.
    fail_fast
        The first trial that fails for good ends the run.
    keep_checkpoints
        Checkpoints of each trial that are kept on disk: the newest, and the best of the others.
    """

    name: str | None = None
    storage: str | Path = STORAGE
    stop: Any = None
    max_failures: int = 0
    fail_fast: bool = False
    keep_checkpoints: int = 1


def with_resources(trainable: Any, resources: Mapping[str, float]) -> Any:
    """Return a trainable of which each trial takes these resources: ``num_cpus``, ``num_gpus``, ``memory``, …."""
    return _Prepared.of(trainable, resources=resources)


def with_parameters(trainable: Any, **parameters: Any) -> Any:
    """Return a trainable that gets *parameters* too; they are put into the object store once, for all trials."""
    return _Prepared.of(trainable, parameters=parameters)


class _Prepared:
    """A trainable with resources and parameters."""

    def __init__(self, trainable: Any, resources: Mapping[str, float], parameters: Mapping[str, Any]) -> None:
        self.trainable, self.resources, self.parameters = trainable, dict(resources), dict(parameters)

    @classmethod
    def of(
        cls, trainable: Any, resources: Mapping[str, float] | None = None, parameters: Mapping[str, Any] | None = None
    ) -> _Prepared:
        if not isinstance(trainable, cls):
            trainable = cls(trainable, {}, {})
        return cls(
            trainable.trainable,
            {**trainable.resources, **(resources or {})},
            {**trainable.parameters, **(parameters or {})},
        )


class Tuner:
    """Tries configurations of a trainable, in parallel, and keeps all that comes of it.

    Parameters
    ----------
    trainable
        ``train(config)``, which calls :func:`report` as it goes, yields metrics, or returns them; or a subclass of
        :class:`Trainable`. See :func:`with_resources` and :func:`with_parameters`.
    param_space
        Constants, and domains such as ``tune.loguniform(1e-4, 1e-1)``, in nested dictionaries.
    tune
        How to search.
    run
        How to run.

    Examples
    --------
    >>> import shoal
    >>> from shoal_ml import tune
    >>> def train(config):
    ...     return {"loss": (config["x"] - 2) ** 2}
    >>> with shoal.init(num_cpus=1):
    ...     results = tune.Tuner(
    ...         train,
    ...         {"x": tune.grid_search([0, 1, 2, 3])},
    ...         tune.TuneConfig(metric="loss", mode="min"),
    ...         tune.RunConfig(storage=tmp_path),
    ...     ).fit()
    ...     results.best.config
    {'x': 2}
    """

    def __init__(
        self,
        trainable: Any,
        param_space: Mapping[str, Any] | None = None,
        tune: TuneConfig | None = None,
        run: RunConfig | None = None,
    ) -> None:
        self._prepared = _Prepared.of(trainable)
        _check_trainable(self._prepared.trainable)
        self._tune = tune or TuneConfig()
        self._run = run or RunConfig()
        self._space = Space(param_space or {}, self._tune.constraint)
        self._objective = _make_objective(self._tune)
        _check_limits(self._tune, self._run)
        self._events: list[dict[str, Any]] = []
        self._name = self._run.name or f"{_name_of(self._prepared.trainable)}-{time.strftime('%Y%m%d-%H%M%S')}"
        self._running: Running | None = None
        self._lock = threading.Lock()

    @classmethod
    def restore(
        cls,
        path: str | Path,
        trainable: Any,
        param_space: Mapping[str, Any],
        tune: TuneConfig | None = None,
        run: RunConfig | None = None,
    ) -> Tuner:
        """Go on with a run that has been stopped, has crashed, or whose driver has died.

        What had ended stays as it is, and is learnt from; what had not goes on from its last checkpoint, or begins
        again. Trainable, space and settings are given anew: nothing of them is on disk but what they looked like.

        Raises
        ------
        JournalError
            There is no run in *path*.
        OptionError
            The search space is another one; it says what has changed.
        """
        directory = Path(path).expanduser().absolute()
        events = list(read_journal(directory))
        if not events or events[0]["event"] != "run":
            raise JournalError(f"The journal in `{directory}` has no beginning.")
        made = cls(
            trainable,
            param_space,
            tune,
            dataclasses.replace(run or RunConfig(), name=directory.name, storage=directory.parent),
        )
        changes = list(_differences(events[0]["space"], made._space.describe()))
        if changes:
            raise OptionError(f"The search space has changed: {'; '.join(changes)}.", option="param_space")
        made._events = events
        return made

    @property
    def directory(self) -> Path:
        """Where the run is stored."""
        return Path(self._run.storage).expanduser().absolute() / self._name

    def fit(self) -> ResultGrid:
        """Run all trials; returns when they have ended.

        Raises
        ------
        JournalError
            There is a run of this name already.
        TuneError
            No trial has worked.
        KeyboardInterrupt
            It was stopped; :meth:`restore` goes on with it.
        """
        if not self._events and (self.directory / FILE).exists():
            raise JournalError(
                f"There is a run in `{self.directory}` already. Go on with it by `Tuner.restore`, or take another name."
            )
        if not shoal.is_initialized():
            shoal.init()
        journal = Journal(self.directory)
        try:
            return self._fit(journal)
        finally:
            self._running = None
            journal.close()

    def _fit(self, journal: Journal) -> ResultGrid:
        tune, run, prepared = self._tune, self._run, self._prepared
        seed = tune.seed
        rng = random.Random(seed)
        searcher, scheduler = tune.searcher or RandomSearch(), tune.scheduler or TrialScheduler()
        check_objective(searcher, self._objective)
        searcher.begin(self._space, self._objective, seed)
        scheduler.begin(self._objective, rng)
        resources = {"num_cpus": 1, **prepared.resources}
        limits = Limits(
            num_samples=tune.num_samples,
            max_concurrent=tune.max_concurrent or _room_for(resources),
            max_failures=run.max_failures,
            fail_fast=run.fail_fast,
        )
        experiment = Experiment(
            self._space, self._objective, searcher, scheduler, make_stopper(run.stop), limits, list(tune.points)
        )
        files = TrialFiles(self.directory, run.keep_checkpoints)
        parameters = {name: shoal.put(value) for name, value in prepared.parameters.items()}
        running = Running(experiment, journal, files, prepared.trainable, parameters, resources, _Watch())
        if self._events:
            _replay(self._events, experiment, running, files, self._space)
        else:
            described = {"metrics": self._objective.metrics, "modes": self._objective.modes}
            journal.write("run", version=VERSION, name=self._name, space=self._space.describe(), **described)
        self._running = running
        began = time.monotonic()
        budget = tune.time_budget_s
        running.run(lambda: None if budget is None else budget - (time.monotonic() - began))
        results = ResultGrid(self.directory, list(experiment.trials.values()), self._objective)
        if experiment.trials and all(trial.state == ERROR for trial in experiment.trials.values()):
            errors = {trial.trial_id: trial.error for trial in experiment.trials.values()}
            first = next(iter(experiment.trials.values()))
            raise TuneError(f"No trial has worked. The first:\n{first.traceback}", errors=errors)
        return results

    # -- while it runs, from another thread ----------------------------------------------------------------------------

    def stop(self, trial_id: str | None = None) -> None:
        """End one trial, or all; what they have reported counts."""
        if trial_id is None:
            self._ask(lambda experiment: experiment.stop_all("you have stopped the run"))
        else:
            self._ask(lambda experiment: experiment.stop(_known(experiment, trial_id)))

    def clone(self, trial_id: str, **changes: Any) -> None:
        """Add a trial that goes on from the last checkpoint of another, with these *changes* of its configuration."""

        def request(experiment: Experiment) -> Any:
            source = experiment.trials[_known(experiment, trial_id)]
            return experiment.clone(trial_id, {**source.config, **changes})

        self._ask(request)

    def add_samples(self, count: int) -> None:
        """Make so many more trials."""
        self._ask(lambda experiment: experiment.add_samples(count))

    def _ask(self, request: Callable[[Experiment], Any]) -> None:
        running = self._running
        if running is None:
            raise ShoalError("The tuner is not running.")
        running.ask(request)


class _Watch:
    """Says at once what the first trial that fails has failed with."""

    def __init__(self) -> None:
        self._has_failed = False

    def __call__(self, trial: Trial) -> None:
        if trial.error and not self._has_failed:
            self._has_failed = True
            print(f"tune: `{trial.trial_id}` has failed and the others go on:\n{trial.traceback}")


def _replay(
    events: Sequence[Mapping[str, Any]], experiment: Experiment, running: Running, files: TrialFiles, space: Space
) -> None:
    """Tell an experiment what happened in earlier sessions."""
    scores: dict[str, dict[int, float]] = {}
    for event in events[1:]:
        trial_id = event.get("trial", "")
        if event["event"] == "trial":
            trial = experiment.trials.get(trial_id)
            if trial is None:
                values = event["values"]
                config = space.resolve(functools.partial(_known_value, values))
                trial = Trial(trial_id, config, dict(values))
                experiment.restore(trial)
            elif "config" in event:
                _merge(trial.config, event["config"])
            trial.cloned_from = event.get("cloned_from", trial.cloned_from)
            trial.state, trial.reason = event["state"], event.get("reason", "")
            trial.error, trial.num_failures = event.get("error", trial.error), event.get("failures", trial.num_failures)
            trial.traceback = event.get("traceback", trial.traceback)
            running.noted(trial)
        elif event["event"] == "report":
            step = experiment.trials[trial_id].step + 1
            score = experiment.objective.score(event["metrics"])
            scores.setdefault(trial_id, {})[step] = -math.inf if score is None else score
            experiment.replay(trial_id, event["metrics"], event["checkpoint"])
            running.reports.setdefault(trial_id, []).append({**event["metrics"], "training_iteration": step})
    for trial_id, trial in experiment.trials.items():
        files.found_checkpoints(trial_id, scores.get(trial_id, {}))
        steps = files.checkpoint_steps(trial_id)
        if trial.state not in ENDED:
            # what was reported after the last checkpoint is done again
            trial.checkpoint_step = steps[-1] if steps else 0
            trial.step = trial.checkpoint_step
            del running.reports.get(trial_id, [])[trial.step :]
    experiment.restored()


def _known_value(values: Mapping[str, Any], path: str, domain: Any) -> Any:
    return values[path]


def _merge(config: dict[str, Any], changed: Mapping[str, Any]) -> None:
    """Take over the plain values of a configuration that was written to the journal."""
    for key, value in changed.items():
        if isinstance(value, Mapping) and isinstance(config.get(key), dict):
            _merge(config[key], value)
        elif isinstance(value, (int, float, str, bool)) and isinstance(config.get(key), (int, float, str, bool)):
            config[key] = value


def _make_objective(tune: TuneConfig) -> Objective:
    metrics = (tune.metric,) if isinstance(tune.metric, str) else tuple(tune.metric or ("objective",))
    modes = (tune.mode,) * len(metrics) if isinstance(tune.mode, str) else tuple(tune.mode)
    if len(modes) != len(metrics):
        raise OptionError(f"There are {len(metrics)} metrics and {len(modes)} modes.", option="mode")
    for mode in modes:
        if mode not in ("min", "max"):
            raise OptionError(f"`mode` is `min` or `max`, not {mode!r}.", option="mode")
    return Objective(metrics, modes)


def _check_trainable(trainable: Any) -> None:
    if isinstance(trainable, type):
        if not issubclass(trainable, Trainable):
            raise TypeError(f"A trainable class is a subclass of `tune.Trainable`; `{trainable.__name__}` is not.")
        return
    if not callable(trainable):
        raise TypeError(f"A trainable is a function of the configuration, or a class, not {trainable!r}.")
    try:
        inspect.signature(trainable).bind({})
    except ValueError:
        return  # written in C
    except TypeError:
        names = list(inspect.signature(trainable).parameters)
        if not names:
            raise OptionError(
                "A trainable takes the configuration as its first argument.", option="trainable"
            ) from None


def _check_limits(tune: TuneConfig, run: RunConfig) -> None:
    checks = (
        ("num_samples", tune.num_samples, -1, False),
        ("max_concurrent", tune.max_concurrent, 1, True),
        ("max_failures", run.max_failures, -1, False),
        ("keep_checkpoints", run.keep_checkpoints, 1, False),
    )
    for name, value, least, may_miss in checks:
        if value is None and may_miss:
            continue
        if not isinstance(value, int) or isinstance(value, bool) or value < least:
            raise OptionError(f"`{name}` is a whole number from {least} up, not {value!r}.", option=name)
    if tune.time_budget_s is not None and not tune.time_budget_s > 0:
        raise OptionError(f"`time_budget_s` is above 0, not {tune.time_budget_s!r}.", option="time_budget_s")
    if tune.num_samples == 0:
        raise OptionError("`num_samples` is at least 1, or -1 for no end.", option="num_samples")
    if tune.metric is None and (tune.scheduler is not None or tune.searcher is not None):
        raise OptionError("A searcher or scheduler needs to know the `metric` that it optimises.", option="metric")


def _room_for(resources: Mapping[str, float]) -> int:
    """Return how many trials the cluster has room for at once, at least one."""
    total = shoal.cluster_resources()
    shares = [
        total.get(name, 0) / need for name, need in resources.items() if need and name in ("num_cpus", "num_gpus")
    ]
    return max(1, int(min(shares, default=1)))


def _known(experiment: Experiment, trial_id: str) -> str:
    if trial_id not in experiment.trials:
        near = difflib.get_close_matches(trial_id, experiment.trials, n=1)
        raise OptionError(
            f"There is no trial `{trial_id}`.{f' Did you mean `{near[0]}`?' if near else ''}", option="trial_id"
        )
    return trial_id


def _differences(before: Any, now: Any, path: str = "") -> Any:
    """Give, in words, where two described spaces differ."""
    if isinstance(before, dict) and isinstance(now, dict) and "domain" not in before and "domain" not in now:
        for key in dict.fromkeys([*before, *now]):
            where = f"{path}.{key}" if path else key
            if key not in before:
                yield f"`{where}` is new"
            elif key not in now:
                yield f"`{where}` is missing"
            else:
                yield from _differences(before[key], now[key], where)
    elif before != now:
        yield f"`{path}` was {before}, and is {now}"


def _name_of(trainable: Any) -> str:
    name = getattr(trainable, "__name__", type(trainable).__name__)
    return "tune" if name == "<lambda>" else str(name)
