"""The logs of a node's executors, as its agent keeps them: of those that run, and of the last that have ended."""

from __future__ import annotations

import contextlib
import functools
import os
import re
from collections.abc import Iterable
from pathlib import Path

from shoal.runtime.begun import BegunMark
from shoal.runtime.log_files import GAP, PROCESS, LogLine, Source, append, log_files, read_lines
from shoal.runtime.raw_output import RawOutput, raw_path

#: Executors whose logs are kept when they have ended: the last of them that had printed something.
MAX_ENDED = 32
#: Lines of one answer at most.
MAX_LINES = 5_000
#: Lines and characters of an executor's last words.
LAST_LINES, LAST_CHARS = 40, 8_000
#: Looks in a row at which text was left lying by an executor before its agent takes it.
PATIENCE = 3


class ExecutorLogs:
    """See the module's description. The methods read and write files; any thread may call them, one at a time."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        #: The executors of each actor, the newest last.
        self._actors: dict[str, list[str]] = {}
        #: Executors that have ended, the newest last.
        self._ended: list[str] = []
        #: At how many looks in a row an executor's text has been lying there.
        self._waiting: dict[str, int] = {}

    def bound(self, executor_id: str, actor_id: str) -> None:
        """An executor is an actor's from now on."""
        self._actors.setdefault(actor_id, []).append(executor_id)

    def look(self, executor_ids: Iterable[str]) -> None:
        """Take what executors leave lying because they are stuck; once a second."""
        waiting = {}
        for executor_id in executor_ids:
            with contextlib.suppress(OSError):
                if not os.stat(raw_path(self._directory, executor_id)).st_size or not self._is_waiting(executor_id):
                    continue
                waiting[executor_id] = self._waiting.get(executor_id, 0) + 1
                if waiting[executor_id] >= PATIENCE:
                    self._take(executor_id, at_end=False)
        self._waiting = waiting

    def ended(self, executor_id: str) -> None:
        """An executor's process is gone: take what it has left, and let the oldest go."""
        with contextlib.suppress(OSError):
            self._take(executor_id, at_end=True)
        for path in self._directory.glob(f"{executor_id}.*"):
            if path.suffix != ".log":
                path.unlink(missing_ok=True)
        if log_files(self._directory, executor_id):
            self._ended.append(executor_id)
        while len(self._ended) > MAX_ENDED:
            oldest = self._ended.pop(0)
            for _, path in log_files(self._directory, oldest):
                path.unlink(missing_ok=True)
        kept = {path.name.partition(".")[0] for path in self._directory.iterdir()}
        self._actors = {
            actor_id: left
            for actor_id, known in self._actors.items()
            if (left := [executor_id for executor_id in known if executor_id in kept])
        }

    def ended_ids(self) -> list[str]:
        """Return the executors that have ended and whose logs are still there, the oldest first."""
        return list(self._ended)

    def has_ended(self, executor_id: str) -> bool:
        """Whether an executor's process is gone, so that nothing will be added to its log."""
        return not Path(raw_path(self._directory, executor_id)).exists()

    def last_words(self, executor_id: str) -> str:
        """Return what the process itself wrote last: at its end, as a rule, why."""
        with contextlib.suppress(OSError):
            self._take(executor_id, at_end=True)
        lines, _ = read_lines(
            self._directory, executor_id, -LAST_LINES, LAST_LINES, lambda line: line.stream == PROCESS, PROCESS
        )
        return "\n".join(line.text for line in lines)[-LAST_CHARS:]

    def sources(self, source: str) -> list[str]:
        """Return the executors here that have printed something for *source*, the oldest first.

        That is an executor's id, an actor's or a task's (or a call's).
        """
        if not re.fullmatch(r"[\w-]+", source):  # no name of a file elsewhere, nor a pattern
            return []
        if source in self._actors:
            return list(self._actors[source])
        if log_files(self._directory, source) or not self.has_ended(source):
            return [source]
        if not source.startswith("task-"):
            return []
        executor_ids = {path.name.partition(".")[0] for path in self._directory.glob("*.log")}
        found = [(self._first(executor_id, source), executor_id) for executor_id in executor_ids]
        running = [path.name.partition(".")[0] for path in self._directory.glob("*.begun") if _begun(path) == source]
        printed = [executor_id for time, executor_id in sorted(row for row in found if row[0])]
        return printed + [executor_id for executor_id in running if executor_id not in printed]

    def read(
        self, source: str, offset: int, limit: int, words: str, task_id: str = ""
    ) -> tuple[str, list[LogLine], int, bool]:
        """Read the log of the newest executor of *source*; see :func:`~shoal.runtime.log_files.read_lines`.

        Of a task, its own lines and those of the process while it ran. Only lines that contain *words*, in capitals
        or not, and only those of a task (or call) if one is given.

        Returns
        -------
        tuple
            The executor's id, the lines, the next offset, and whether the executor has ended.

        Raises
        ------
        LookupError
            Nothing of this source is kept here.
        """
        executor_ids = self.sources(source)
        if not executor_ids:
            raise LookupError(f"this node has no log of `{source}`")
        task_id = task_id or (source if source.startswith("task-") else "")
        folded = words.casefold()

        def wanted(line: LogLine) -> bool:
            if line.stream == GAP:
                return not task_id or line.task_id in ("", task_id)
            return (not task_id or line.task_id == task_id) and (not folded or folded in line.text.casefold())

        executor_id = executor_ids[-1]
        has_ended = self.has_ended(executor_id)  # before reading: what it printed last is not missed
        lines, following = read_lines(
            self._directory, executor_id, offset, max(1, min(limit, MAX_LINES)), wanted, task_id
        )
        return executor_id, lines, following, has_ended

    def _is_waiting(self, executor_id: str) -> bool:
        raw = RawOutput(self._directory, executor_id)
        try:
            return raw.num_waiting > 0
        finally:
            raw.close()

    def _take(self, executor_id: str, *, at_end: bool) -> None:
        raw = RawOutput(self._directory, executor_id)
        try:
            text = raw.take(at_end=at_end)
        finally:
            raw.close()
        if text:
            actor_id = next((actor for actor, known in list(self._actors.items()) if executor_id in known), "")
            source = Source("" if actor_id else _begun(self._directory / f"{executor_id}.begun"), actor=actor_id)
            append(self._directory, executor_id, PROCESS, source, text)

    def _first(self, executor_id: str, task_id: str) -> float:
        """Return when a task first printed something in an executor; 0 if it did not."""
        mark = f'"{task_id}"'.encode()
        for _, path in log_files(self._directory, executor_id):
            with contextlib.suppress(OSError):
                data = path.read_bytes()
                if mark in data:
                    is_its = functools.partial(_is_of, task_id)
                    lines, _ = read_lines(self._directory, executor_id, 0, 1, is_its, task_id)
                    return lines[0].time if lines else 0.0
        return 0.0


def _is_of(task_id: str, line: LogLine) -> bool:
    return line.task_id == task_id


def _begun(path: Path) -> str:
    try:
        return BegunMark.read(path)
    except OSError:
        return ""
