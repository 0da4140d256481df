"""Bringing up the template process: as a fork of the local head, or as a program of its own."""

from __future__ import annotations

import dataclasses
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from typing import Protocol

from shoal.runtime import template


class Process(Protocol):
    """What is needed of a child process; ``subprocess.Popen`` has it."""

    def wait(self, timeout: float) -> object: ...
    def kill(self) -> None: ...


@dataclasses.dataclass(frozen=True)
class TemplateProcess:
    """A template that waits for its configuration on ``control``."""

    process: Process
    control: socket.socket


def spawn_template() -> TemplateProcess:
    """Start a template from scratch: what a Dask worker, which has threads and cannot safely fork, has to do."""
    ours, theirs = socket.socketpair()
    with theirs:
        # Not `multiprocessing`: a nanny's worker is a daemon and may have no children there. A session of its own keeps
        # the kernel's interrupts away.
        process = subprocess.Popen(
            [sys.executable, "-m", "shoal.runtime.template", str(theirs.fileno())],
            pass_fds=(theirs.fileno(),),
            stdin=subprocess.DEVNULL,
            start_new_session=True,
        )
    return TemplateProcess(process, ours)


def fork_template() -> TemplateProcess:
    """Fork a template from this process, which must have imported the runtime and started no thread yet.

    It saves the second import of all that: half a second and 40 MiB when the embedded cluster starts.
    """
    assert threading.active_count() == 1, "forking a process with threads is not safe"
    ours, theirs = socket.socketpair()
    pid = os.fork()
    if pid == 0:
        status = 1
        try:
            ours.close()
            os.setsid()
            null = os.open(os.devnull, os.O_RDWR)
            os.dup2(null, 0)
            os.dup2(null, 1)
            template.serve(theirs)
            status = 0
        finally:
            os._exit(status)
    theirs.close()
    return TemplateProcess(_Forked(pid), ours)


class _Forked:
    """A forked child, waited for as ``subprocess`` does."""

    def __init__(self, pid: int) -> None:
        self._pid = pid
        self._ended = False

    def wait(self, timeout: float) -> None:
        deadline = time.monotonic() + timeout
        while not self._poll():
            if time.monotonic() > deadline:
                raise subprocess.TimeoutExpired("template", timeout)
            time.sleep(0.005)

    def kill(self) -> None:
        if not self._poll():
            os.kill(self._pid, signal.SIGKILL)

    def _poll(self) -> bool:
        if not self._ended:
            self._ended = os.waitpid(self._pid, os.WNOHANG)[0] != 0
        return self._ended
