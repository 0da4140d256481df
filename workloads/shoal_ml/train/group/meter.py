"""What a rank measures of itself between two reports."""

from __future__ import annotations

import time
from typing import TypedDict

import psutil


class Lap(TypedDict):
    """From one report to the next."""

    #: Seconds that passed, those in ``report`` not counted.
    seconds: float
    #: Bytes of memory in use.
    rss: float
    #: Rows that went through data loaders and shards.
    num_rows: float


class Meter:
    """The watch of one rank."""

    def __init__(self) -> None:
        self._process = psutil.Process()
        self._num_rows = 0
        self._began = time.perf_counter()

    def count(self, num_rows: int) -> None:
        """Count rows that the loop takes."""
        self._num_rows += num_rows

    def lap(self) -> Lap:
        """Return what was measured since the last :meth:`restart`."""
        seconds = time.perf_counter() - self._began
        return Lap(seconds=seconds, rss=float(self._process.memory_info().rss), num_rows=float(self._num_rows))

    def restart(self) -> None:
        """Begin anew."""
        self._num_rows = 0
        self._began = time.perf_counter()
