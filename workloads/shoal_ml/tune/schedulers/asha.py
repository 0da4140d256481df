"""ASHA: asynchronous successive halving, by stopping.

Li et al., "A System for Massively Parallel Hyperparameter Tuning", MLSys 2020. As in Ray Tune's and Optuna's version,
and unlike algorithm 2 of the paper, trials are not paused and promoted later: a trial that reaches a rung goes on if it
is among the best ``1 / reduction_factor`` of those that have reached it, and is stopped if it is not.
"""

from __future__ import annotations

import bisect
import math
from collections.abc import Mapping
from typing import Any

from shoal.errors import OptionError
from shoal_ml.tune.schedulers.scheduler import CONTINUE, Decision, Stop, TrialScheduler


class ASHA(TrialScheduler):
    """See the module's description.

    Parameters
    ----------
    max_t
        Time at which a trial has done all it can and ends.
    grace_period
        Time before which none is stopped.
    reduction_factor
        Each rung is so many times higher than the one before, and lets one of so many through.
    brackets
        Brackets among which trials are divided; in bracket *b* the first *b* rungs are left out.
    """

    def __init__(
        self,
        *,
        time_attr: str = "training_iteration",
        max_t: float = 100,
        grace_period: float = 1,
        reduction_factor: float = 4,
        brackets: int = 1,
    ) -> None:
        super().__init__(time_attr=time_attr)
        if not 0 < grace_period <= max_t:
            raise OptionError(
                f"`grace_period` is above 0 and at most `max_t` ({max_t:g}), not {grace_period!r}.",
                option="grace_period",
            )
        if not reduction_factor > 1:
            raise OptionError(f"`reduction_factor` is above 1, not {reduction_factor!r}.", option="reduction_factor")
        if not isinstance(brackets, int) or brackets < 1:
            raise OptionError(f"`brackets` is a whole number from 1 up, not {brackets!r}.", option="brackets")
        self.max_t = max_t
        self.reduction_factor = reduction_factor
        num_rungs = int(math.log(max_t / grace_period, reduction_factor) + 1e-9) + 1
        milestones = [grace_period * reduction_factor**number for number in range(num_rungs)]
        self._brackets = [[_Rung(time) for time in milestones[first:] if time < max_t] for first in range(brackets)]
        self._bracket_of: dict[str, int] = {}
        self._num_in = [0] * brackets

    def added(self, trial_id: str, config: Mapping[str, Any]) -> None:
        # HyperBand's shares: the more rungs a bracket has, the more trials (as Ray Tune divides them, but not at
        # random)
        weights = [self.reduction_factor ** len(rungs) for rungs in self._brackets]
        shares = [count / weight for count, weight in zip(self._num_in, weights, strict=True)]
        bracket = shares.index(min(shares))
        self._num_in[bracket] += 1
        self._bracket_of[trial_id] = bracket

    def reported(self, trial_id: str, metrics: Mapping[str, Any]) -> Decision:
        time = self.time(metrics)
        if time >= self.max_t:
            return Stop(f"it has reached {self.max_t:g} of `{self.time_attr}`")
        score = self.score(metrics)
        for rung in reversed(self._brackets[self._bracket_of[trial_id]]):
            if time < rung.time or trial_id in rung.passed:
                continue
            if score is None:
                return CONTINUE
            cutoff = rung.cutoff(self.reduction_factor)
            rung.record(trial_id, score)
            if cutoff is not None and score < cutoff:
                return Stop(
                    f"it was not among the best 1/{self.reduction_factor:g} at {rung.time:g} of `{self.time_attr}`"
                )
            return CONTINUE
        return CONTINUE

    def failed(self, trial_id: str) -> None:
        self._bracket_of.pop(trial_id, None)


class _Rung:
    """A time at which trials are compared."""

    def __init__(self, time: float) -> None:
        self.time = time
        self.passed: set[str] = set()
        #: Scores of all that have reached it, ascending.
        self._scores: list[float] = []

    def record(self, trial_id: str, score: float) -> None:
        self.passed.add(trial_id)
        bisect.insort(self._scores, score)

    def cutoff(self, reduction_factor: float) -> float | None:
        """Return what separates the best 1/reduction_factor so far from the rest, interpolated; None at first."""
        if not self._scores:
            return None
        position = (len(self._scores) - 1) * (1 - 1 / reduction_factor)
        low = int(position)
        high = min(low + 1, len(self._scores) - 1)
        return self._scores[low] + (self._scores[high] - self._scores[low]) * (position - low)
