"""The contract of searchers: who proposes configurations."""

from __future__ import annotations

import dataclasses
from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any

from shoal.errors import OptionError
from shoal_ml.tune.space import Space


@dataclasses.dataclass(frozen=True, slots=True)
class Objective:
    """What is to be optimised: names of metrics, and for each whether it is to be ``"min"`` or ``"max"``."""

    metrics: tuple[str, ...]
    modes: tuple[str, ...]

    def values(self, metrics: Mapping[str, Any]) -> list[float] | None:
        """Return the values of *metrics* in order; None if one is missing or no number."""
        found = [metrics.get(name) for name in self.metrics]
        if any(isinstance(value, bool) or not isinstance(value, (int, float)) or value != value for value in found):
            return None
        return [float(value) for value in found if value is not None]

    def score(self, metrics: Mapping[str, Any]) -> float | None:
        """Return the first metric so that more is better; None if it is missing or no number."""
        found = self.values(metrics)
        return None if found is None else found[0] if self.modes[0] == "max" else -found[0]


class Exhausted(Exception):
    """A searcher has nothing more to propose."""


class Searcher(ABC):
    """Proposes configurations and learns from what becomes of them.

    Call order: :meth:`begin` once; then :meth:`suggest`, for each trial that got a configuration any number of
    :meth:`observed`, and :meth:`ended` once. All calls come from one thread. After a restart of the run, a new searcher
    is begun and told the trials of before by :meth:`restored`, in the order of their suggestion: a searcher needs no
    state on disk. With the same seed and the same calls it proposes the same.
    """

    #: How many metrics it can optimise at once.
    max_objectives = 1

    @abstractmethod
    def begin(self, space: Space, objective: Objective, seed: int | None) -> None:
        """Learn what is searched.

        Raises
        ------
        OptionError
            It cannot search such a space, or such an objective.
        """

    @abstractmethod
    def suggest(self, trial_id: str, fixed: Mapping[str, Any]) -> dict[str, Any] | None:
        """Return a configuration for a trial, in which the paths in *fixed* have these values; None: not now.

        Raises
        ------
        Exhausted
            There is none any more.
        """

    def observed(  # noqa: B027 - a searcher need not learn from it
        self, trial_id: str, step: int, metrics: Mapping[str, Any]
    ) -> None:
        """A trial has reported after *step* steps."""

    def ended(  # noqa: B027
        self, trial_id: str, metrics: Mapping[str, Any] | None
    ) -> None:
        """A trial has ended with these last metrics; None: it has failed."""

    @abstractmethod
    def restored(self, trial_id: str, values: Mapping[str, Any], metrics: Mapping[str, Any] | None) -> None:
        """Learn of a trial of an earlier session: what was chosen, by path, and with what it ended; None: it failed."""


def check_objective(searcher: Searcher, objective: Objective) -> None:
    """Raise OptionError if a searcher cannot optimise so many metrics."""
    if len(objective.metrics) > searcher.max_objectives:
        raise OptionError(
            f"`{type(searcher).__name__}` optimises {searcher.max_objectives} metric, not "
            f"{len(objective.metrics)}: {', '.join(objective.metrics)}. `OptunaSearch` can do several.",
            option="metric",
        )
