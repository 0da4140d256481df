"""What tasks print, on its way to the cell that caused it.

A task never waits for its output: text gathers for :data:`INTERVAL` seconds and leaves in one message. What nobody
could read is not sent at all: a task may send :data:`BURST` characters at once and :data:`RATE` a second, which 10,000
ordinary lines a second stay far below. Of what is more, the first and the last lines of each interval are sent, and how
many lines are missing between them (``elided``). The alternative, to have the task wait until the notebook has caught
up, was rejected: a forgotten ``print`` in a loop would make the cluster as slow as a web page, and a notebook whose
kernel is busy would stop it. A million lines cost the executor the time to count them.

Only Python's streams are taken. What subprocesses and C code write to file descriptors 1 and 2 belongs to the process,
not to a task: it is in the executor's log only (:mod:`~shoal.runtime.raw_output`), of which a crash shows the last
lines.

Displays are sent whole or not at all: see :mod:`~shoal.model.display_limits`.
"""

from __future__ import annotations

import codecs
import io
import itertools
import json
import re
import threading
import time
from collections import deque
from collections.abc import Callable
from typing import Any

from shoal.model.display_limits import DisplayLimits, DisplayMeter

#: Seconds for which text gathers before it is sent.
INTERVAL = 0.03
#: Characters of one piece of output at most.
PIECE = 64 * 1024
#: Characters that a task may send at once, and those it may send in a second after that.
BURST, RATE = 2 << 20, 2 << 20
#: What is sent of the end of text that is too much: lines, and characters.
LAST_LINES, LAST_CHARS = 100, 16 * 1024


class TaskWriter(io.TextIOBase):
    """Stands in for ``sys.stdout`` or ``sys.stderr`` in an executor.

    ``emit(kind, text)`` returns whether the text belongs to a task; what does not (a user's thread, or shoal itself,
    between tasks) goes to *fallback*.
    """

    def __init__(self, kind: str, emit: Callable[[str, str], bool], fallback: io.TextIOBase | Any) -> None:
        self._kind = kind
        self._emit = emit
        self._fallback = fallback
        #: Takes bytes, as that of an ordinary ``sys.stdout`` does.
        self.buffer = _ByteWriter(self)

    @property
    def encoding(self) -> str:  # type: ignore[override]
        return "utf-8"

    @property
    def errors(self) -> str:  # type: ignore[override]
        return "replace"

    def fileno(self) -> int:
        return int(self._fallback.fileno())

    def writable(self) -> bool:
        return True

    def write(self, text: str) -> int:
        if not isinstance(text, str):
            raise TypeError(f"write() argument must be str, not {type(text).__name__}")
        if not text:
            return 0
        sent = text if text.isascii() else text.encode(self.encoding, self.errors).decode(self.encoding)
        if not self._emit(self._kind, sent):
            self._fallback.write(text)
        return len(text)

    def flush(self) -> None:
        self._fallback.flush()


class _ByteWriter(io.BufferedIOBase):
    """The bytes under a :class:`TaskWriter`; those that are no UTF-8 are replaced."""

    def __init__(self, writer: TaskWriter) -> None:
        self._writer = writer
        #: A character may come in two writes.
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")

    def writable(self) -> bool:
        return True

    def write(self, data: Any) -> int:
        self._writer.write(self._decoder.decode(bytes(data)))
        return memoryview(data).nbytes

    def flush(self) -> None:
        self._writer.flush()


class OutputBuffer:
    """Joins the many small writes of a task into few messages, without ever changing their order."""

    def __init__(self, clock: Callable[[], float] = time.monotonic, displays: DisplayLimits | None = None) -> None:
        self._clock = clock
        self._displays = DisplayMeter(displays or DisplayLimits())
        self._lock = threading.Lock()
        self._pieces: list[tuple[str, list[str]]] = []
        #: Characters that may be sent, as of a moment.
        self._room: float = BURST
        self._as_of = clock()
        #: Whether the last text did not end its line.
        self._mid_line = False
        #: There while there is more text than may be sent.
        self._excess: _Excess | None = None

    def add(self, kind: str, data: str) -> bool:
        """Append *data*; returns whether the buffer was empty, so that a flush has to be arranged."""
        with self._lock:
            was_empty = not self._pieces and self._excess is None
            if kind == "display":
                data = self._displays.passed(data)
                if data:
                    self._end_excess()
                    self._pieces.append((kind, [data]))
                else:
                    return False
            elif self._excess is not None:
                self._excess.add(kind, data)
            elif len(data) <= self._room:
                self._keep(kind, data)
            else:
                self._add_too_much(kind, data)
            return was_empty

    def take(self) -> list[tuple[str, str]]:
        """Return what has gathered, as ``(kind, data)``; ``elided`` is JSON that says how much is left out there."""
        with self._lock:
            self._end_excess()
            self._refill()
            pieces, self._pieces = self._pieces, []
        result = []
        for kind, parts in pieces:
            data = "".join(parts)
            if kind in ("display", "elided"):
                result.append((kind, data))
            else:
                result += [(kind, data[start : start + PIECE]) for start in range(0, len(data), PIECE)]
        return result

    def _keep(self, kind: str, data: str) -> None:
        self._room -= len(data)
        self._mid_line = data[-1] != "\n"
        if self._pieces and self._pieces[-1][0] == kind:
            self._pieces[-1][1].append(data)
        else:
            self._pieces.append((kind, [data]))

    def _refill(self) -> None:
        now = self._clock()
        self._room = min(BURST, self._room + (now - self._as_of) * RATE)
        self._as_of = now

    def _add_too_much(self, kind: str, data: str) -> None:
        """Keep what there is room for, in whole lines, and leave the rest to :class:`_Excess`."""
        self._refill()
        room = max(0, int(self._room))
        cut = len(data) if len(data) <= room else data.rfind("\n", 0, room) + 1
        if cut == 0 and self._mid_line and self._room > -PIECE:  # a line that has begun is brought to its end
            cut = (data.find("\n", 0, PIECE) + 1) or min(len(data), PIECE)
        elif cut == 0 and room > PIECE:  # one endless line
            cut = room
        if cut:
            self._keep(kind, data[:cut])
        if cut < len(data):
            self._excess = _Excess()
            self._excess.add(kind, data[cut:])

    def _end_excess(self) -> None:
        if self._excess is None:
            return
        elided, last = self._excess.close()
        self._excess = None
        self._pieces += [("elided", [json.dumps(entry)]) for entry in elided]
        for kind, data in last:
            self._keep(kind, data)


class _Excess:
    """Text beyond what may be sent: counted, but for its last lines."""

    def __init__(self) -> None:
        self._last: deque[tuple[str, str]] = deque()
        self._num_chars = 0
        #: Lines and characters left out, by kind.
        self._elided: dict[str, list[int]] = {}
        #: Whether what was left out last did not end its line.
        self._mid_line = False

    def add(self, kind: str, data: str) -> None:
        if len(data) > LAST_CHARS:
            self._leave_out(kind, data[:-LAST_CHARS])
            data = data[-LAST_CHARS:]
        self._last.append((kind, data))
        self._num_chars += len(data)
        while self._num_chars > LAST_CHARS and len(self._last) > 1:
            kind, data = self._last.popleft()
            self._num_chars -= len(data)
            self._leave_out(kind, data)

    def close(self) -> tuple[list[dict[str, Any]], list[tuple[str, str]]]:
        """Return how much is left out, and the last lines."""
        lines: deque[tuple[str, str]] = deque()
        for kind, pieces in itertools.groupby(self._last, key=lambda piece: piece[0]):
            text = "".join(data for _, data in pieces)
            lines += [(kind, line) for line in re.findall(r"[^\n]*\n|[^\n]+", text)]
        while (self._mid_line and len(lines) > 1) or len(lines) > LAST_LINES:
            self._leave_out(*lines.popleft())
        elided = [
            {"kind": kind, "lines": num_lines, "chars": num_chars}
            for kind, (num_lines, num_chars) in self._elided.items()
        ]
        return elided, list(lines)

    def _leave_out(self, kind: str, data: str) -> None:
        counts = self._elided.setdefault(kind, [0, 0])
        counts[0] += data.count("\n")
        counts[1] += len(data)
        self._mid_line = data[-1] != "\n"
