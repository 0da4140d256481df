"""Searchers that do not learn: at random, and over a grid."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from typing import Any

from shoal.errors import OptionError
from shoal_ml.tune.searchers.searcher import Exhausted, Objective, Searcher
from shoal_ml.tune.space import Choice, Float, Grid, Integer, Normal, Space

#: Configurations drawn until one keeps to the constraint.
MAX_DRAWS = 1_000


class RandomSearch(Searcher):
    """Draws each configuration at random, by the distributions of the space."""

    max_objectives = 1_000

    def begin(self, space: Space, objective: Objective, seed: int | None) -> None:
        self._space = space
        self._rng = random.Random(seed)

    def suggest(self, trial_id: str, fixed: Mapping[str, Any]) -> dict[str, Any]:
        return draw(self._space, self._rng, fixed)

    def restored(self, trial_id: str, values: Mapping[str, Any], metrics: Mapping[str, Any] | None) -> None:
        self._space.sample(self._rng)  # so that what comes is not what has been


class GridSearch(Searcher):
    """Tries every combination: of ``grid_search``, of the options of choices, and of *points* values of each range.

    Parameters
    ----------
    points
        How many values of a range, evenly from one end to the other (by the logarithm where the range is by it).
    """

    max_objectives = 1_000

    def __init__(self, points: int = 5) -> None:
        if not isinstance(points, int) or points < 1:
            raise OptionError(f"`points` is a whole number from 1 up, not {points!r}.", option="points")
        self._points = points

    def begin(self, space: Space, objective: Objective, seed: int | None) -> None:
        for path, domain in space.domains():
            if isinstance(domain, Normal):
                raise OptionError(f"`{path}` has no ends, so there is no grid for it.", option="param_space")
        self._space = space
        #: For each value chosen on the way to the next configuration: its number, and of how many.
        self._odometer: list[list[int]] = []
        self._begun = False

    def suggest(self, trial_id: str, fixed: Mapping[str, Any]) -> dict[str, Any]:
        while self._turn():
            config = self._space.resolve(self._chooser(fixed))
            if self._space.allows(config):
                return config
        raise Exhausted

    def restored(self, trial_id: str, values: Mapping[str, Any], metrics: Mapping[str, Any] | None) -> None:
        self.suggest(trial_id, {})

    def _turn(self) -> bool:
        """Move the odometer to the next combination; False after the last."""
        if not self._begun:
            self._begun = True
            return True
        while self._odometer:
            wheel = self._odometer[-1]
            wheel[0] += 1
            if wheel[0] < wheel[1]:
                return True
            self._odometer.pop()
        return False

    def _chooser(self, fixed: Mapping[str, Any]) -> Any:
        position = 0

        def choose(path: str, domain: Any) -> Any:
            nonlocal position
            if path in fixed:
                return fixed[path]
            values = grid_of(domain, self._points)
            if position == len(self._odometer):
                self._odometer.append([0, len(values)])
            number = self._odometer[position][0]
            position += 1
            return values[number]

        return choose


def draw(space: Space, rng: random.Random, fixed: Mapping[str, Any]) -> dict[str, Any]:
    """Draw configurations until the constraint allows one.

    Raises
    ------
    OptionError
        It has allowed none of many.
    """
    for _ in range(MAX_DRAWS):
        config = space.sample(rng, fixed)
        if space.allows(config):
            return config
    raise OptionError(f"The constraint has allowed none of {MAX_DRAWS:,} configurations.", option="constraint")


def grid_of(domain: Any, points: int) -> Sequence[Any]:
    """Return the values of a domain that a grid has; of a choice, the numbers of its options."""
    match domain:
        case Grid(values=values):
            return values
        case Choice(options=options):
            return range(len(options))
        case Integer(low=low, high=high, step=step) if (high - low) // step < points:
            return range(low, high + 1, step)
        case Integer() | Float():
            first, last = float(domain.low), float(domain.high)
            shares = [0.5] if points == 1 else [number / (points - 1) for number in range(points)]
            if domain.log:
                found = [first * (last / first) ** share for share in shares]
            else:
                found = [first + (last - first) * share for share in shares]
            if isinstance(domain, Integer):
                return sorted({domain.low + round((value - low) / domain.step) * domain.step for value in found})
            return list(dict.fromkeys(domain.rounded(value) for value in found))
    raise TypeError(f"There is no grid for {domain!r}.")
