"""Starting the embedded cluster from a driver, and ending it."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import select
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping

from shoal.launch.registry import Connection, find, prepare_registry
from shoal.model.errors import ConnectError
from shoal.model.ids import random_id

START_TIMEOUT = 60.0
END_TIMEOUT = 8.0


class Head:
    """The process of an embedded cluster; whoever starts it owns it."""

    def __init__(self, process: subprocess.Popen[bytes], connection: Connection) -> None:
        self._process = process
        self.connection = connection

    @property
    def pid(self) -> int:
        return self._process.pid

    def end(self) -> None:
        """End the cluster: in good order within a few seconds, else by force. Harmless the second time."""
        process = self._process
        for pipe in (process.stdin, process.stdout):
            if pipe is not None:
                pipe.close()
        try:
            process.wait(END_TIMEOUT)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


@dataclasses.dataclass(frozen=True)
class EmbeddedOptions:
    """What an embedded cluster is to have. Everything but the CPUs adds to what the machine itself shows."""

    name: str
    num_cpus: int
    #: None for those of this machine.
    num_gpus: float | None = None
    resources: Mapping[str, float] = dataclasses.field(default_factory=dict)
    labels: Mapping[str, str] = dataclasses.field(default_factory=dict)
    #: Bytes; None for a share of the machine's memory.
    object_store_memory: int | None = None
    #: Notebook or script that it belongs to.
    notebook: str = ""


def start_head(options: EmbeddedOptions, timeout: float = START_TIMEOUT) -> Head:
    """Start an embedded cluster and wait until it is ready.

    Raises
    ------
    ConnectError
        It did not come up within *timeout* seconds; the message holds what it said last.
    """
    prepare_registry()  # what is wrong with it is better said here than by a process that ends
    sys_path = [entry or os.getcwd() for entry in sys.path]
    cluster_id = random_id("cluster")
    config = {
        "id": cluster_id,
        **dataclasses.asdict(options),
        "pid": os.getpid(),
        "sys_path": sys_path,
    }
    with tempfile.TemporaryFile() as errors:
        # A session of its own: the kernel's interrupts are sent to its whole process group.
        process = subprocess.Popen(
            [sys.executable, "-m", "shoal.launch.head"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=errors,
            start_new_session=True,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(sys_path)},
        )
        assert process.stdin is not None and process.stdout is not None
        try:
            process.stdin.write(json.dumps(config).encode() + b"\n")
            process.stdin.flush()
            _read_ready(process, time.monotonic() + timeout)
            connection = find(cluster_id)
            if connection is None:
                raise ConnectError("The embedded cluster started but its connection file is missing.")
        except BaseException as error:
            process.kill()
            process.wait()
            for pipe in (process.stdin, process.stdout):
                with contextlib.suppress(OSError):
                    pipe.close()
            errors.seek(0)
            said = errors.read()[-4_000:].decode(errors="replace").strip()
            if isinstance(error, ConnectError | OSError):
                raise ConnectError(f"The embedded cluster did not start: {error}\n{said}") from None
            raise
    return Head(process, connection)


def _read_ready(process: subprocess.Popen[bytes], deadline: float) -> None:
    assert process.stdout is not None
    line = b""
    while not line.endswith(b"\n"):
        left = deadline - time.monotonic()
        if left <= 0 or not select.select([process.stdout], [], [], left)[0]:
            raise ConnectError("it was not ready in time.")
        piece = os.read(process.stdout.fileno(), 65536)
        if not piece:
            raise ConnectError("its process ended.")
        line += piece
