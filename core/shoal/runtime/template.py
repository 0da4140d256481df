"""The template process: imports what executors need, once, and forks them in milliseconds.

It is single-threaded and has no event loop, so that forking it is safe. It is the parent of a node's executors: it
reaps them, says how each ended, and when its agent is gone, however that happened, it ends them all and removes
what the node left on disk and in shared memory. Commands and reports are lines of JSON on a socket that it
inherits.

Run as ``python -m shoal.runtime.template FD``; the first line on the socket is the configuration.
"""

from __future__ import annotations

import contextlib
import ctypes
import faulthandler
import gc
import importlib
import json
import os
import selectors
import shutil
import signal
import socket
import sys
from pathlib import Path
from typing import Any

from shoal.runtime.begun import BegunMark
from shoal.runtime.breakpoints import refuse_breakpoints
from shoal.runtime.executor import run_executor
from shoal.runtime.executor_log import ExecutorLog
from shoal.runtime.owner import OwnerConfig
from shoal.runtime.raw_output import raw_path
from shoal.runtime.stack_signal import show_stacks_on_signal
from shoal.runtime.template_config import TemplateConfig

PRELOAD = ("numpy",)
#: A task has one CPU unless it asks for more, so numerical libraries start with one thread instead of one per core of
#: the machine in each executor. A user's own setting wins, and code may raise it (``torch.set_num_threads``).
THREAD_LIMITS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")
_PR_SET_PDEATHSIG = 1
#: What executors add to their rank among those that the kernel ends when memory runs out, in thousandths of the memory
#: that there is: enough to go before a notebook or a head that uses about as much, and not before one that uses most.
OOM_RANK = 300


class Template:
    """The loop of the template process."""

    def __init__(self, control: socket.socket, config: TemplateConfig) -> None:
        self._control = control
        self._config = config
        self._children: dict[int, str] = {}
        self._wake_read, self._wake_write = os.pipe()
        os.set_blocking(self._wake_write, False)
        os.set_blocking(self._wake_read, False)

    def run(self, lines: Lines) -> None:
        """Serve until the agent hangs up."""
        signal.signal(signal.SIGCHLD, lambda number, frame: None)
        signal.set_wakeup_fd(self._wake_write, warn_on_full_buffer=False)
        with selectors.DefaultSelector() as selector:
            selector.register(self._control, selectors.EVENT_READ)
            selector.register(self._wake_read, selectors.EVENT_READ)
            while True:
                for line in lines.complete():
                    self._obey(json.loads(line))
                for key, _ in selector.select():
                    if key.fileobj is self._control:
                        if not lines.read():
                            return
                    else:
                        os.read(self._wake_read, 1024)
                self._reap()

    def end(self) -> None:
        """End every executor and remove what the node left."""
        signal.set_wakeup_fd(-1)
        for pid in self._children:
            _kill_group(pid)
        for pid in list(self._children):
            os.waitpid(pid, 0)
        self._config.store.remove()
        for directory in (self._config.logs, *self._config.cleanup):
            shutil.rmtree(directory, ignore_errors=True)

    def _obey(self, command: dict[str, Any]) -> None:
        match command["op"]:
            case "spawn":
                self._spawn(command["executor_id"])
            case "kill":
                for pid, executor_id in self._children.items():
                    if executor_id == command["executor_id"]:
                        _kill_group(pid)
            case "preload":
                with contextlib.suppress(ImportError):  # only a speed-up
                    importlib.import_module(command["module"])
                self._report({"op": "preloaded"})

    def _spawn(self, executor_id: str) -> None:
        gc.collect()
        gc.freeze()
        parent = os.getpid()
        pid = os.fork()
        if pid == 0:
            status = 1
            try:
                self._become_executor(executor_id, parent)
                status = 0
            except BaseException:  # boundary: nothing above us but the template's own loop
                sys.excepthook(*sys.exc_info())
            finally:
                os._exit(status)
        self._children[pid] = executor_id
        self._report({"op": "spawned", "executor_id": executor_id, "pid": pid})

    def _become_executor(self, executor_id: str, parent: int) -> None:
        os.setpgid(0, 0)
        die_with_parent(parent)
        rank_for_oom_killer()
        signal.set_wakeup_fd(-1)
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        self._control.close()
        os.close(self._wake_read)
        os.close(self._wake_write)
        raw = os.open(raw_path(self._config.logs, executor_id), os.O_CREAT | os.O_WRONLY | os.O_APPEND, 0o600)
        os.dup2(raw, 1)
        os.dup2(raw, 2)
        os.close(raw)
        faulthandler.enable(all_threads=False)
        show_stacks_on_signal(self._config.logs, executor_id)
        refuse_breakpoints()
        config = OwnerConfig(
            owner_id=executor_id,
            job_id="",
            controller=self._config.controller,
            security=self._config.security,
            host=self._config.host,
            is_driver=False,
            node_id=self._config.node_id,
            store=self._config.store,
        )
        begun = BegunMark(Path(self._config.logs, f"{executor_id}.begun"))
        run_executor(executor_id, config, self._config.agent, begun, ExecutorLog(self._config.logs, executor_id))

    def _reap(self) -> None:
        while self._children:
            pid, status, usage = os.wait4(-1, os.WNOHANG)
            if pid == 0:
                return
            executor_id = self._children.pop(pid, None)
            if executor_id is not None:
                # Children of its own that a task has left behind end with it.
                _kill_group(pid)
                peak = usage.ru_maxrss * (1 if sys.platform == "darwin" else 1024)
                self._report({"op": "exited", "executor_id": executor_id, "status": status, "peak": peak})

    def _report(self, message: dict[str, Any]) -> None:
        with contextlib.suppress(OSError):  # the agent is gone; the next read says so
            self._control.sendall(json.dumps(message).encode() + b"\n")


class Lines:
    """Lines that arrive on a socket."""

    def __init__(self, control: socket.socket) -> None:
        self._control = control
        self._buffer = b""

    def read(self) -> bool:
        """Read what is there; returns False at the end."""
        try:
            data = self._control.recv(65536)
        except ConnectionResetError:  # the agent was gone before it had read all we reported
            return False
        self._buffer += data
        return bool(data)

    def complete(self) -> list[bytes]:
        """Take the complete lines."""
        *lines, self._buffer = self._buffer.split(b"\n")
        return lines


def die_with_parent(parent: int) -> None:
    """Have the kernel kill this process when its parent ends (Linux); elsewhere the agent's hang-up does."""
    if sys.platform == "linux":
        ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != parent:
            os._exit(1)


def rank_for_oom_killer() -> None:
    """Have the kernel end this process rather than the notebook when memory runs out too fast for the memory watch."""
    with contextlib.suppress(OSError, ValueError), open("/proc/self/oom_score_adj", "r+") as file:
        rank = min(1000, int(file.read()) + OOM_RANK)
        file.seek(0)
        file.write(str(rank))


def _kill_group(pid: int) -> None:
    for kill in (os.killpg, os.kill):
        try:
            kill(pid, signal.SIGKILL)
        except (ProcessLookupError, PermissionError):
            continue


def serve(control: socket.socket) -> None:
    """Be the template: read the configuration from *control*, then obey until the agent hangs up."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    lines = Lines(control)
    first: list[bytes] = []
    while not first:
        if not lines.read():
            return
        first = lines.complete()
    config = TemplateConfig.from_line(first[0])
    sys.path[:] = [*config.sys_path, *(entry for entry in sys.path if entry not in config.sys_path)]
    for variable in THREAD_LIMITS:
        os.environ.setdefault(variable, "1")
    for module in PRELOAD:
        with contextlib.suppress(ImportError):
            importlib.import_module(module)
    template = Template(control, config)
    try:
        for line in first[1:]:
            template._obey(json.loads(line))
        template.run(lines)
    finally:
        template.end()


if __name__ == "__main__":
    serve(socket.socket(fileno=int(sys.argv[1])))
