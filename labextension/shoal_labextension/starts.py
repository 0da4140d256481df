"""Clusters that are being started from here, each by a process of its own (:mod:`shoal.launch.detached`)."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import json
import os
import signal
import socket
import sys
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Literal

from shoal.launch.starting import read_log, start_detached
from shoal.model.ids import random_id

if TYPE_CHECKING:
    import logging

    from shoal.launch.specs import Spec
    from shoal.launch.starting import StartedProcess

#: Starts remembered at most, and seconds that one has to take back what it has begun.
MAX_STARTS, END_TIMEOUT = 50, 10.0


@dataclasses.dataclass
class Start:
    """One start; its id is the cluster's. ``state`` is ``ended`` when it failed, or what it started has ended."""

    id: str
    name: str
    created: float
    state: Literal["starting", "running", "ended"] = "starting"
    message: str = ""
    process: StartedProcess | None = None
    #: What its process has said so far, and whether that is all.
    said: bytes = b""
    is_read: bool = False
    gone: asyncio.Event = dataclasses.field(default_factory=asyncio.Event)

    def row(self) -> dict[str, Any]:
        """Return it as the list of clusters has it."""
        return {
            "id": self.id,
            "name": self.name,
            "address": "",
            "kind": "detached",
            "pid": self.process.pid if self.process is not None else 0,
            "host": socket.gethostname(),
            "created": self.created,
            "notebook": "",
            "python": sys.executable,
            "tls": False,
            "control": "",
            "owner": "",
            "state": self.state,
            "message": self.message,
        }


class Starts:
    """All of them. Lives on the server's event loop; a cluster that has started outlives it."""

    def __init__(self, directory: str, log: logging.Logger, on_change: Callable[[], None]) -> None:
        """*directory* is where clusters run; ``on_change()`` is called when a start has got somewhere."""
        self._directory = directory
        self._log = log
        self._on_change = on_change
        self._starts: dict[str, Start] = {}
        self._reaping: set[asyncio.Task[None]] = set()

    def listed(self) -> list[Start]:
        """Return those that are not in the registry: they have not got there, or have failed."""
        return [start for start in self._starts.values() if start.state != "running"]

    def find(self, start_id: str) -> Start | None:
        return self._starts.get(start_id)

    async def start(self, spec: Spec) -> Start:
        """Start a cluster; returns as soon as its process is there.

        Raises
        ------
        OSError
            The process could not be started.
        """
        start = Start(random_id("cluster"), spec.name, time.time())
        start.process = await asyncio.to_thread(start_detached, start.id, spec, self._directory)
        self._starts[start.id] = start
        self._watch(start, start.process)
        for old in [old for old in self._starts.values() if old.gone.is_set()][: len(self._starts) - MAX_STARTS]:
            self._starts.pop(old.id, None)
        self._log.info("shoal: process %d starts cluster `%s` (%s)", start.process.pid, start.name, start.id)
        self._on_change()
        return start

    async def cancel(self, start: Start) -> None:
        """End a start that is in progress with all it has begun; forget one that has failed."""
        if start.state == "starting" and start.process is not None:
            start.message = "The start was cancelled."
            _signal(start.process.pid, signal.SIGTERM)
            try:
                await asyncio.wait_for(start.gone.wait(), END_TIMEOUT)
            except TimeoutError:
                _kill_group(start.process.pid)
                await start.gone.wait()
        self._starts.pop(start.id, None)
        self._on_change()

    def log(self, start_id: str) -> str:
        """Return the log of a start, or of a cluster that was started: it stays when the server is restarted."""
        return read_log(start_id)

    async def close(self) -> None:
        """Cancel what is in progress; what has started goes on."""
        unfinished = [start for start in self._starts.values() if start.state == "starting"]
        await asyncio.gather(*map(self.cancel, unfinished))
        await asyncio.gather(*self._reaping, return_exceptions=True)
        for start in self._starts.values():
            self._stop_reading(start)

    def _watch(self, start: Start, process: StartedProcess) -> None:
        """Follow what a process says, until it is gone: the file ends then, and not before."""
        loop = asyncio.get_running_loop()

        def read() -> None:
            try:
                piece = os.read(process.ready, 65536)
            except BlockingIOError:
                return
            start.said += piece
            if start.state == "starting" and b"\n" in start.said:
                self._said(start)
            if not piece:
                self._stop_reading(start)
                reaping = asyncio.create_task(self._reap(start, process.pid))
                self._reaping.add(reaping)
                reaping.add_done_callback(self._reaping.discard)

        loop.add_reader(process.ready, read)

    def _stop_reading(self, start: Start) -> None:
        if start.process is not None and not start.is_read:
            start.is_read = True
            asyncio.get_running_loop().remove_reader(start.process.ready)
            os.close(start.process.ready)

    def _said(self, start: Start) -> None:
        try:
            word = json.loads(start.said.partition(b"\n")[0])
        except ValueError:
            word = {"failed": "Its process said what nobody understands."}
        if "ready" in word:
            start.state, start.message = "running", ""
        else:
            start.state, start.message = "ended", str(word.get("failed", ""))
        self._on_change()

    async def _reap(self, start: Start, pid: int) -> None:
        """Learn how a process has ended."""
        status = await asyncio.to_thread(_wait, pid)
        if start.state == "running":
            self._starts.pop(start.id, None)  # how it ended is in its log
        elif start.state == "starting":
            how = f"by signal {-status}" if status < 0 else f"with status {status}"
            start.message = start.message or (
                f"Its process ended {how} before the cluster was ready. Its log has the reason."
            )
        start.state = "ended"
        start.gone.set()
        self._on_change()


def _wait(pid: int) -> int:
    with contextlib.suppress(ChildProcessError):
        return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    return 0


def _signal(pid: int, signum: int) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, signum)


def _kill_group(pid: int) -> None:
    """End a process and its group: it leads one as soon as it runs."""
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(pid, signal.SIGKILL)
    _signal(pid, signal.SIGKILL)
