"""BOHB: a model of good configurations from the largest budget that has enough of them.

Falkner, Klein, Hutter, "BOHB: Robust and Efficient Hyperparameter Optimization at Scale", ICML 2018. It goes with
:class:`HyperBand`. The density estimates are those of Optuna's TPE, of all parameters together, as in the paper; a
share of the configurations is drawn at random, which keeps the guarantees of HyperBand.
"""

from __future__ import annotations

import random
from collections.abc import Mapping
from typing import Any

from shoal.errors import OptionError
from shoal_ml.tune.searchers.basic import draw
from shoal_ml.tune.searchers.optuna_search import OptunaSearch
from shoal_ml.tune.searchers.searcher import Objective, Searcher, check_objective
from shoal_ml.tune.space import Space


class BOHB(Searcher):
    """See the module's description.

    Parameters
    ----------
    random_share
        Of the configurations, which are drawn at random: the paper's rho, 1/3.
    min_points
        Results on a budget from which on it is modelled: the number of parameters and one by default, as in the paper.
    """

    def __init__(self, *, random_share: float = 1 / 3, min_points: int | None = None) -> None:
        if not 0 <= random_share <= 1:
            raise OptionError(f"`random_share` is between 0 and 1, not {random_share!r}.", option="random_share")
        self._random_share = random_share
        self._min_points = min_points

    def begin(self, space: Space, objective: Objective, seed: int | None) -> None:
        check_objective(self, objective)
        self._space, self._objective, self._seed = space, objective, seed
        self._rng = random.Random(seed)
        self._enough = self._min_points or len(space.domains()) + 1
        self._chosen: dict[str, dict[str, Any]] = {}
        #: Metrics by budget (steps) and trial.
        self._seen: dict[int, dict[str, dict[str, Any]]] = {}
        self._num_suggested = 0

    def suggest(self, trial_id: str, fixed: Mapping[str, Any]) -> dict[str, Any]:
        config = self._propose(trial_id, fixed)
        self._chosen[trial_id] = self._space.values_of(config)
        self._num_suggested += 1
        return config

    def observed(self, trial_id: str, step: int, metrics: Mapping[str, Any]) -> None:
        if self._objective.values(metrics) is not None:
            self._seen.setdefault(step, {})[trial_id] = dict(metrics)

    def restored(self, trial_id: str, values: Mapping[str, Any], metrics: Mapping[str, Any] | None) -> None:
        self._chosen[trial_id] = dict(values)
        if metrics is not None:
            self.observed(trial_id, int(metrics.get("training_iteration", 0)), metrics)

    def _propose(self, trial_id: str, fixed: Mapping[str, Any]) -> dict[str, Any]:
        budgets = [step for step, trials in self._seen.items() if len(trials) > self._enough]
        if not budgets or self._rng.random() < self._random_share:
            return draw(self._space, self._rng, fixed)
        import optuna

        seed = self._rng.randrange(2**31)
        model = OptunaSearch(optuna.samplers.TPESampler(seed=seed, multivariate=True, group=True, n_startup_trials=1))
        model.begin(self._space, self._objective, seed)
        for name, metrics in self._seen[max(budgets)].items():
            model.restored(name, self._chosen[name], metrics)
        return model.suggest(trial_id, fixed)
