"""Population based training: the worst go on from the best, with what these chose, a little changed.

Jaderberg et al., "Population Based Training of Neural Networks", 2017, with truncation selection for *exploit* and
perturbation or resampling for *explore*.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from shoal.errors import OptionError
from shoal_ml.tune.schedulers.scheduler import CONTINUE, PAUSE, Decision, Exploit, TrialScheduler
from shoal_ml.tune.space import Choice, Domain, Float, Integer, Normal

#: What a parameter may become: a domain, a list of values, or a function that draws one.
Mutation = Domain | Sequence[Any] | Callable[[], Any]


class PBT(TrialScheduler):
    """See the module's description.

    Parameters
    ----------
    perturbation_interval
        Time between two comparisons of a trial.
    mutations
        What may change, by its name in the configuration (``"optimizer.lr"`` for a nested one): a domain, a list of
        values, of which a neighbour is taken, or a function that draws a value.
    quantile
        Share of the trials, from below, that go on from one of as many from above; up to 0.5.
    resample_probability
        How often a value is drawn anew rather than changed.
    factors
        By which of these numbers a value is multiplied otherwise, each as likely.
    """

    def __init__(
        self,
        mutations: Mapping[str, Mutation],
        *,
        time_attr: str = "training_iteration",
        perturbation_interval: float = 10,
        quantile: float = 0.25,
        resample_probability: float = 0.25,
        factors: Sequence[float] = (1.2, 0.8),
    ) -> None:
        super().__init__(time_attr=time_attr)
        if not mutations:
            raise OptionError("`mutations` names at least one parameter that may change.", option="mutations")
        if not 0 < quantile <= 0.5:
            raise OptionError(f"`quantile` is above 0 and at most 0.5, not {quantile!r}.", option="quantile")
        if not 0 <= resample_probability <= 1:
            raise OptionError(
                f"`resample_probability` is between 0 and 1, not {resample_probability!r}.",
                option="resample_probability",
            )
        if not perturbation_interval > 0:
            raise OptionError(
                f"`perturbation_interval` is above 0, not {perturbation_interval!r}.", option="perturbation_interval"
            )
        self.mutations = dict(mutations)
        self._interval = perturbation_interval
        self._quantile = quantile
        self._resample_probability = resample_probability
        self._factors = tuple(factors)
        #: Of each living trial: configuration, when it was compared last, and its score then.
        self.members: dict[str, Member] = {}

    def added(self, trial_id: str, config: Mapping[str, Any]) -> None:
        for path in self.mutations:
            lookup(config, path)
        self.members[trial_id] = Member(dict(config))

    def reported(self, trial_id: str, metrics: Mapping[str, Any]) -> Decision:
        member = self.members[trial_id]
        time = self.time(metrics)
        if time - member.compared_at < self._interval:
            return CONTINUE
        member.compared_at = time
        member.score = self.score(metrics)
        self.compared(trial_id, time)
        lower, upper = self._quantiles()
        if trial_id not in lower:
            return PAUSE if self._has_to_wait(time) else CONTINUE
        source = self.rng.choice(upper)
        config = self.explore(self.members[source].config, time)
        member.config = config
        return Exploit(source, copy.deepcopy(config))

    def next_paused(self, paused: Sequence[str], can_wait: bool) -> str | None:
        """Return the one that is farthest behind, when all have begun."""
        if not paused or (self.num_pending and can_wait):
            return None
        return min(paused, key=lambda trial_id: self.members[trial_id].compared_at)

    def ended(self, trial_id: str, metrics: Mapping[str, Any]) -> None:
        # nobody becomes a clone of what has ended
        self.failed(trial_id)

    def failed(self, trial_id: str) -> None:
        self.members.pop(trial_id, None)

    def compared(self, trial_id: str, time: float) -> None:
        """A member has a new score. For those who learn from it."""

    def explore(self, config: Mapping[str, Any], time: float) -> dict[str, Any]:
        """Return a configuration near one that did well."""
        found = copy.deepcopy(dict(config))
        for path, mutation in self.mutations.items():
            assign(found, path, self._mutated(lookup(found, path), mutation))
        return found

    def _has_to_wait(self, time: float) -> bool:
        """Whether there is no room for all, and others are behind: a population is compared at about the same time."""
        if not (self.num_pending or self.num_paused):
            return False
        return bool(self.num_pending) or any(member.compared_at < time for member in self.members.values())

    def _quantiles(self) -> tuple[list[str], list[str]]:
        """Return the members that are worst and best, as many of each."""
        scored = [name for name, member in self.members.items() if member.score is not None]
        scored.sort(key=lambda name: self.members[name].score or 0.0)
        count = min(math.ceil(len(scored) * self._quantile), len(scored) // 2)
        return (scored[:count], scored[-count:]) if count else ([], [])

    def _mutated(self, value: Any, mutation: Mutation) -> Any:
        if self.rng.random() < self._resample_probability:
            return self._drawn(mutation)
        options = _options(mutation)
        if options is not None and value in options:
            position = options.index(value) + self.rng.choice((-1, 1))
            return options[min(max(position, 0), len(options) - 1)]
        if options is not None or isinstance(value, bool) or not isinstance(value, (int, float)):
            return self._drawn(mutation)
        return _fitted(value * self.rng.choice(self._factors), value, mutation)

    def _drawn(self, mutation: Mutation) -> Any:
        """Return a value at random."""
        options = _options(mutation)
        if options is not None:
            return self.rng.choice(options)
        return mutation.sample(self.rng) if isinstance(mutation, Domain) else mutation()  # type: ignore[operator]


class Member:
    """A living trial of the population."""

    def __init__(self, config: dict[str, Any]) -> None:
        self.config = config
        self.compared_at = 0.0
        self.score: float | None = None


def lookup(config: Mapping[str, Any], path: str) -> Any:
    """Return the value at a path such as ``optimizer.lr``.

    Raises
    ------
    OptionError
        There is none.
    """
    value: Any = config
    for key in path.split("."):
        if not isinstance(value, Mapping) or key not in value:
            raise OptionError(
                f"`mutations` names `{path}`, which the configuration has not: {dict(config)}.", option="mutations"
            )
        value = value[key]
    return value


def assign(config: dict[str, Any], path: str, value: Any) -> None:
    """Set the value at a path."""
    *parents, last = path.split(".")
    for key in parents:
        config = config[key]
    config[last] = value


def _options(mutation: Mutation) -> Sequence[Any] | None:
    if isinstance(mutation, Choice):
        return mutation.options
    return mutation if isinstance(mutation, Sequence) else None


def _fitted(value: float, before: Any, mutation: Mutation) -> Any:
    """Return a changed number within its domain, whole if it was whole."""
    if isinstance(mutation, Integer) or (isinstance(before, int) and not isinstance(mutation, (Float, Normal))):
        value = round(value)
    if isinstance(mutation, Integer):
        return min(max(value, mutation.low), mutation.high)
    return mutation.rounded(value) if isinstance(mutation, Float) else value
