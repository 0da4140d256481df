"""Searches with Optuna's samplers: TPE, CMA-ES, a Gaussian process, NSGA-II for several objectives, and others.

Optuna's samplers are well kept and measured; here they are asked for configurations one by one, while others are
still being tried (Akiba et al., "Optuna", KDD 2019). TPE takes those as bad for the time being, so that configurations
that are tried at once differ (``constant_liar``).
"""

from __future__ import annotations

import functools
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from shoal.errors import OptionError
from shoal_ml.tune.searchers.basic import MAX_DRAWS
from shoal_ml.tune.searchers.searcher import Objective, Searcher, check_objective
from shoal_ml.tune.space import Choice, Domain, Float, Grid, Integer, Normal, Space

if TYPE_CHECKING:
    from optuna.samplers import BaseSampler
    from optuna.trial import Trial

#: Samplers by name; those of several objectives.
SAMPLERS = ("tpe", "cmaes", "gp", "nsgaii", "qmc", "random")
SEVERAL = ("tpe", "nsgaii", "qmc", "random", "gp")
#: Bounds for a normal distribution, in standard deviations: Optuna's distributions have ends.
WIDTH = 4.0


class OptunaSearch(Searcher):
    """Proposes what one of Optuna's samplers proposes.

    Parameters
    ----------
    sampler
        ``"tpe"`` (Bergstra et al. 2011; for several metrics MOTPE), ``"cmaes"`` (Hansen 2016), ``"gp"`` (a Gaussian
        process with log expected improvement), ``"nsgaii"`` (Deb et al. 2002), ``"qmc"`` (a Sobol sequence),
        ``"random"``, or one of Optuna's samplers made by you.
    storage
        Optuna's storage, as its URL or made by you, so that Optuna Dashboard shows the study; in memory by default.
    study_name
        Its name there.
    """

    max_objectives = 1_000

    def __init__(
        self, sampler: str | BaseSampler = "tpe", *, storage: Any = None, study_name: str | None = None
    ) -> None:
        if isinstance(sampler, str) and sampler not in SAMPLERS:
            raise OptionError(f"`sampler` is one of {', '.join(SAMPLERS)}, not {sampler!r}.", option="sampler")
        self._sampler = sampler
        self._storage = storage
        self._study_name = study_name

    def begin(self, space: Space, objective: Objective, seed: int | None) -> None:
        import optuna

        if self._sampler == "cmaes" or (isinstance(self._sampler, str) and self._sampler not in SEVERAL):
            self.max_objectives = 1
        check_objective(self, objective)
        self._space = space
        self._objective = objective
        self._domains = dict(space.domains())
        self._trials: dict[str, Trial] = {}
        quiet = optuna.logging.get_verbosity()
        optuna.logging.set_verbosity(optuna.logging.WARNING)
        try:
            self._study = optuna.create_study(
                sampler=_make_sampler(self._sampler, seed),
                storage=self._storage,
                study_name=self._study_name,
                directions=["maximize" if mode == "max" else "minimize" for mode in objective.modes],
            )
        finally:
            optuna.logging.set_verbosity(quiet)

    def suggest(self, trial_id: str, fixed: Mapping[str, Any]) -> dict[str, Any]:
        import optuna

        given = {path: value for path, value in fixed.items() if not isinstance(self._domains[path], Grid)}
        for _ in range(MAX_DRAWS):
            if given:  # the next trial has these, and the sampler learns from it as from any other
                self._study.enqueue_trial(given)
            trial = self._study.ask()
            config = self._space.resolve(functools.partial(self._choose, trial, fixed))
            if self._space.allows(config):
                self._trials[trial_id] = trial
                return config
            self._study.tell(trial, state=optuna.trial.TrialState.PRUNED)
        raise OptionError(f"The constraint has allowed none of {MAX_DRAWS:,} configurations.", option="constraint")

    def observed(self, trial_id: str, step: int, metrics: Mapping[str, Any]) -> None:
        values = self._objective.values(metrics)
        trial = self._trials.get(trial_id)
        if trial is not None and values is not None and len(values) == 1:
            trial.report(values[0], step)

    def ended(self, trial_id: str, metrics: Mapping[str, Any] | None) -> None:
        import optuna

        trial = self._trials.pop(trial_id, None)
        if trial is None:
            return
        values = None if metrics is None else self._objective.values(metrics)
        if values is None:
            self._study.tell(trial, state=optuna.trial.TrialState.FAIL)
        else:
            self._study.tell(trial, values)

    def restored(self, trial_id: str, values: Mapping[str, Any], metrics: Mapping[str, Any] | None) -> None:
        import optuna

        chosen = {path: value for path, value in values.items() if not isinstance(self._domains[path], Grid)}
        distributions = {path: _distribution(self._domains[path]) for path in chosen}
        found = None if metrics is None else self._objective.values(metrics)
        state = optuna.trial.TrialState.FAIL if found is None else optuna.trial.TrialState.COMPLETE
        self._study.add_trial(
            optuna.trial.create_trial(
                params=chosen,
                distributions=distributions,
                values=found,
                state=state,
            )
        )

    def _choose(self, trial: Trial, fixed: Mapping[str, Any], path: str, domain: Domain) -> Any:
        match domain:
            case Grid():
                return fixed[path]
            case Float(low=low, high=high, log=log, step=step):
                value = trial.suggest_float(path, low, high, log=log, step=None if log else _even(low, high, step))
                return domain.rounded(value)
            case Integer(low=low, high=high, log=log, step=step):
                value = trial.suggest_int(path, low, high, log=log, step=1 if log else step)
                return low + round((value - low) / step) * step
            case Normal(mean=mean, sd=sd, step=step):
                value = trial.suggest_float(path, mean - WIDTH * sd, mean + WIDTH * sd)
                return value if step is None else round(value / step) * step
            case Choice(options=options):
                return trial.suggest_categorical(path, list(range(len(options))))
        raise TypeError(f"`{path}`: Optuna cannot choose from {domain!r}.")


def _make_sampler(sampler: Any, seed: int | None) -> Any:
    import optuna.samplers as samplers

    match sampler:
        case "tpe":
            return samplers.TPESampler(seed=seed, constant_liar=True, multivariate=False)
        case "cmaes":
            return samplers.CmaEsSampler(seed=seed)
        case "gp":
            return samplers.GPSampler(seed=seed)
        case "nsgaii":
            return samplers.NSGAIISampler(seed=seed)
        case "qmc":
            return samplers.QMCSampler(seed=seed, scramble=True)
        case "random":
            return samplers.RandomSampler(seed=seed)
    return sampler


def _distribution(domain: Domain) -> Any:
    import optuna.distributions as distributions

    match domain:
        case Float(low=low, high=high, log=log, step=step):
            return distributions.FloatDistribution(low, high, log=log, step=None if log else _even(low, high, step))
        case Integer(low=low, high=high, log=log, step=step):
            return distributions.IntDistribution(low, high, log=log, step=1 if log else step)
        case Normal(mean=mean, sd=sd):
            return distributions.FloatDistribution(mean - WIDTH * sd, mean + WIDTH * sd)
        case Choice(options=options):
            return distributions.CategoricalDistribution(list(range(len(options))))
    raise TypeError(f"Optuna has no distribution for {domain!r}.")


def _even(low: float, high: float, step: float | None) -> float | None:
    """Return the step if it leads from one end to the other; Optuna would move the end."""
    if step is None:
        return None
    count = (high - low) / step
    return step if abs(count - round(count)) < 1e-9 else None
