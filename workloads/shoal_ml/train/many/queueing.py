"""Which fits are sent next, and how many together: small ones in chunks that take as long as sending pays for.

A machine without IO: :class:`FitQueue` is told what became of chunks and says what to send.
"""

from __future__ import annotations

import dataclasses
import math
from collections import deque
from collections.abc import Sequence
from typing import NamedTuple

#: Seconds of work in one chunk: long beside what sending it costs, short beside a person's patience.
CHUNK_SECONDS = 0.05
#: Fits in one chunk at most, and how much larger a chunk may be than the one before.
MAX_CHUNK, GROWTH = 2_000, 4
#: Chunks under way at once.
MAX_IN_FLIGHT = 64
#: How often a fit may end its process before it counts as failed.
MAX_CRASHES = 2


class Place(NamedTuple):
    """What the fits of a chunk have in common: the trainer's name, and the number of the block with their rows."""

    trainer: str
    block: int


@dataclasses.dataclass(slots=True)
class Chunk:
    """Fits that are sent together, by their numbers."""

    place: Place
    fits: list[int]


class FitQueue:
    """See the module's description.

    Invariant: each fit is waiting, in exactly one chunk under way, or ended.
    """

    def __init__(self, places: Sequence[Place], *, retries: int = 0, max_in_flight: int = MAX_IN_FLIGHT) -> None:
        """*places* has one item for each fit; *retries* is how often a fit that has raised is tried again."""
        self._places = places
        self._retries = retries
        self._max_in_flight = max_in_flight
        #: Fits that wait, by what a chunk of them has in common, in the order in which they are begun.
        self._lanes: dict[Place, deque[int]] = {}
        for number, place in enumerate(places):
            self._lanes.setdefault(place, deque()).append(number)
        #: Fits that have ended their process: they go alone.
        self._suspects: deque[int] = deque()
        self._sizes: dict[str, int] = {}
        self._crashes: dict[int, int] = {}
        #: How often a fit has raised.
        self._errors: dict[int, int] = {}
        self.num_under_way = 0

    @property
    def is_over(self) -> bool:
        """Whether nothing waits and nothing is under way."""
        return not (self._lanes or self._suspects or self.num_under_way)

    def next_chunk(self) -> Chunk | None:
        """Return what to send now; None if that is nothing, or enough is under way."""
        if self.num_under_way >= self._max_in_flight:
            return None
        if self._suspects:
            number = self._suspects.popleft()
            chunk = Chunk(self._places[number], [number])
        elif self._lanes:
            place, lane = next(iter(self._lanes.items()))
            size = min(self._sizes.get(place.trainer, 1), len(lane))
            chunk = Chunk(place, [lane.popleft() for _ in range(size)])
            if not lane:
                del self._lanes[place]
        else:
            return None
        self.num_under_way += 1
        return chunk

    def ended(self, chunk: Chunk, seconds: float, failed: Sequence[int]) -> list[int]:
        """A chunk has come back after *seconds* of work; returns which of the *failed* fits have failed for good."""
        self.num_under_way -= 1
        size = self._sizes.get(chunk.place.trainer, 1)
        wanted = math.ceil(CHUNK_SECONDS / max(seconds / len(chunk.fits), 1e-7))
        self._sizes[chunk.place.trainer] = max(1, min(wanted, size * GROWTH, MAX_CHUNK))
        for_good = []
        for number in failed:
            self._errors[number] = self._errors.get(number, 0) + 1
            if self._errors[number] > self._retries:
                for_good.append(number)
            else:
                self._lanes.setdefault(chunk.place, deque()).append(number)
        return for_good

    def crashed(self, chunk: Chunk) -> list[int]:
        """The process of a chunk has died; returns the fits that have failed by it: those that were alone in it twice.

        The others are sent again one by one, so that one bad fit does not take its neighbours along.
        """
        self.num_under_way -= 1
        if len(chunk.fits) > 1:
            self._suspects.extend(chunk.fits)
            return []
        (number,) = chunk.fits
        self._crashes[number] = self._crashes.get(number, 0) + 1
        if self._crashes[number] >= MAX_CRASHES:
            return [number]
        self._suspects.append(number)
        return []

    def attempts(self, number: int) -> int:
        """Return how often a fit has been tried that has failed."""
        return self._errors.get(number, 0) + self._crashes.get(number, 0)
