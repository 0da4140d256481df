"""What tasks print, on its way to the cell that caused it."""

from __future__ import annotations

import io
import threading
from collections.abc import Callable
from typing import Any

#: Seconds for which text gathers before it is sent.
INTERVAL = 0.03
#: Characters of one piece of output at most.
PIECE = 64 * 1024


class TaskWriter(io.TextIOBase):
    """Stands in for ``sys.stdout`` or ``sys.stderr`` in an executor.

    ``emit(kind, text)`` returns whether the text belongs to a task; what does not (a user's thread, or shoal itself,
    between tasks) goes to *fallback*.
    """

    def __init__(self, kind: str, emit: Callable[[str, str], bool], fallback: io.TextIOBase | Any) -> None:
        self._kind = kind
        self._emit = emit
        self._fallback = fallback

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
        if text and not self._emit(self._kind, text.encode(self.encoding, self.errors).decode(self.encoding)):
            self._fallback.write(text)
        return len(text)

    def flush(self) -> None:
        self._fallback.flush()


class OutputBuffer:
    """Joins the many small writes of a task into few messages, without ever changing their order."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._pieces: list[tuple[str, list[str]]] = []

    def add(self, kind: str, data: str) -> bool:
        """Append *data*; returns whether the buffer was empty, so that a flush has to be arranged."""
        with self._lock:
            was_empty = not self._pieces
            if kind != "display" and self._pieces and self._pieces[-1][0] == kind:
                self._pieces[-1][1].append(data)
            else:
                self._pieces.append((kind, [data]))
            return was_empty

    def take(self) -> list[tuple[str, str]]:
        """Return what has gathered, as ``(kind, data)``."""
        with self._lock:
            pieces, self._pieces = self._pieces, []
        result = []
        for kind, parts in pieces:
            data = "".join(parts)
            if kind == "display":
                result.append((kind, data))
            else:
                result += [(kind, data[start : start + PIECE]) for start in range(0, len(data), PIECE)]
        return result
