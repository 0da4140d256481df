"""A sampling profiler inside the process that it looks at.

A thread of its own looks at every other thread's stack again and again. What counts is time on a processor: a thread
that has used less than a fifth of the time since the last look was waiting, and is only counted as such. Looking takes
the interpreter's lock for some ten microseconds; if it ever takes longer, there are fewer looks, so that it never costs
more than :data:`MAX_SHARE` of the time.
"""

from __future__ import annotations

import collections
import os
import sys
import threading
import time
from collections.abc import Collection
from types import FrameType

from shoal.observe.profiles import MAX_RATE, MAX_SECONDS, Samples, pack_stacks
from shoal.runtime.stacks import frames_of

#: Share of the time that looking may take.
MAX_SHARE = 0.05
#: Different stacks that are told apart; more are counted together.
MAX_STACKS = 5_000
#: Threads looked at.
MAX_THREADS = 32
_OTHER = (("(other stacks)", "", 0),)


def sample(seconds: float, rate: float, ignored: Collection[int] = ()) -> Samples:
    """Look at this process's threads *rate* times a second, for some seconds; blocks as long.

    *ignored* are numbers of threads that are not looked at; the calling one never is.
    """
    seconds, rate = min(max(seconds, 0.01), MAX_SECONDS), min(max(rate, 1.0), MAX_RATE)
    counts: collections.Counter[tuple[tuple[str, str, int], ...]] = collections.Counter()
    main = threading.main_thread().ident
    skipped = {*ignored, threading.get_ident()}
    meter = _Meter()
    num_looks = idle = 0
    began = time.monotonic()
    due = began
    while (now := time.monotonic()) < began + seconds:
        worked = time.thread_time()
        native = {thread.ident: thread.native_id for thread in threading.enumerate()}
        native[main] = os.getpid()  # after a fork, Python takes the parent's for it
        # No system call from here on that lets another thread run: what is seen belongs to one moment.
        stacks = [
            (native.get(ident), _stack(frame)) for ident, frame in sys._current_frames().items() if ident not in skipped
        ]
        for native_id, stack in stacks[:MAX_THREADS]:
            is_busy = meter.was_busy(native_id, now)
            if not num_looks:
                continue  # there is nothing yet to compare with
            if is_busy:
                counts[stack if stack in counts or len(counts) < MAX_STACKS else _OTHER] += 1
            else:
                idle += 1
        num_looks += 1
        due = max(due + 1 / rate, now + (time.thread_time() - worked) / MAX_SHARE)
        time.sleep(max(0.0, min(due, began + seconds) - time.monotonic()))
    frames, packed = pack_stacks(counts)
    return Samples(now - began, rate, max(0, num_looks - 1), idle, frames, packed, "the process itself")


def _stack(frame: FrameType) -> tuple[tuple[str, str, int], ...]:
    return tuple((one.f_code.co_qualname, one.f_code.co_filename, one.f_lineno or 0) for one in frames_of(frame))


class _Meter:
    """Tells how much processor time threads have used since they were last asked about."""

    #: Share of the time above which a thread is busy.
    BUSY = 0.2

    def __init__(self) -> None:
        self._last: dict[int, tuple[float, float]] = {}

    def was_busy(self, native_id: int | None, now: float) -> bool:
        """Whether a thread was; True where the system does not say."""
        if native_id is None or sys.platform != "linux":
            return True
        try:
            # A thread's clock, as Linux numbers them; unlike `pthread_getcpuclockid`, safe if the thread has ended.
            used = time.clock_gettime((~native_id << 3) | 6)
        except OSError:
            return True
        before, at = self._last.get(native_id, (used, now))
        self._last[native_id] = used, now
        return used - before > self.BUSY * (now - at)
