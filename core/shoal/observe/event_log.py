"""A cluster's log on disk, from which it can be examined when it has ended.

A log is a directory with two files that take turns: when one is full, the other is begun anew, so that a log never
grows beyond a limit and always holds the newest. A file is a sequence of *frames*: how long the content is, the version
of the layout, the kind of content, a checksum and the time, then the content, compressed. Each file begins with what is
needed to read it without the other. Frames are written as they come, so what a process leaves that was killed ends, at
worst, within a frame; whoever reads it (:mod:`shoal.observe.logged`) stops there.

Whoever appends is never held up: frames wait in memory for a thread that compresses and writes them. A disk that is
full or cannot be written to costs the frames and is reported once.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import struct
import threading
import time
import zlib
from collections import deque
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgpack

#: The layout of frames; frames of another are not read.
VERSION = 1
#: Length of the content, version, kind, Unix seconds, checksum of all that and the content.
HEAD = struct.Struct("<IBBdI")
#: Kinds of content: about the cluster and the file; a snapshot; ``(owner, number of records, packed records)``;
#: the node of each executor; rows of events; nothing, at an orderly end.
ABOUT, SNAPSHOT, RECORDS, EXECUTORS, EVENTS, END = range(1, 7)
#: Bytes of a log, and of frames that wait to be written.
MAX_NBYTES, MAX_WAITING_NBYTES = 16 << 20, 8 << 20
#: Seconds for which frames are gathered: what the end of the machine or of the process may cost.
INTERVAL = 0.5
#: Logs of ended clusters that are kept.
MAX_LOGS = 10
#: Executors and events that a new file takes over from the one before.
MAX_EXECUTORS, MAX_EVENTS = 20_000, 200
#: Names of the files.
FILES, LOCK = ("log.0", "log.1"), "alive"


class EventLog:
    """The log of a cluster that runs, for whoever writes it.

    Call order: construct, :meth:`append` as you like, then :meth:`close`. ``append`` may be called on any thread, and
    neither waits nor raises. The directory is made by the writing thread.

    Parameters
    ----------
    directory
        Where the files are to be.
    about
        What each file begins with: plain data.
    on_trouble
        Called once, on whatever thread, with a reason why frames are lost. It must be quick.
    """

    def __init__(
        self, directory: Path, about: dict[str, Any], on_trouble: Callable[[str], None], max_nbytes: int = MAX_NBYTES
    ) -> None:
        self.directory = directory
        self._about = about
        self._on_trouble = on_trouble
        self._half = max_nbytes // 2
        self._frames: deque[tuple[int, Any, float]] = deque()
        self._waiting_nbytes = 0
        self._lock = threading.Lock()
        self._due = threading.Event()
        self._closing = threading.Event()
        #: Batches of records that found no room in memory.
        self.num_dropped = 0
        self._troubled = False
        self._alive = -1
        self._files = _Files(directory)
        self._number = 0
        #: What a new file takes over.
        self._snapshot: Any = None
        self._executors: dict[str, str] = {}
        self._events: deque[Any] = deque(maxlen=MAX_EVENTS)
        self._thread = threading.Thread(target=self._run, name="shoal-event-log", daemon=True)
        self._thread.start()

    def append(self, kind: int, content: Any) -> None:
        """Have *content*, plain data that nobody changes any more, written soon."""
        nbytes = len(content[2]) if kind == RECORDS else 0
        with self._lock:
            has_room = self._waiting_nbytes + nbytes <= MAX_WAITING_NBYTES
            if has_room:
                self._waiting_nbytes += nbytes
                self._frames.append((kind, content, time.time()))
            else:
                self.num_dropped += 1
        if has_room:
            self._due.set()
        else:
            self._trouble("the disk is too slow")

    def close(self, timeout: float = 2.0) -> None:
        """Write what waits and the end, within *timeout* seconds; harmless the second time."""
        if not self._closing.is_set():
            self.append(END, None)
            self._closing.set()
            self._due.set()
        self._thread.join(timeout)

    # -- on the writing thread -----------------------------------------------------------------------------------

    def _run(self) -> None:
        try:
            while True:
                self._due.wait()
                closing = self._closing.wait(INTERVAL)
                self._due.clear()
                self._write(self._take())
                if closing:
                    return
        finally:
            self._files.close()
            if self._alive >= 0:
                os.close(self._alive)

    def _take(self) -> list[tuple[int, Any, float]]:
        with self._lock:
            frames = list(self._frames)
            self._frames.clear()
            self._waiting_nbytes = 0
        return frames

    def _write(self, frames: list[tuple[int, Any, float]]) -> None:
        try:
            if self._alive < 0:
                self._begin()
            for kind, content, now in frames:
                self._remember(kind, content)
                frame = make_frame(kind, content, now)
                if self._files.nbytes == 0 or self._files.nbytes + len(frame) > self._half:
                    self._turn(now)
                    if kind in (SNAPSHOT, EXECUTORS):
                        continue  # the new file has begun with it
                self._files.write(frame)
        except OSError as error:
            self._files.undo()
            self._trouble(str(error.strerror or error))

    def _trouble(self, reason: str) -> None:
        if not self._troubled:
            self._troubled = True
            self._on_trouble(f"the event log in {self.directory} is incomplete: {reason}")

    def _begin(self) -> None:
        self.directory.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        self.directory.mkdir(mode=0o700, exist_ok=True)
        self._alive = os.open(self.directory / LOCK, os.O_CREAT | os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        fcntl.flock(self._alive, fcntl.LOCK_EX)  # free, but for a moment in which somebody looks whether it is
        remove_old_logs(self.directory.parent)

    def _turn(self, now: float) -> None:
        """Begin the other file; the same again if that fails."""
        number = self._number + 1
        self._files.begin(FILES[number % 2])
        beginning = [
            (ABOUT, {**self._about, "file": number}),
            (SNAPSHOT, self._snapshot),
            (EXECUTORS, self._executors),
            (EVENTS, list(self._events)),
        ]
        self._files.write(b"".join(make_frame(kind, content, now) for kind, content in beginning if content))
        self._number = number

    def _remember(self, kind: int, content: Any) -> None:
        if kind == SNAPSHOT:
            self._snapshot = content
        elif kind == EXECUTORS:
            self._executors |= content
            for executor_id in list(self._executors)[:-MAX_EXECUTORS]:
                del self._executors[executor_id]
        elif kind == EVENTS:
            self._events.extend(content)


class _Files:
    """The file of the two that is being written."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._descriptor = -1
        #: Whole frames in it.
        self.nbytes = 0

    def begin(self, name: str) -> None:
        self.close()
        flags = os.O_CREAT | os.O_WRONLY | os.O_TRUNC | os.O_APPEND | os.O_CLOEXEC | os.O_NOFOLLOW
        self._descriptor = os.open(self._directory / name, flags, 0o600)

    def write(self, frames: bytes) -> None:
        left = memoryview(frames)
        while left:
            left = left[os.write(self._descriptor, left) :]
        self.nbytes += len(frames)

    def undo(self) -> None:
        """Cut off what was written of a frame that did not fit; if that cannot be, the other file is next."""
        try:
            if self._descriptor >= 0:
                os.ftruncate(self._descriptor, self.nbytes)
        except OSError:
            self.close()

    def close(self) -> None:
        if self._descriptor >= 0:
            os.close(self._descriptor)
        self._descriptor, self.nbytes = -1, 0


def make_frame(kind: int, content: Any, now: float) -> bytes:
    """Return one frame of a file."""
    packed = zlib.compress(msgpack.packb(content, unicode_errors="surrogatepass"), 1)
    return HEAD.pack(len(packed), VERSION, kind, now, checksum_of(packed, kind, now)) + packed


def checksum_of(packed: bytes, kind: int, now: float) -> int:
    """Return the checksum of a frame with this content."""
    return zlib.crc32(packed, zlib.crc32(HEAD.pack(len(packed), VERSION, kind, now, 0)))


def is_written(directory: Path) -> bool:
    """Whether the cluster of the log in *directory* still runs and writes it."""
    try:
        lock = os.open(directory / LOCK, os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW)
    except OSError:
        return False
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return True
    finally:
        os.close(lock)
    return False


def logs_in(root: Path) -> list[Path]:
    """Return the directories of logs in *root*, the newest first; whatever else is there is left alone."""
    found = []
    with contextlib.suppress(OSError):
        for directory in root.iterdir():
            times = []
            for name in FILES:
                with contextlib.suppress(OSError):
                    times.append(os.lstat(directory / name).st_mtime)
            if times and not directory.is_symlink():
                found.append((max(times), directory))
    return [directory for _, directory in sorted(found, reverse=True)]


def remove_old_logs(root: Path, keep: int = MAX_LOGS) -> None:
    """Remove all logs of ended clusters but the newest; of what else is in their directories, nothing."""
    ended = [directory for directory in logs_in(root) if not is_written(directory)]
    for directory in ended[keep:]:
        with contextlib.suppress(OSError):
            for name in (*FILES, LOCK):
                (directory / name).unlink(missing_ok=True)
            directory.rmdir()
