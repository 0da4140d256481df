"""PB2: population based bandits. As PBT, but what to try is chosen by a model of what has improved how much.

Parker-Holder, Nguyen, Roberts, "Provably Efficient Online Hyperparameter Optimization with Population-Based Bandits",
NeurIPS 2020. A Gaussian process over time and parameters predicts the improvement of one interval; the next
configuration maximises its upper confidence bound, with those already chosen in this round taken for granted. The
kernel is a squared exponential over the parameters times one over time, which forgets as the paper's does.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Mapping
from typing import Any

from shoal.errors import OptionError
from shoal_ml.tune.schedulers.pbt import PBT, assign, lookup

#: Results that are modelled at most, the newest; and candidates that are looked at.
MAX_RESULTS, CANDIDATES = 200, 500
#: Results from which on the model is asked.
MIN_RESULTS = 4


class PB2(PBT):
    """See the module's description.

    Parameters
    ----------
    bounds
        What may change, by its name in the configuration, and between which numbers: ``{"lr": (1e-4, 1e-1)}``. Ranges
        of more than two orders of magnitude are searched by their logarithm.
    """

    def __init__(
        self,
        bounds: Mapping[str, tuple[float, float]],
        *,
        time_attr: str = "training_iteration",
        perturbation_interval: float = 10,
        quantile: float = 0.25,
    ) -> None:
        for path, pair in bounds.items():
            if len(pair) != 2 or not pair[0] < pair[1]:
                raise OptionError(f"`bounds[{path!r}]` is a lower and an upper bound, not {pair!r}.", option="bounds")
        super().__init__(
            {path: (low, high) for path, (low, high) in bounds.items()},
            time_attr=time_attr,
            perturbation_interval=perturbation_interval,
            quantile=quantile,
        )
        self._bounds = {path: (float(low), float(high)) for path, (low, high) in bounds.items()}
        #: Time, parameters between 0 and 1, and the improvement of the interval before it.
        self._results: list[tuple[float, list[float], float]] = []
        self._last: dict[str, float] = {}

    def compared(self, trial_id: str, time: float) -> None:
        score = self.members[trial_id].score
        if score is None:
            return
        if trial_id in self._last:
            point = self._to_unit(self.members[trial_id].config)
            self._results = [*self._results, (time, point, score - self._last[trial_id])][-MAX_RESULTS:]
        self._last[trial_id] = score

    def explore(self, config: Mapping[str, Any], time: float) -> dict[str, Any]:
        found = copy.deepcopy(dict(config))
        unit = self._propose(time)
        for share, path in zip(unit, self._bounds, strict=True):
            before = lookup(found, path)
            value = self._from_unit(path, share)
            whole = isinstance(before, int) and not isinstance(before, bool)
            assign(found, path, round(value) if whole else value)
        return found

    def _propose(self, time: float) -> list[float]:
        if len(self._results) < MIN_RESULTS:
            return [self.rng.random() for _ in self._bounds]
        import numpy as np
        from sklearn.gaussian_process import GaussianProcessRegressor
        from sklearn.gaussian_process.kernels import RBF, WhiteKernel

        times = np.array([at for at, _, _ in self._results])
        span = max(float(times.max() - times.min()), 1.0)
        points = np.array([[at / span, *point] for at, point, _ in self._results])
        gains = np.array([gain for _, _, gain in self._results])
        scale = float(gains.std()) or 1.0
        scales = [1.0] + [0.3] * len(self._bounds)
        model = GaussianProcessRegressor(
            RBF(scales, length_scale_bounds="fixed") + WhiteKernel(0.1, noise_level_bounds="fixed"), optimizer=None
        )
        model.fit(points, (gains - gains.mean()) / scale)
        shares = [[self.rng.random() for _ in self._bounds] for _ in range(CANDIDATES)]
        mean, deviation = model.predict(np.array([[time / span, *share] for share in shares]), return_std=True)
        # the confidence grows slowly with what has been seen, as in GP-UCB
        beta = 0.2 + 0.4 * math.log(1 + len(self._results))
        return shares[int((mean + math.sqrt(beta) * deviation).argmax())]

    def _to_unit(self, config: Mapping[str, Any]) -> list[float]:
        return [
            (_scaled(path_value, low, high) - _scaled(low, low, high))
            / (_scaled(high, low, high) - _scaled(low, low, high))
            for path_value, (low, high) in ((lookup(config, path), pair) for path, pair in self._bounds.items())
        ]

    def _from_unit(self, path: str, share: float) -> float:
        low, high = self._bounds[path]
        if _is_log(low, high):
            return float(low * (high / low) ** share)
        return low + (high - low) * share


def _is_log(low: float, high: float) -> bool:
    return low > 0 and high / low > 100


def _scaled(value: float, low: float, high: float) -> float:
    return math.log(max(value, 1e-300)) if _is_log(low, high) else value
