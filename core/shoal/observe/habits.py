"""How a process uses its cluster, so that somebody may tell its user of a better way.

Counted only where work takes far longer than counting: where a value is waited for, and where an argument of a
megabyte or more is copied. What tasks take is counted by function already (:mod:`shoal.observe.functions`).
"""

from __future__ import annotations

import dataclasses
import threading
import zlib
from collections.abc import Sequence

#: Bytes from which on an argument is worth a look.
LARGE = 1_000_000
#: Places in a large argument that are compared, and bytes at each.
_SAMPLES, _SAMPLE_NBYTES = 16, 1024
#: Different large arguments that are told apart; what comes after them is not counted.
_MAX_DIFFERENT = 1_000


@dataclasses.dataclass(frozen=True, slots=True)
class Repeat:
    """Calls of one function that all had the same large argument."""

    function: str
    nbytes: int
    times: int


@dataclasses.dataclass(frozen=True, slots=True)
class Facts:
    """What was counted.

    Attributes
    ----------
    lone_waits, lone_seconds
        How often, and how long, one value was waited for while no other work was under way.
    most_pending
        The most values that were waited for at once.
    repeats
        Large arguments that were sent more than once.
    """

    lone_waits: int = 0
    lone_seconds: float = 0.0
    most_pending: int = 0
    repeats: tuple[Repeat, ...] = ()


class Habits:
    """Counts, until somebody takes what was counted. On any thread."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._facts = Facts()
        self._sent: dict[tuple[str, int, int], int] = {}

    def waited(self, num_values: int, seconds: float, *, alone: bool) -> None:
        """Values were waited for; *alone* if no work was under way when they had come."""
        with self._lock:
            facts = self._facts
            lone = alone and num_values == 1
            self._facts = Facts(
                facts.lone_waits + lone,
                facts.lone_seconds + (seconds if lone else 0.0),
                max(facts.most_pending, num_values),
            )

    def sent(self, function: str, buffers: Sequence[bytes | bytearray | memoryview]) -> None:
        """Arguments were copied whose large arrays are *buffers*."""
        for buffer in buffers:
            view = memoryview(buffer).cast("B")
            if view.nbytes < LARGE:
                continue
            key = (function, view.nbytes, _sample(view))
            with self._lock:
                if key in self._sent or len(self._sent) < _MAX_DIFFERENT:
                    self._sent[key] = self._sent.get(key, 0) + 1

    def take(self) -> Facts:
        """Return what was counted since last time."""
        with self._lock:
            facts, self._facts = self._facts, Facts()
            sent, self._sent = self._sent, {}
        repeats = (Repeat(function, nbytes, times) for (function, nbytes, _), times in sent.items() if times > 1)
        return dataclasses.replace(facts, repeats=tuple(sorted(repeats, key=lambda r: -r.nbytes * r.times)))


def _sample(view: memoryview) -> int:
    """Return a checksum of places all over *view*: an array that was changed meanwhile is another one."""
    checksum = 0
    for number in range(_SAMPLES):
        start = number * (view.nbytes - _SAMPLE_NBYTES) // (_SAMPLES - 1)
        checksum = zlib.crc32(view[start : start + _SAMPLE_NBYTES], checksum)
    return checksum
