"""What an executor notes of what is printed in it: into its own log, beside what it sends to the driver."""

from __future__ import annotations

import asyncio
import json
import os
from typing import TYPE_CHECKING

from shoal.runtime.log_files import GAP, PATIENCE, PROCESS, STDERR, STDOUT, LogWriter, Source
from shoal.runtime.raw_output import RawOutput

if TYPE_CHECKING:
    from shoal.runtime.context import TaskContext


class ExecutorLog:
    """See the module's description. Made in any thread, used on the executor's event loop after :meth:`start`."""

    def __init__(self, directory: str | os.PathLike[str], executor_id: str) -> None:
        self._writer = LogWriter(directory, executor_id)
        try:
            self._raw: RawOutput | None = RawOutput(directory, executor_id)
        except OSError:  # a full disk, say: what descriptors 1 and 2 are told is the agent's alone
            self._raw = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._flush_due = self._later_due = False
        self.actor_id = ""

    def start(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop

    def printed(self, context: TaskContext, kind: str, data: str) -> None:
        """A task has printed *data*, of one of the kinds of :class:`~shoal.model.messages.Output`."""
        if kind in (STDOUT, STDERR):
            self._writer.write(kind, self._source(context), data)
        elif kind == "elided":
            elided = json.loads(data)
            what = f"{elided['lines']:,} lines" if elided["lines"] else f"{elided['chars']:,} characters"
            self._writer.write(GAP, self._source(context), f"… {what} left out, printed faster than they are kept\n")
        else:
            return
        self._flush_soon()

    def ended(self, context: TaskContext, *, alone: bool) -> None:
        """A task has ended; *alone* says whether nothing else ran at the same time."""
        if context.output is not None:
            self._writer.ended(context.task_id)
            self._flush_soon()
        self.take_raw(context if alone else None)

    def take_raw(self, context: TaskContext | None) -> None:
        """Take what the process has written to descriptors 1 and 2; it is that task's, if one is given."""
        if self._raw is None:
            return
        try:
            text = self._raw.take()
        except OSError:
            return
        if text:
            source = self._source(context) if context is not None else Source(actor=self.actor_id)
            self._writer.write(PROCESS, source, f"{text}\n")
            self._flush_soon()

    def _source(self, context: TaskContext) -> Source:
        return Source(context.task_id, context.name, context.cell or "", self.actor_id)

    def _flush_soon(self) -> None:
        if not self._flush_due and self._loop is not None:
            self._flush_due = True
            self._loop.call_soon(self._flush)

    def _flush(self) -> None:
        self._flush_due = False
        if self._writer.flush() and not self._later_due and self._loop is not None:
            self._later_due = True
            self._loop.call_later(PATIENCE, self._flush_once_more)

    def _flush_once_more(self) -> None:
        self._later_due = False
        self._flush()
