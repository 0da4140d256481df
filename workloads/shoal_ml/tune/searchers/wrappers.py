"""Searchers around searchers: fewer at once, and each configuration several times."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from shoal.errors import OptionError
from shoal_ml.tune.searchers.searcher import Objective, Searcher


class ConcurrencyLimiter(Searcher):
    """Has at most *max_concurrent* configurations of another searcher tried at once, so that it learns in between."""

    def __init__(self, searcher: Searcher, max_concurrent: int) -> None:
        _check_count("max_concurrent", max_concurrent)
        self._searcher = searcher
        self._max_concurrent = max_concurrent
        self._under_way: set[str] = set()
        self.max_objectives = searcher.max_objectives

    def begin(self, space: Any, objective: Objective, seed: int | None) -> None:
        self._searcher.begin(space, objective, seed)

    def suggest(self, trial_id: str, fixed: Mapping[str, Any]) -> dict[str, Any] | None:
        if len(self._under_way) >= self._max_concurrent:
            return None
        config = self._searcher.suggest(trial_id, fixed)
        if config is not None:
            self._under_way.add(trial_id)
        return config

    def observed(self, trial_id: str, step: int, metrics: Mapping[str, Any]) -> None:
        self._searcher.observed(trial_id, step, metrics)

    def ended(self, trial_id: str, metrics: Mapping[str, Any] | None) -> None:
        self._under_way.discard(trial_id)
        self._searcher.ended(trial_id, metrics)

    def restored(self, trial_id: str, values: Mapping[str, Any], metrics: Mapping[str, Any] | None) -> None:
        self._searcher.restored(trial_id, values, metrics)


class Repeater(Searcher):
    """Has each configuration of another searcher tried *repeat* times, and tells it the mean of what comes of it.

    For results that differ from run to run. With *seed_key* each of the trials has its number, from 0, under that key
    of its configuration.
    """

    def __init__(self, searcher: Searcher, repeat: int = 3, *, seed_key: str | None = None) -> None:
        _check_count("repeat", repeat)
        self._searcher = searcher
        self._repeat = repeat
        self._seed_key = seed_key
        #: The trial that stands for a group, by trial; and of each group the configuration and what has come.
        self._leader: dict[str, str] = {}
        self._groups: dict[str, _Group] = {}
        self._open: str | None = None

    def begin(self, space: Any, objective: Objective, seed: int | None) -> None:
        self._objective = objective
        self._searcher.begin(space, objective, seed)

    def suggest(self, trial_id: str, fixed: Mapping[str, Any]) -> dict[str, Any] | None:
        if self._open is None:
            config = self._searcher.suggest(trial_id, fixed)
            if config is None:
                return None
            self._open = trial_id
            self._groups[trial_id] = _Group(config)
        leader = self._open
        group = self._groups[leader]
        self._leader[trial_id] = leader
        number = group.num_begun
        group.num_begun += 1
        if group.num_begun == self._repeat:
            self._open = None
        return group.config if self._seed_key is None else {**group.config, self._seed_key: number}

    def ended(self, trial_id: str, metrics: Mapping[str, Any] | None) -> None:
        leader = self._leader.pop(trial_id)
        group = self._groups[leader]
        group.num_ended += 1
        values = None if metrics is None else self._objective.values(metrics)
        if values is not None:
            group.values.append(values)
        if group.num_ended < self._repeat:
            return
        del self._groups[leader]
        means = [sum(column) / len(column) for column in zip(*group.values, strict=True)]
        self._searcher.ended(leader, dict(zip(self._objective.metrics, means, strict=True)) if means else None)

    def restored(self, trial_id: str, values: Mapping[str, Any], metrics: Mapping[str, Any] | None) -> None:
        self._searcher.restored(trial_id, values, metrics)


class _Group:
    """The trials of one configuration."""

    def __init__(self, config: dict[str, Any]) -> None:
        self.config = config
        self.num_begun = self.num_ended = 0
        self.values: list[list[float]] = []


def _check_count(name: str, value: Any) -> None:
    if not isinstance(value, int) or isinstance(value, bool) or value < 1:
        raise OptionError(f"`{name}` is a whole number from 1 up, not {value!r}.", option=name)
