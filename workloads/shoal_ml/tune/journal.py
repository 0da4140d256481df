"""The journal of a run: every event, one line of JSON each, appended as it happens.

What is written has been given to the system, so the end of the process costs nothing of it; the end of the machine
costs a second at most. A line that was torn by a full disk or the end of the machine is the last one, and is cut off.
Nothing in a journal is pickled.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from shoal.errors import ShoalError

#: The layout; others are refused.
VERSION = 1
FILE = "journal.jsonl"
#: Seconds between two times that the disk is asked to have it for good.
SYNC_SECONDS = 1.0


class JournalError(ShoalError, ValueError):
    """A journal cannot be read or written, or belongs to something else."""


class Journal:
    """The journal in a directory, for the one who writes it."""

    def __init__(self, directory: Path) -> None:
        """Open it, or begin it; a torn last line is cut off.

        Raises
        ------
        JournalError
            Another process is writing it.
        OSError
            It cannot be written.
        """
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        self.path = directory / FILE
        self._descriptor = os.open(self.path, os.O_CREAT | os.O_RDWR | os.O_APPEND | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            os.close(self._descriptor)
            raise JournalError(f"Another process is writing the run in `{directory}`.") from None
        os.ftruncate(self._descriptor, _end_of_lines(self.path))
        self._synced = time.monotonic()

    def write(self, event: str, **facts: Any) -> None:
        """Append an event.

        Raises
        ------
        OSError
            The disk is full, say. What was written of the line is taken back.
        """
        line = json.dumps({"event": event, "time": round(time.time(), 3), **facts}, default=_plain, allow_nan=True)
        data = line.encode() + b"\n"
        size = os.lseek(self._descriptor, 0, os.SEEK_END)
        try:
            written = os.write(self._descriptor, data)
            if written < len(data):
                raise OSError(f"only {written} of {len(data)} bytes could be written")
        except OSError:
            with contextlib.suppress(OSError):
                os.ftruncate(self._descriptor, size)
            raise
        now = time.monotonic()
        if now - self._synced > SYNC_SECONDS:
            os.fdatasync(self._descriptor)
            self._synced = now

    def close(self) -> None:
        """Close it; harmless the second time."""
        if self._descriptor >= 0:
            os.fsync(self._descriptor)
            os.close(self._descriptor)
            self._descriptor = -1


def read_journal(directory: Path) -> Iterator[dict[str, Any]]:
    """Give the events of a journal in order.

    Raises
    ------
    JournalError
        There is none, it is of another version, or a line within it cannot be read.
    """
    path = directory / FILE
    try:
        lines = path.read_bytes().split(b"\n")
    except OSError as error:
        raise JournalError(f"`{directory}` holds no run: {error.strerror}.") from None
    for number, line in enumerate(lines[:-1], 1):  # what is behind the last newline is torn, or nothing
        try:
            event = json.loads(line)
            if not isinstance(event, dict) or "event" not in event:
                raise ValueError("it is no event")
        except ValueError as error:
            raise JournalError(f"Line {number} of `{path}` cannot be read: {error}.") from None
        if event["event"] == "run" and event.get("version") != VERSION:
            raise JournalError(f"`{path}` has version {event.get('version')}; this shoal reads {VERSION}.")
        yield event


def _end_of_lines(path: Path) -> int:
    with open(path, "rb") as file:
        file.seek(0, os.SEEK_END)
        size = position = file.tell()
        while position > 0:
            start = max(0, position - 65536)
            file.seek(start)
            found = file.read(position - start).rfind(b"\n")
            if found >= 0:
                return start + found + 1
            position = start
    return 0 if size else size


def _plain(value: Any) -> Any:
    """Return what JSON has no form for as the nearest that it has."""
    if hasattr(value, "tolist"):  # numpy's and torch's numbers and arrays
        return value.tolist()
    if hasattr(value, "item"):
        return value.item()
    return repr(value)
