"""How long work took: exact counts by size, each class twice as long as the one before."""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Iterator
from math import frexp

#: Exponents of the shortest and the longest class: 1 µs and three days; beyond them all is one.
FIRST, LAST = -20, 18
#: Stands for no time at all: less than any clock sees.
LEAST = 1e-300


class Durations:
    """Counts of seconds. Cheap enough for every task."""

    __slots__ = ("_counts",)

    def __init__(self) -> None:
        self._counts: defaultdict[int, int] = defaultdict(int)

    def add(self, seconds: float) -> None:
        """Count one that took so long."""
        # Classes that are too short or too long are put together when somebody looks.
        self._counts[frexp(seconds or LEAST)[1]] += 1

    def merge(self, other: Durations) -> None:
        """Count all that *other* has counted."""
        for exponent, count in list(other._counts.items()):
            self._counts[exponent] += count

    def merge_news(self, other: Durations, merged: Durations) -> None:
        """Count what *other* has counted beyond *merged*, which has it then, too."""
        for exponent, count in list(other._counts.items()):
            more = count - merged._counts[exponent]
            if more:
                merged._counts[exponent] = count
                self._counts[exponent] += more

    def classes(self) -> Iterator[tuple[float, float, int]]:
        """Give each class that has any: seconds from, seconds below which, and how many; the shortest first."""
        counts = Counter[int]()
        for exponent, count in list(self._counts.items()):
            counts[min(LAST, max(FIRST, exponent))] += count
        for exponent in sorted(counts):
            yield math.ldexp(0.5, exponent), math.ldexp(1.0, exponent), counts[exponent]

    def __len__(self) -> int:
        return sum(self._counts.values())
