"""Actors for cells: one that remembers its variables between cells, one that looks after a cell in the background.

Executors import this module: it needs nothing of Jupyter.
"""

from __future__ import annotations

import builtins
import dataclasses
import json
import math
import pickle
import re
import threading
import time
import types
from collections import deque
from typing import Any

import shoal
from shoal.runtime import session
from shoal_kernel.cell import CellSpec, run_in
from shoal_kernel.packing import Package
from shoal_kernel.tasks import CellTasks, StartedTasks

#: Characters of a background cell's output that are kept for who attaches to it later.
MAX_TEXT = 1_000_000
#: Where background cells are found by whoever wants to attach to them.
BACKGROUND = "shoal.background-cells"
#: The concurrency group of calls that are answered while a cell runs.
WATCH = "watch"


class CellHost:
    """Runs cells, one at a time, in one ``__main__``: what a cell assigns is there for the next."""

    def __init__(self) -> None:
        self._main = types.ModuleType("__main__")
        vars(self._main)["__builtins__"] = builtins

    def run(self, spec: CellSpec, package: Package, own: Package | None = None, *stored: Any) -> tuple[Any, ...]:
        """Run a cell; what it returns is followed by the names that there are afterwards."""
        result = run_in(self._main, spec, (package.filled(stored), own))
        return (*result, self.names()) if isinstance(result, tuple) else (result, self.names())

    @shoal.method(concurrency_group=WATCH)
    def names(self) -> list[str]:
        """Return the names of the variables."""
        return sorted(name for name in list(vars(self._main)) if not name.startswith("__"))


@dataclasses.dataclass(frozen=True)
class BackgroundStatus:
    """How a background cell stands, for who has no part in it."""

    name: str
    #: When it began: seconds since the epoch.
    begun_at: float
    num_ended: int
    num_parts: int
    is_cancelled: bool
    #: Seconds for which it is still kept if nobody asks; None while it runs, or for ever.
    kept_for: float | None


class BackgroundCell:
    """Owns the tasks of one cell, and keeps what they printed and what came of them until somebody asks.

    Whoever asks: tasks that the notebook had submitted would end with the notebook. One that has ended is kept for
    *keep* seconds after its end, or after somebody has last asked for its result or its text, and for as many again
    while a notebook holds its results; 0 keeps it for ever.
    """

    def __init__(self, tasks: CellTasks, run_id: str, keep: float = 0.0) -> None:
        self._tasks = tasks
        self._run_id = run_id
        self._keep = keep
        self._begun_at = time.time()
        self._text = _Text()
        self._started: StartedTasks | None = None
        self._num_ended = 0
        self._is_cancelled = False
        #: When it will end if nobody asks, on the monotonic clock; nobody knows while it runs.
        self._end_at = math.inf

    def begin(self) -> list[list[shoal.ObjectRef]]:
        """Start the tasks; returns the refs of each part: its result, and what else it returns."""
        shoal.output.set_listener(self._text.hear)
        self._tasks = _owned(self._tasks)
        self._started = started = self._tasks.start(self._tasks.options.timeout)
        threading.Thread(target=self._look_after, args=(started,), daemon=True).start()
        return started.refs

    def refs(self) -> list[list[shoal.ObjectRef]]:
        """Return these refs once more."""
        assert self._started is not None
        self._was_asked()
        return self._started.refs

    def about(self) -> tuple[CellTasks, float]:
        """Return what it runs, and when it began: seconds since the epoch. What all parts read is a ref in there."""
        self._was_asked()
        return self._tasks, self._begun_at

    def status(self) -> BackgroundStatus:
        """Return how it stands; that is not to ask for it."""
        left = self._end_at - time.monotonic()
        return BackgroundStatus(
            self._tasks.options.name,
            self._begun_at,
            self._num_ended,
            len(self._tasks.parts),
            self._is_cancelled,
            None if math.isinf(left) else max(0.0, left),
        )

    def text(self) -> str:
        """Return what it has printed so far: the last million characters."""
        self._was_asked()
        return self._text.read()

    def cancel(self, force: bool) -> None:
        """Stop what has not ended."""
        self._is_cancelled = True
        for refs in self.refs():
            shoal.cancel(refs[0], force=force)

    def _was_asked(self) -> None:
        if not math.isinf(self._end_at):
            self._end_at = time.monotonic() + self._keep

    def _look_after(self, started: StartedTasks) -> None:
        """Wait for the end of the tasks, stopping them all when one fails that the others need; then for our own."""
        left = [refs[0] for refs in started.refs]
        while left:
            ready, left = shoal.wait(left)
            self._num_ended = len(started.refs) - len(left)
            if not self._tasks.needs_all:
                continue  # results may be large: nobody looks at them here without need
            try:
                shoal.get(ready)
            except Exception:  # the cell's own, which the notebook will see
                for ref in left:
                    shoal.cancel(ref)
        started.end()
        if self._keep:
            self._wait_to_be_forgotten(started)

    def _wait_to_be_forgotten(self, started: StartedTasks) -> None:
        self._end_at = time.monotonic() + self._keep
        never = threading.Event()
        while (left := self._end_at - time.monotonic()) > 0:
            never.wait(left)
            if time.monotonic() >= self._end_at and _is_held_elsewhere(started):
                self._was_asked()
        shoal.kill(shoal.get_actor(self._run_id, BACKGROUND))


def _is_held_elsewhere(started: StartedTasks) -> bool:
    """Whether another process holds a result: a notebook that has a handle."""
    table = session.get_owner().table
    entries = [table.get(ref.id) for refs in started.refs for ref in refs]
    return any(entry is not None and entry.borrowers for entry in entries)


def _owned(tasks: CellTasks) -> CellTasks:
    """Return the tasks with what they read stored anew, by this process: what the notebook has stored ends with it."""
    package = shoal.put(shoal.get(tasks.package) if isinstance(tasks.package, shoal.ObjectRef) else tasks.package)
    sources = tasks.spec.sources
    spec = tasks.spec if sources is None else dataclasses.replace(tasks.spec, sources=shoal.put(shoal.get(sources)))
    return dataclasses.replace(tasks, spec=spec, package=package, stored=tuple(map(_store_anew, tasks.stored)))


def _store_anew(ref: shoal.ObjectRef) -> shoal.ObjectRef:
    value = shoal.get(ref)
    return shoal.put(pickle.PickleBuffer(value) if isinstance(value, memoryview) else value)


class _Text:
    """What tasks have printed: lines of tasks with other names than the first one's begin with theirs."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._pieces: deque[str] = deque()
        self._length = 0
        self._inside_line: set[tuple[str, str]] = set()

    def hear(self, event: shoal.output.OutputEvent) -> None:
        """Note a piece of output."""
        text = event.data
        if event.kind == "display":
            text = json.loads(text)["data"].get("text/plain", "") + "\n"
        elif event.kind not in ("stdout", "stderr"):
            return
        key = (event.task_id, event.kind)
        with self._lock:
            lines = re.findall(r"[^\n]*\n|[^\n]+", text)
            for number, line in enumerate(lines):
                begins = number > 0 or key not in self._inside_line
                self._add(f"({event.task_name}) {line}" if begins else line)
            if text.endswith("\n"):
                self._inside_line.discard(key)
            else:
                self._inside_line.add(key)

    def read(self) -> str:
        with self._lock:
            return "".join(self._pieces)

    def _add(self, text: str) -> None:
        self._pieces.append(text)
        self._length += len(text)
        while self._length > MAX_TEXT and len(self._pieces) > 1:
            self._length -= len(self._pieces.popleft())
