"""The contract of trial schedulers: which trials go on, stop, wait, or begin anew as another's clone."""

from __future__ import annotations

import dataclasses
import random
from collections.abc import Mapping, Sequence
from typing import Any

from shoal_ml.tune.searchers.searcher import Objective


@dataclasses.dataclass(frozen=True, slots=True)
class Continue:
    """Go on."""


@dataclasses.dataclass(frozen=True, slots=True)
class Stop:
    """End the trial. *reason* is told to the user."""

    reason: str


@dataclasses.dataclass(frozen=True, slots=True)
class Pause:
    """Save the trial and let others run; it goes on when :meth:`TrialScheduler.next_paused` names it."""


@dataclasses.dataclass(frozen=True, slots=True)
class Exploit:
    """Go on from the last checkpoint of another trial, with another configuration."""

    source: str
    config: dict[str, Any]


Decision = Continue | Stop | Pause | Exploit
CONTINUE, PAUSE = Continue(), Pause()


class TrialScheduler:
    """Decides after each report of a trial. This one lets all go on: first in, first out.

    Call order: :meth:`begin` once; then for each trial :meth:`added`, any number of :meth:`reported`, and
    :meth:`ended` or :meth:`failed`. All calls come from one thread; nothing here waits. After a restart of the run, a
    new scheduler is told everything once more, in the order in which it happened: a scheduler needs no state on disk,
    and with the same seed and calls it decides the same.
    """

    #: Trials that have not begun, and paused ones; kept up to date by whoever calls.
    num_pending = num_paused = 0

    def __init__(self, *, time_attr: str = "training_iteration") -> None:
        """*time_attr* is the metric that says how far a trial is; it only grows."""
        self.time_attr = time_attr

    def begin(self, objective: Objective, rng: random.Random) -> None:
        """Learn what is optimised."""
        self.objective = objective
        self.rng = rng

    def added(self, trial_id: str, config: Mapping[str, Any]) -> None:
        """There is a new trial."""

    def reported(self, trial_id: str, metrics: Mapping[str, Any]) -> Decision:
        """A trial has reported; returns what is to become of it."""
        return CONTINUE

    def ended(self, trial_id: str, metrics: Mapping[str, Any]) -> None:
        """A trial has ended by itself or was stopped."""

    def failed(self, trial_id: str) -> None:
        """A trial has failed for good, or was removed."""

    def next_paused(self, paused: Sequence[str], can_wait: bool) -> str | Stop | None:
        """Return which of the *paused* trials goes on now; None for none.

        If nothing runs or waits to run, *can_wait* is False: then one of them has to go on, or a :class:`Stop` is
        returned, which ends them all.
        """
        return paused[0] if paused else None

    def stopped_while_paused(self) -> Sequence[str]:
        """Return paused trials that are not to go on; each is named once."""
        return ()

    def score(self, metrics: Mapping[str, Any]) -> float | None:
        """Return the objective so that more is better; None if it was not reported or is no number."""
        return self.objective.score(metrics)

    def time(self, metrics: Mapping[str, Any]) -> float:
        """Return how far a trial is."""
        value = metrics.get(self.time_attr)
        if isinstance(value, bool) or not isinstance(value, (int, float)):
            raise ValueError(
                f"The metric `{self.time_attr}`, by which `{type(self).__name__}` measures time, is {value!r}."
            )
        return float(value)
