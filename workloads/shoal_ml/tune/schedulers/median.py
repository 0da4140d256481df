"""The median stopping rule of Google Vizier.

Golovin et al., "Google Vizier: A Service for Black-Box Optimization", KDD 2017, section 3.2.2: a trial is stopped when
its best result so far is worse than the median of the running averages of the others up to the same time.
"""

from __future__ import annotations

import statistics
from collections.abc import Mapping
from typing import Any

from shoal.errors import OptionError
from shoal_ml.tune.schedulers.scheduler import CONTINUE, Decision, Stop, TrialScheduler


class MedianStopping(TrialScheduler):
    """See the module's description.

    Parameters
    ----------
    grace_period
        Time before which no trial is stopped.
    min_samples
        Other trials that have to have come as far for a comparison.
    """

    def __init__(
        self, *, time_attr: str = "training_iteration", grace_period: float = 10, min_samples: int = 3
    ) -> None:
        super().__init__(time_attr=time_attr)
        if not isinstance(min_samples, int) or min_samples < 1:
            raise OptionError(f"`min_samples` is a whole number from 1 up, not {min_samples!r}.", option="min_samples")
        self._grace_period = grace_period
        self._min_samples = min_samples
        self._reports: dict[str, list[tuple[float, float]]] = {}

    def added(self, trial_id: str, config: Mapping[str, Any]) -> None:
        self._reports[trial_id] = []

    def reported(self, trial_id: str, metrics: Mapping[str, Any]) -> Decision:
        time, score = self.time(metrics), self.score(metrics)
        if score is not None:
            self._reports[trial_id].append((time, score))
        mine = self._reports[trial_id]
        if time < self._grace_period or not mine:
            return CONTINUE
        averages = [
            statistics.fmean(value for at, value in reports if at <= time)
            for other, reports in self._reports.items()
            if other != trial_id and reports and reports[-1][0] >= time
        ]
        if len(averages) < self._min_samples:
            return CONTINUE
        median = statistics.median(averages)
        best = max(value for _, value in mine)
        if best < median:
            return Stop(
                f"its best is worse than the median of {len(averages)} others at {time:g} of `{self.time_attr}`"
            )
        return CONTINUE

    def failed(self, trial_id: str) -> None:
        self._reports.pop(trial_id, None)
