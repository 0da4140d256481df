"""Stacks of a process whose interpreter is stuck in C code, so that no thread of its own could describe them.

The interpreter's fault handler writes a thread's stack from within a signal's handler, without the interpreter's lock.
So each executor has one installed, for a signal that nobody else uses; it is sent to each thread of the process by
itself, which then describes only itself: nothing that another thread might be changing is read.
"""

from __future__ import annotations

import contextlib
import ctypes
import faulthandler
import os
import signal
import sys
import time
from pathlib import Path

#: The signal. Those of real time are free but for the first few, which threading libraries use.
NUMBER = signal.SIGRTMAX - 7 if sys.platform == "linux" else 0
#: Threads of a process that are asked at most.
MAX_THREADS = 64
#: ``tgkill`` has no function in the standard library.
_TGKILL = {"x86_64": 234, "aarch64": 131}

_file: object = None


def stacks_path(directory: str | os.PathLike[str], executor_id: str) -> str:
    return os.path.join(directory, f"{executor_id}.stacks")


def show_stacks_on_signal(directory: str, executor_id: str) -> None:
    """Have this process's threads describe themselves when the signal comes."""
    global _file
    if NUMBER:
        with contextlib.suppress(OSError, ValueError):
            _file = file = open(stacks_path(directory, executor_id), "ab", buffering=0)  # noqa: SIM115
            faulthandler.register(NUMBER, file, all_threads=False, chain=False)


def ask_for_stacks(directory: Path, executor_id: str, pid: int, timeout: float) -> str:
    """Return the stacks of a process's threads, as the fault handler writes them; "" if there are none.

    Blocks for *timeout* seconds at most. A process that does not expect the signal is not sent it.
    """
    machine = os.uname().machine
    path = stacks_path(directory, executor_id)
    if not NUMBER or machine not in _TGKILL or not _expects_it(pid):
        return ""
    try:
        os.truncate(path, 0)
        threads = sorted(int(name) for name in os.listdir(f"/proc/{pid}/task"))[:MAX_THREADS]
    except OSError:
        return ""
    libc = ctypes.CDLL(None, use_errno=True)
    deadline = time.monotonic() + timeout
    found = []
    before = 0
    for thread in threads:
        # Threads that know nothing of Python write nothing; the main one may have to wait for a processor.
        patience = 0.5 if thread == pid else 0.05
        if libc.syscall(_TGKILL[machine], pid, thread, int(NUMBER)):
            continue  # it has just ended
        text = _wait_for_more(path, before, min(deadline, time.monotonic() + patience))
        before += len(text)
        if text:
            found.append(f"thread {thread}\n{text.decode(errors='replace')}")
    return "\n".join(found)


def _wait_for_more(path: str, before: int, deadline: float) -> bytes:
    """Return what is written to the file until nothing has come for a moment."""
    size = before
    while time.monotonic() < deadline:
        time.sleep(0.01)
        now = os.stat(path).st_size
        if now > before and now == size:
            break
        size = now
    with open(path, "rb") as file:
        file.seek(before)
        return file.read()


def _expects_it(pid: int) -> bool:
    """Whether the process has a handler for the signal: without one it would end."""
    with contextlib.suppress(OSError, ValueError):
        for line in Path(f"/proc/{pid}/status").read_text().splitlines():
            if line.startswith("SigCgt:"):
                return bool(int(line.split()[1], 16) >> (int(NUMBER) - 1) & 1)
    return False
