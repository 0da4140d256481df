"""Segments that other machines are reading."""

from __future__ import annotations

import time
from collections import OrderedDict

from shoal.runtime.store import SegmentGone, map_whole

#: Segments kept mapped, and seconds for which one is after it was last read.
MAX_MAPPED, KEEP = 64, 2.0


def map_for_reading(path: str) -> memoryview | None:
    """Map a segment; None if it is gone. May have to wait for a disk, so not on a loop."""
    try:
        return map_whole(path)
    except (SegmentGone, OSError):
        return None


class Lending:
    """Keeps segments mapped between the pieces that readers ask for: each is sent from where it lies.

    What is mapped stays as it is, even if it is freed meanwhile.
    """

    def __init__(self) -> None:
        self._mapped: OrderedDict[str, tuple[memoryview, float]] = OrderedDict()

    def find(self, path: str) -> memoryview | None:
        """Return a segment that is mapped."""
        whole, _ = self._mapped.get(path, (None, 0.0))
        if whole is not None:
            self.keep(path, whole)
        return whole

    def keep(self, path: str, whole: memoryview) -> None:
        """A segment was read, and will be again soon."""
        self._mapped[path] = whole, time.monotonic()
        self._mapped.move_to_end(path)
        self.tend()

    def freed(self, path: str) -> None:
        """Nobody will ask for it any more."""
        self._mapped.pop(path, None)

    def tend(self) -> None:
        """Let go of what was not read for a while."""
        now = time.monotonic()
        while self._mapped:
            path, (_, read_at) = next(iter(self._mapped.items()))
            if now - read_at <= KEEP and len(self._mapped) <= MAX_MAPPED:
                break
            del self._mapped[path]
