"""When a trial, or the whole run, has done enough."""

from __future__ import annotations

import math
import statistics
import time
from collections import deque
from collections.abc import Callable, Mapping
from typing import Any

from shoal.errors import OptionError


class Stopper:
    """Says after each report whether the trial ends, and whether all do. All calls come from one thread."""

    def should_stop(self, trial_id: str, metrics: Mapping[str, Any]) -> str:
        """Return why the trial ends after this report; "" if it does not."""
        return ""

    def should_stop_all(self) -> str:
        """Return why the run ends; "" if it does not."""
        return ""


class MaximumIteration(Stopper):
    """Ends a trial after so many reports."""

    def __init__(self, max_iter: int) -> None:
        if not isinstance(max_iter, int) or max_iter < 1:
            raise OptionError(f"`max_iter` is a whole number from 1 up, not {max_iter!r}.", option="max_iter")
        self._max_iter = max_iter

    def should_stop(self, trial_id: str, metrics: Mapping[str, Any]) -> str:
        done = metrics["training_iteration"] >= self._max_iter
        return f"it has reported {self._max_iter} times" if done else ""


class Threshold(Stopper):
    """Ends a trial when one of its metrics has reached a value, from below: ``{"accuracy": 0.99, "epoch": 20}``."""

    def __init__(self, thresholds: Mapping[str, float]) -> None:
        self._thresholds = dict(thresholds)

    def should_stop(self, trial_id: str, metrics: Mapping[str, Any]) -> str:
        for name, value in self._thresholds.items():
            if name in metrics and metrics[name] >= value:
                return f"`{name}` has reached {value:g}"
        return ""


class TrialPlateau(Stopper):
    """Ends a trial when a metric has not changed for some reports.

    Parameters
    ----------
    std
        Standard deviation, of the newest *num_results* values, below which the metric counts as unchanged.
    grace_period
        Reports before which a trial is not ended.
    """

    def __init__(self, metric: str, *, std: float = 0.01, num_results: int = 4, grace_period: int = 4) -> None:
        self._metric, self._std = metric, std
        self._num_results, self._grace_period = num_results, grace_period
        self._values: dict[str, deque[float]] = {}

    def should_stop(self, trial_id: str, metrics: Mapping[str, Any]) -> str:
        value = metrics.get(self._metric)
        if not isinstance(value, (int, float)) or value != value:
            return ""
        values = self._values.setdefault(trial_id, deque(maxlen=self._num_results))
        values.append(float(value))
        is_flat = len(values) == self._num_results and statistics.pstdev(values) < self._std
        if is_flat and metrics["training_iteration"] >= self._grace_period:
            return f"`{self._metric}` has not changed for {self._num_results} reports"
        return ""


class ExperimentPlateau(Stopper):
    """Ends the run when the best value of a metric has not become better for *patience* trials that have ended."""

    def __init__(self, metric: str, *, mode: str = "min", patience: int = 10, tolerance: float = 0.0) -> None:
        if mode not in ("min", "max"):
            raise OptionError(f"`mode` is `min` or `max`, not {mode!r}.", option="mode")
        self._metric, self._sign = metric, 1 if mode == "max" else -1
        self._patience, self._tolerance = patience, tolerance
        self._best = -math.inf
        #: Trials that have reported since the best became better.
        self._since: set[str] = set()

    def should_stop(self, trial_id: str, metrics: Mapping[str, Any]) -> str:
        value = metrics.get(self._metric)
        if isinstance(value, (int, float)) and value == value and self._sign * value > self._best + self._tolerance:
            self._best = self._sign * value
            self._since.clear()
        else:
            self._since.add(trial_id)
        return ""

    def should_stop_all(self) -> str:
        if len(self._since) < self._patience:
            return ""
        return f"`{self._metric}` has not become better for {self._patience} trials"


class Timeout(Stopper):
    """Ends the run after so many seconds."""

    def __init__(self, seconds: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._seconds, self._clock = seconds, clock
        self._began: float | None = None

    def should_stop_all(self) -> str:
        if self._began is None:
            self._began = self._clock()
        return f"its {self._seconds:g} s are over" if self._clock() - self._began >= self._seconds else ""


class FunctionStopper(Stopper):
    """Ends a trial when ``function(trial_id, metrics)`` is true."""

    def __init__(self, function: Callable[[str, Mapping[str, Any]], bool]) -> None:
        self._function = function

    def should_stop(self, trial_id: str, metrics: Mapping[str, Any]) -> str:
        return f"`{getattr(self._function, '__name__', 'stop')}` says so" if self._function(trial_id, metrics) else ""


class Combined(Stopper):
    """Ends what one of several stoppers ends."""

    def __init__(self, *stoppers: Stopper) -> None:
        self._stoppers = stoppers

    def should_stop(self, trial_id: str, metrics: Mapping[str, Any]) -> str:
        reasons = [stopper.should_stop(trial_id, metrics) for stopper in self._stoppers]
        return next(filter(None, reasons), "")

    def should_stop_all(self) -> str:
        return next(filter(None, (stopper.should_stop_all() for stopper in self._stoppers)), "")


def make_stopper(stop: Any) -> Stopper:
    """Return the stopper that users mean by a mapping of thresholds, a function, a stopper, a list of these, or None.

    Raises
    ------
    OptionError
        It is none of these.
    """
    if stop is None:
        return Stopper()
    if isinstance(stop, Stopper):
        return stop
    if isinstance(stop, Mapping):
        return Threshold(stop)
    if isinstance(stop, (list, tuple)):
        return Combined(*map(make_stopper, stop))
    if callable(stop):
        return FunctionStopper(stop)
    raise OptionError(f"`stop` is a mapping, a function or a stopper, not {stop!r}.", option="stop")
