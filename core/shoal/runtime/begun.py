"""Which task an executor began last: a note that outlives its process.

An executor that dies takes along what it knew, and how far it got through the tasks sent ahead decides which of
them may run again. So it notes each task's id in a mapped file before it begins: a memory write, which the kernel
keeps however the process ends.
"""

from __future__ import annotations

import mmap
import struct
from pathlib import Path

#: The id, ended by a zero byte; at the end the time.
_NBYTES = 128
_TIME = struct.Struct("d")
_TIME_AT = _NBYTES - _TIME.size


class BegunMark:
    """The note of one executor; written by it, read by its agent after its end."""

    def __init__(self, path: Path) -> None:
        with open(path, "xb+") as file:
            file.truncate(_NBYTES)
            self._map = mmap.mmap(file.fileno(), _NBYTES)

    def write(self, task_id: str, now: float) -> None:
        """Note that this task begins *now* (on the machine's monotonic clock)."""
        _TIME.pack_into(self._map, _TIME_AT, now)
        self._map[: len(task_id) + 1] = task_id.encode() + b"\0"

    @staticmethod
    def read(path: Path) -> str:
        """Return the last note; "" if no task has begun."""
        return path.read_bytes().partition(b"\0")[0].decode()

    @staticmethod
    def read_time(path: Path) -> float:
        """Return when the task of the last note began; 0 if none has, or there is no note."""
        try:
            began: float = _TIME.unpack_from(path.read_bytes(), _TIME_AT)[0]
        except (OSError, struct.error):
            return 0.0
        return began
