"""What an executor has printed, on its node's disk: two files that take turns, of pieces that are lines of JSON.

One piece holds what one task printed to one stream within a moment, so that a thousand lines cost one write. Whole
lines go in: what a task has printed of a line waits for its end, for :data:`PATIENCE` seconds. A file is named after
its place in everything the executor has ever printed, and the older of two goes when a third begins, so that the
*position* of a line stays the same as long as it is kept. A piece that is torn (full disk, ``kill -9``) is skipped.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import time
from collections import deque
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

#: Bytes of one file, of which an executor has two.
MAX_FILE = 512 * 1024
#: Lines and characters of one piece at most; longer lines are cut.
MAX_LINES, MAX_CHARS = 100, 16 * 1024
#: Seconds that a line may stay without an end before it is written as it is.
PATIENCE = 1.0
#: A position is a piece's, times this, and the number of the line in it.
_STRIDE = 1 << 10
#: The streams: of Python's two, and what the process wrote to descriptors 1 and 2 (subprocesses, C code, last words).
STDOUT, STDERR, PROCESS = "stdout", "stderr", "process"
#: Not printed by anybody: says what is missing.
GAP = "gap"


class Source(NamedTuple):
    """Who printed: the task or call with its function and cell, and the actor; each "" if there is none."""

    task_id: str = ""
    function: str = ""
    cell: str = ""
    actor: str = ""


class LogLine(NamedTuple):
    """One line that was printed.

    Attributes
    ----------
    time
        When, in Unix seconds.
    stream
        ``stdout`` or ``stderr`` of a task or call; ``process`` for what subprocesses and C code have written there;
        ``gap`` if the line only says what is missing.
    text
        The line.
    task_id, function, cell, actor
        Whose it is; each "" if it is nobody's.
    executor
        The process it was printed in.
    """

    time: float
    stream: str
    text: str
    task_id: str
    function: str
    cell: str
    actor: str
    executor: str

    def __str__(self) -> str:
        clock = time.strftime("%H:%M:%S", time.localtime(self.time))
        who = self.function or (self.executor if self.stream != "gap" else "")
        stream = "" if self.stream in ("stdout", "gap") else f" [{self.stream}]"
        return f"{clock}.{int(self.time * 1000) % 1000:03d} ({who}){stream} {self.text}"


@dataclasses.dataclass(slots=True)
class _Tail:
    """The beginning of a line."""

    source: Source
    text: str
    since: float


class LogWriter:
    """Writes an executor's log. Not thread-safe: it belongs to the executor's event loop."""

    def __init__(self, directory: str | os.PathLike[str], executor_id: str, clock: Callable[[], float] = time.time):
        self._prefix = os.path.join(directory, executor_id)
        self._clock = clock
        self._descriptor = -1
        #: Where the current file begins, and the one before it.
        self._start = 0
        self._older = ""
        self._pieces: list[bytes] = []
        self._tails: dict[tuple[str, str], _Tail] = {}
        #: Pieces that could not be written.
        self._num_lost = 0
        #: The last write was not completed.
        self._torn = False

    def write(self, stream: str, source: Source, data: str) -> bool:
        """Take text; returns whether nothing waited before, so that a :meth:`flush` has to be arranged."""
        was_empty = not self._pieces and not self._tails
        key = (source.task_id, stream)
        now = self._clock()
        tail = self._tails.pop(key, None)
        since = now if tail is None else tail.since
        if tail is not None:
            data = tail.text + data
        whole, newline, rest = data.rpartition("\n")
        if newline:
            self._add(stream, source, whole, now)
            since = now
        while len(rest) > MAX_CHARS:
            self._add(stream, source, rest[:MAX_CHARS], now)
            rest = rest[MAX_CHARS:]
        if "\r" in rest[:-1]:  # a progress bar: what it overwrites is gone
            rest = rest[rest.rindex("\r", 0, -1) :]
        if rest:
            self._tails[key] = _Tail(source, rest, since)
        return was_empty

    def ended(self, task_id: str) -> None:
        """A task has ended, and with it its last line."""
        for stream in (STDOUT, STDERR):
            tail = self._tails.pop((task_id, stream), None)
            if tail is not None:
                self._add(stream, tail.source, tail.text, self._clock())

    def flush(self) -> bool:
        """Write what waits; returns whether lines without an end are left, so that it has to be called once more."""
        now = self._clock()
        for key, tail in list(self._tails.items()):
            if now - tail.since >= PATIENCE:
                del self._tails[key]
                self._add(key[1], tail.source, tail.text, now)
        pieces, self._pieces = self._pieces, []
        if pieces:
            self._write(pieces)
        return bool(self._tails)

    def _add(self, stream: str, source: Source, text: str, now: float) -> None:
        for part in _parts(text):
            self._pieces.append(encode(now, stream, source, part))

    def _write(self, pieces: list[bytes]) -> None:
        try:
            # A file at a time holds no more than it may, whatever comes at once.
            for batch in _batches(pieces):
                self._append(batch)
        except OSError:  # a full disk, as a rule: work goes on without its log
            self._num_lost += len(pieces)
            self._torn = True

    def _append(self, data: bytes) -> None:
        if self._descriptor < 0:
            self._open()
        if self._num_lost:
            text = f"… {self._num_lost} pieces of output could not be written to the log"
            data = b"\n" + encode(self._clock(), GAP, Source(), text) + data
        elif self._torn:
            data = b"\n" + data
        written = os.write(self._descriptor, data)
        self._torn = written < len(data)
        if self._torn:
            raise OSError("short write")
        self._num_lost = 0
        nbytes = os.lseek(self._descriptor, 0, os.SEEK_CUR)
        if nbytes > MAX_FILE:
            self._turn(nbytes)

    def _open(self) -> None:
        flags = os.O_CREAT | os.O_WRONLY | os.O_APPEND | os.O_CLOEXEC
        self._descriptor = os.open(_path(self._prefix, self._start), flags, 0o600)

    def _turn(self, nbytes: int) -> None:
        os.close(self._descriptor)
        self._descriptor = -1
        if self._older:
            with contextlib.suppress(OSError):
                os.unlink(self._older)
        self._older = _path(self._prefix, self._start)
        self._start += nbytes


def encode(now: float, stream: str, source: Source, text: str) -> bytes:
    """Return one piece as it stands in a file."""
    return json.dumps((round(now, 4), stream, *source, text), separators=(",", ":")).encode() + b"\n"


def append(directory: Path, executor_id: str, stream: str, source: Source, text: str) -> None:
    """Add text to the log of an executor that cannot do it itself any more, or at the moment.

    Raises
    ------
    OSError
        It cannot be written.
    """
    files = log_files(directory, executor_id)
    path = files[-1][1] if files else directory / os.path.basename(_path(executor_id, 0))
    with open(path, "ab") as file:
        os.chmod(path, 0o600)
        file.write(b"\n" + b"".join(encode(time.time(), stream, source, part) for part in _parts(text)))


def log_files(directory: Path, executor_id: str) -> list[tuple[int, Path]]:
    """Return the files of an executor's log, the older first, each with the place where it begins."""
    found = []
    for path in directory.glob(f"{executor_id}.*.log"):
        with contextlib.suppress(ValueError):
            found.append((int(path.name.split(".")[-2]), path))
    return sorted(found)


def read_lines(
    directory: Path,
    executor_id: str,
    offset: int,
    limit: int,
    wanted: Callable[[LogLine], bool] = lambda line: True,
    mark: str = "",
) -> tuple[list[LogLine], int]:
    """Read lines of an executor's log.

    Parameters
    ----------
    offset
        Where to begin: 0 for the oldest line that is kept, what the last call has returned for what came since, *-n*
        for the newest *n* of the lines that are wanted. Anything else is no position.
    limit
        Lines returned at most.
    wanted
        Which lines.
    mark
        Stands in each of them, as one of its fields: the others are not even looked at.

    Returns
    -------
    tuple
        The lines, and the offset for the next call.
    """
    following = max(0, offset)
    must_have = json.dumps(mark).encode() if mark else b""
    if offset < 0:
        newest: deque[LogLine] = deque(maxlen=min(-offset, limit))
        for position, line in _lines(directory, executor_id, 0, must_have):
            if line is not None and wanted(line):
                newest.append(line)
            following = position
        return list(newest), following
    found: list[LogLine] = []
    for position, line in _lines(directory, executor_id, offset, must_have):
        if line is not None and wanted(line):
            if len(found) >= limit:
                break
            found.append(line)
        following = position
    return found, following


def _lines(directory: Path, executor_id: str, offset: int, must_have: bytes) -> Iterator[tuple[int, LogLine | None]]:
    """Give the lines from *offset* on, each with the offset behind it; None for what cannot be read."""
    place, skip = divmod(offset, _STRIDE)
    files = log_files(directory, executor_id)
    if files and place < files[0][0]:
        if offset:
            text = "… lines that were printed here before are not kept any more"
            yield files[0][0] * _STRIDE, LogLine(time.time(), GAP, text, *Source(), executor_id)
        place, skip = files[0][0], 0
    for index, (start, path) in enumerate(files):
        following = files[index + 1][0] if index + 1 < len(files) else None
        if following is not None and place >= following:
            continue
        try:
            with open(path, "rb") as file:
                file.seek(max(0, place - start))
                data = file.read()
        except FileNotFoundError:  # its turn has just ended
            continue
        position = max(place, start)
        # Not splitlines: a torn piece may hold any byte, a carriage return too. What comes last has no end (yet).
        for piece in data.split(b"\n")[:-1]:
            end = position + len(piece) + 1
            lines = _decode(piece, executor_id) if must_have in piece else []
            for number, line in enumerate(lines[skip:], skip + 1):
                yield (position * _STRIDE + number if number < len(lines) else end * _STRIDE), line
            if not lines:
                yield end * _STRIDE, None
            position, skip = end, 0
        if following is not None:
            place, skip = following, 0


def _decode(piece: bytes, executor_id: str) -> list[LogLine]:
    try:
        now, stream, task_id, function, cell, actor, text = json.loads(piece)
        now = float(now)
        return [LogLine(now, stream, line, task_id, function, cell, actor, executor_id) for line in text.split("\n")]
    except (ValueError, TypeError, AttributeError):  # torn
        return []


def _parts(text: str) -> Iterator[str]:
    """Cut text into pieces of whole lines; of what a line has overwritten itself (``\\r``) the last is kept."""
    if "\r" in text:
        text = "\n".join(line.rstrip("\r").rpartition("\r")[2] for line in text.split("\n"))
    if len(text) <= MAX_CHARS and text.count("\n") < MAX_LINES:
        yield text
        return
    lines: list[str] = []
    num_chars = 0
    for line in text.split("\n"):
        for start in range(0, len(line) or 1, MAX_CHARS):
            part = line[start : start + MAX_CHARS]
            if lines and (len(lines) >= MAX_LINES or num_chars + len(part) > MAX_CHARS):
                yield "\n".join(lines)
                lines, num_chars = [], 0
            lines.append(part)
            num_chars += len(part)
    yield "\n".join(lines)


def _batches(pieces: list[bytes]) -> Iterator[bytes]:
    batch: list[bytes] = []
    nbytes = 0
    for piece in pieces:
        batch.append(piece)
        nbytes += len(piece)
        if nbytes > MAX_FILE // 8:
            yield b"".join(batch)
            batch, nbytes = [], 0
    if batch:
        yield b"".join(batch)


def _path(prefix: str, start: int) -> str:
    return f"{prefix}.{start:015d}.log"
