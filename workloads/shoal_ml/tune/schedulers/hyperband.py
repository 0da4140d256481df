"""HyperBand: successive halving in brackets, each of which weighs many short trials against few long ones differently.

Li et al., "Hyperband: A Novel Bandit-Based Approach to Hyperparameter Optimization", JMLR 2018, algorithm 1. With ``R =
max_t`` and ``eta = reduction_factor`` bracket *s* begins with ``ceil((s_max + 1) * eta**s / (s + 1))`` trials of ``R *
eta**-s`` each; when all of them have come that far, the best ``1/eta`` go on, ``eta`` times as far. Trials that wait
for the others are paused. Where fewer trials come than a bracket has room for, it is halved as it is when nothing else
is left to do.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from shoal.errors import OptionError
from shoal_ml.tune.schedulers.scheduler import CONTINUE, PAUSE, Decision, Stop, TrialScheduler


class HyperBand(TrialScheduler):
    """See the module's description.

    Parameters
    ----------
    max_t
        Time at which a trial has done all it can: the paper's R.
    reduction_factor
        The paper's eta.
    """

    def __init__(self, *, time_attr: str = "training_iteration", max_t: int = 81, reduction_factor: float = 3) -> None:
        super().__init__(time_attr=time_attr)
        if not isinstance(max_t, int) or max_t < 1:
            raise OptionError(f"`max_t` is a whole number from 1 up, not {max_t!r}.", option="max_t")
        if not reduction_factor > 1:
            raise OptionError(f"`reduction_factor` is above 1, not {reduction_factor!r}.", option="reduction_factor")
        self.max_t = max_t
        self.reduction_factor = reduction_factor
        self._s_max = int(math.log(max_t, reduction_factor) + 1e-9)
        self._next_s = self._s_max
        self._brackets: list[_Bracket] = []
        self._bracket_of: dict[str, _Bracket] = {}
        self._to_stop: list[str] = []

    def added(self, trial_id: str, config: Mapping[str, Any]) -> None:
        if not self._brackets or not self._brackets[-1].has_room:
            s = self._next_s
            self._next_s = s - 1 if s else self._s_max
            size = math.ceil((self._s_max + 1) * self.reduction_factor**s / (s + 1))
            self._brackets.append(_Bracket(size, self.max_t * self.reduction_factor**-s))
        bracket = self._brackets[-1]
        bracket.add(trial_id)
        self._bracket_of[trial_id] = bracket

    def reported(self, trial_id: str, metrics: Mapping[str, Any]) -> Decision:
        bracket = self._bracket_of[trial_id]
        time = self.time(metrics)
        if time >= self.max_t:
            bracket.leave(trial_id)
            self._close(bracket)
            return Stop(f"it has reached {self.max_t:g} of `{self.time_attr}`")
        if time < bracket.target:
            return CONTINUE
        bracket.arrived(trial_id, self.score(metrics))
        self._close(bracket)
        if trial_id in self._to_stop:
            self._to_stop.remove(trial_id)
            return Stop(f"it was not among the best 1/{self.reduction_factor:g} of its bracket at {time:g}")
        return CONTINUE if trial_id in bracket.going else PAUSE

    def ended(self, trial_id: str, metrics: Mapping[str, Any]) -> None:
        self.failed(trial_id)

    def failed(self, trial_id: str) -> None:
        bracket = self._bracket_of.pop(trial_id, None)
        if bracket is not None:
            bracket.leave(trial_id)
            self._close(bracket)

    def next_paused(self, paused: Sequence[str], can_wait: bool) -> str | Stop | None:
        for trial_id in paused:
            if trial_id in self._bracket_of[trial_id].going:
                return trial_id
        if can_wait:
            return None
        # No more trials come: brackets that are not full are halved as they are.
        for bracket in self._brackets:
            bracket.has_room = False
            self._close(bracket)
        for trial_id in paused:
            if trial_id in self._bracket_of[trial_id].going:
                return trial_id
        return Stop("nothing is left to compare it with")

    def stopped_while_paused(self) -> Sequence[str]:
        stopped, self._to_stop = self._to_stop, []
        return stopped

    def _close(self, bracket: _Bracket) -> None:
        """Halve a bracket if all of its trials have come to its target."""
        if bracket.has_room or bracket.going or not bracket.waiting:
            return
        self._to_stop += bracket.halve(self.reduction_factor)
        bracket.target = min(bracket.target * self.reduction_factor, self.max_t)


class _Bracket:
    """Trials that are compared with one another."""

    def __init__(self, size: int, target: float) -> None:
        self._size = size
        #: Time to which its trials run before they are compared.
        self.target = target
        self.has_room = True
        #: Trials on the way to the target, and those that wait there, with their scores.
        self.going: set[str] = set()
        self.waiting: dict[str, float | None] = {}

    def add(self, trial_id: str) -> None:
        self.going.add(trial_id)
        self._size -= 1
        self.has_room = self._size > 0

    def arrived(self, trial_id: str, score: float | None) -> None:
        self.going.discard(trial_id)
        self.waiting[trial_id] = score

    def leave(self, trial_id: str) -> None:
        self.going.discard(trial_id)
        self.waiting.pop(trial_id, None)

    def halve(self, reduction_factor: float) -> list[str]:
        """Send the best on, at least one; returns the others."""
        ranked = sorted(self.waiting, key=lambda one: _rank(self.waiting[one]), reverse=True)
        keep = max(1, int(len(ranked) / reduction_factor))
        self.going = set(ranked[:keep])
        self.waiting = {}
        return ranked[keep:]


def _rank(score: float | None) -> float:
    return -math.inf if score is None else score
