"""How long work took: exact counts by size, each class twice as long as the one before."""

from __future__ import annotations

import math
from collections.abc import Iterator

#: Exponents of the shortest and the longest class: 1 µs and three days; beyond them all is one.
FIRST, LAST = -20, 18


class Durations:
    """Counts of seconds. Cheap enough for every task."""

    __slots__ = ("_counts",)

    def __init__(self) -> None:
        self._counts: dict[int, int] = {}

    def add(self, seconds: float) -> None:
        """Count one that took so long."""
        exponent = min(LAST, max(FIRST, math.frexp(seconds)[1])) if seconds > 0 else FIRST
        self._counts[exponent] = self._counts.get(exponent, 0) + 1

    def merge(self, other: Durations) -> None:
        """Count all that *other* has counted."""
        for exponent, count in list(other._counts.items()):
            self._counts[exponent] = self._counts.get(exponent, 0) + count

    def classes(self) -> Iterator[tuple[float, float, int]]:
        """Give each class that has any: seconds from, seconds below which, and how many; the shortest first."""
        for exponent in sorted(self._counts):
            yield math.ldexp(0.5, exponent), math.ldexp(1.0, exponent), self._counts[exponent]

    def __len__(self) -> int:
        return sum(self._counts.values())
