"""How long the work of each function took, as a histogram beside those of user code."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Mapping

from shoal.observe.durations import Durations
from shoal.observe.metrics import HISTOGRAM, Change, Definition

#: Each class is four times as long as the one before: a quarter of a millisecond to an hour and more.
DURATIONS = Definition(
    "shoal_task_duration_seconds",
    HISTOGRAM,
    "Time in user code of tasks and actor calls that have ended.",
    ("function",),
    tuple(4.0**exponent for exponent in range(-6, 7)),
)
#: Characters of a function's name that are told.
MAX_CHARS = 200


def duration_changes(found: Mapping[str, tuple[Durations, float]]) -> tuple[Change, ...]:
    """Return how the histogram has changed by what :meth:`FunctionStats.take_durations` has returned."""
    changes = []
    for function, (durations, seconds) in found.items():
        counts = [0] * (len(DURATIONS.boundaries) + 1)
        for _, high, count in durations.classes():
            counts[bisect_left(DURATIONS.boundaries, high)] += count
        changes.append((DURATIONS.name, (function[:MAX_CHARS],), (seconds, *counts)))
    return tuple(changes)


__all__ = ["DURATIONS", "duration_changes"]
