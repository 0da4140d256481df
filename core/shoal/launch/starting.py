"""Starting a detached cluster from another process: nothing of it happens in that process, or ends with it."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import signal
import sys
import tempfile
from pathlib import Path
from typing import Any

from shoal.launch.registry import registry_directory
from shoal.launch.specs import Spec

#: Logs of clusters kept: the newest.
MAX_LOGS = 50


@dataclasses.dataclass(frozen=True)
class DetachedConfig:
    """What ``python -m shoal.launch.detached`` reads."""

    id: str
    spec: dict[str, Any]
    #: Where it is to run: the working directory of what runs there.
    directory: str
    #: Where it finds modules in addition to its interpreter's own.
    sys_path: list[str]


@dataclasses.dataclass(frozen=True)
class StartedProcess:
    """A process that starts a cluster, and then keeps it."""

    pid: int
    #: A file that gets one line of JSON, ``{"ready": id}`` or ``{"failed": why}``; its end comes when the process ends.
    ready: int


def log_path(cluster_id: str) -> Path:
    """Return where the log of a detached cluster is."""
    return registry_directory().parent / "shoal-logs" / f"{cluster_id}.log"


def start_detached(cluster_id: str, spec: Spec, directory: str) -> StartedProcess:
    """Start the process of a detached cluster; its log is in :func:`log_path`.

    Raises
    ------
    OSError
        There is no such interpreter, or no room for a log.
    """
    log = log_path(cluster_id)
    log.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    _forget_logs(log.parent)
    python = spec.python or sys.executable
    # Another interpreter has modules of its own.
    sys_path = [] if spec.python else [entry or os.getcwd() for entry in sys.path]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys_path)} if sys_path else dict(os.environ)
    config = DetachedConfig(cluster_id, spec.to_json(), directory, sys_path)
    with contextlib.ExitStack() as stack:
        given = stack.enter_context(tempfile.TemporaryFile())
        given.write(json.dumps(dataclasses.asdict(config)).encode())
        given.flush()
        given.seek(0)
        log_file = os.open(log, os.O_CREAT | os.O_WRONLY | os.O_APPEND | os.O_CLOEXEC, 0o600)
        stack.callback(os.close, log_file)
        ready, theirs = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
        stack.callback(os.close, theirs)
        try:
            # Not `subprocess`: what it starts is its child to the end, and ends with an event loop that is closed.
            pid = os.posix_spawn(
                python,
                [python, "-m", "shoal.launch.detached"],
                environment,
                file_actions=[
                    (os.POSIX_SPAWN_DUP2, given.fileno(), 0),
                    (os.POSIX_SPAWN_DUP2, theirs, 1),
                    (os.POSIX_SPAWN_DUP2, log_file, 2),
                ],
                setsigmask=[],
                setsigdef=[signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGPIPE],
            )
        except BaseException:
            os.close(ready)
            raise
    return StartedProcess(pid, ready)


def read_log(cluster_id: str, most: int = 64 << 10) -> str:
    """Return the end of a detached cluster's log, *most* bytes of it; "" if there is none."""
    try:
        with log_path(cluster_id).open("rb") as file:
            size = file.seek(0, os.SEEK_END)
            file.seek(max(0, size - most))
            return file.read(most).decode(errors="replace")
    except OSError:
        return ""


def _forget_logs(directory: Path) -> None:
    """Remove the oldest logs; those of clusters that run are written on, under no name."""
    with contextlib.suppress(OSError):
        logs = sorted(directory.glob("*.log"), key=lambda path: path.stat().st_mtime)
        for log in logs[: max(0, len(logs) - MAX_LOGS + 1)]:
            log.unlink(missing_ok=True)
