"""The local head: a Dask scheduler and one worker in one process, which is the embedded cluster.

Run as ``python -m shoal.launch.head``. It reads its configuration, one line of JSON, from standard input, writes
one line when it is ready, and ends when standard input does or when its driver's process is gone. A process of its
own keeps the cluster's event loop away from the notebook's; TLS with a certificate made for this one cluster keeps
other users of the machine out.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import os
import shutil
import signal
import socket
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from typing import Any

import dask
from distributed import Scheduler, Worker
from distributed.security import Security

from shoal.launch.control import STOP_OPERATION
from shoal.launch.registry import Connection, register, registry_directory
from shoal.launch.scaling import SCALE_OPERATION, HeadNodes
from shoal.runtime import leftovers
from shoal.runtime.agent_plugin import AgentPlugin
from shoal.runtime.controller_plugin import ControllerPlugin
from shoal.runtime.template_process import TemplateProcess, fork_template

HOST = "127.0.0.1"
#: Seconds for an orderly end, after which the process ends anyway (the template then cleans up).
CLOSE_TIMEOUT = 5.0
#: Seconds for the answer to whoever wants the end.
STOP_DELAY = 0.1

_DASK_CONFIG = {
    # No dashboard and no HTTP: nothing of ours listens without authentication.
    "distributed.scheduler.http.routes": [],
    "distributed.worker.http.routes": [],
    # Dask's own profiler samples the whole process; ours has nothing to show there.
    "distributed.worker.profile.enabled": False,
    "distributed.admin.tick.limit": "60s",
}


async def run(config: dict[str, Any], template: TemplateProcess) -> None:
    """Be the embedded cluster until the driver is gone."""
    ended = asyncio.Event()
    watch_driver(config["pid"], ended)
    async with local_cluster(config, template, ended) as connection:
        print(json.dumps({"address": connection.address}), flush=True)
        await ended.wait()


@contextlib.asynccontextmanager
async def local_cluster(
    config: dict[str, Any],
    template: TemplateProcess,
    ended: asyncio.Event,
    kind: str = "embedded",
    operations: Mapping[str, Callable[..., Any]] | None = None,
) -> AsyncIterator[Connection]:
    """A cluster in this process, from where it is registered to where nothing of it is left.

    Parameters
    ----------
    config
        ``id``, ``pid`` (of whom it belongs to), and what :class:`shoal.launch.embedded.EmbeddedOptions` has.
    ended
        Set when the cluster is to end, because it was told to or because it is broken.
    operations
        What its scheduler answers in addition.
    """
    cluster_id, name = config["id"], config["name"]
    scratch = tempfile.mkdtemp(prefix=f"shoal-{os.getuid()}-head-")
    leftovers.claim(scratch)
    directory = str(registry_directory() / cluster_id)
    resources = {name: float(amount) for name, amount in config["resources"].items()}
    if config["num_gpus"] is not None:
        resources["num_gpus"] = float(config["num_gpus"])
    dask.config.set({**_DASK_CONFIG, "temporary-directory": scratch})
    security = Security.temporary()
    async with contextlib.AsyncExitStack() as stack:
        # The template does it too, once there is a node.
        stack.callback(shutil.rmtree, scratch, ignore_errors=True)
        scheduler = await stack.enter_async_context(
            Scheduler(
                host=HOST, port=0, protocol="tls://", security=security, dashboard=False, dashboard_address=f"{HOST}:0"
            )
        )
        scheduler.http_server.stop()
        controller_plugin = ControllerPlugin(cluster_id, name)
        await scheduler.register_scheduler_plugin(controller_plugin, idempotent=True)

        def make_worker(amounts: dict[str, float], **more: Any) -> tuple[Worker, AgentPlugin]:
            plugin = AgentPlugin(labels=config["labels"], object_store_memory=config["object_store_memory"], **more)
            worker = Worker(
                scheduler.address,
                host=HOST,
                protocol="tls://",
                security=security,
                nthreads=config["num_cpus"],
                resources=amounts,
                dashboard=False,
                dashboard_address=f"{HOST}:0",
                plugins=(plugin,),
            )
            return worker, plugin

        worker, _ = make_worker(resources, cleanup=(scratch, directory), template=template, on_broken=ended.set)
        await stack.enter_async_context(worker)
        worker.http_server.stop()
        # What there is once, accelerators and whatever else was named, belongs to the first node.
        nodes = HeadNodes(controller_plugin.controller, lambda: make_worker({"num_gpus": 0.0}))
        stack.push_async_callback(nodes.close)
        scheduler.handlers[SCALE_OPERATION] = nodes.scale
        scheduler.handlers[STOP_OPERATION] = stopper(ended, CLOSE_TIMEOUT)
        scheduler.handlers.update(operations or {})
        connection = Connection(
            id=cluster_id,
            name=name,
            address=scheduler.address,
            kind=kind,
            pid=config["pid"],
            host=socket.gethostname(),
            created=time.time(),
            notebook=config["notebook"],
            python=sys.executable,
        )
        tls = {
            "ca": security.tls_ca_file,
            "cert": security.tls_client_cert,
            "key": security.tls_client_key,
        }
        registration = register(connection, tls)
        stack.callback(registration.remove)
        yield registration.connection


def stopper(ended: asyncio.Event, limit: float) -> Callable[[], Awaitable[dict[str, Any]]]:
    """Return what serves :data:`~shoal.launch.control.STOP_OPERATION`: the answer, and the end within *limit* s."""

    async def stop() -> dict[str, Any]:
        loop = asyncio.get_running_loop()
        loop.call_later(STOP_DELAY, ended.set)
        loop.call_later(STOP_DELAY + limit, os._exit, 1)
        return {"pid": os.getpid()}

    return stop


def watch_driver(pid: int, ended: asyncio.Event) -> None:
    """Set *ended* when the driver hangs up, or its process is gone, or we are asked to end."""
    loop = asyncio.get_running_loop()

    def end() -> None:
        ended.set()
        loop.call_later(CLOSE_TIMEOUT, os._exit, 1)

    def read() -> None:
        if not os.read(0, 1024):
            loop.remove_reader(0)
            end()

    loop.add_reader(0, read)
    loop.add_signal_handler(signal.SIGTERM, end)
    if hasattr(os, "pidfd_open"):
        # Children of the driver may have inherited the pipe; its process id tells the truth.
        with contextlib.suppress(OSError):
            descriptor = os.pidfd_open(pid)

            def gone() -> None:
                loop.remove_reader(descriptor)
                os.close(descriptor)
                end()

            loop.add_reader(descriptor, gone)


def main() -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    # Errors go to the file that the driver shows if the start fails; the scratch directory's own cleaning is the
    # template's.
    logging.getLogger("distributed").setLevel(logging.ERROR)
    logging.getLogger("distributed.diskutils").setLevel(logging.CRITICAL)
    line = b""
    while not line.endswith(b"\n"):
        piece = os.read(0, 65536)
        if not piece:
            return
        line += piece
    config = json.loads(line)
    sys.path[:] = [*config["sys_path"], *(entry for entry in sys.path if entry not in config["sys_path"])]
    asyncio.run(run(config, fork_template()))
    # Threads of libraries must not keep the process alive.
    sys.stdout.flush()
    os._exit(0)


if __name__ == "__main__":
    main()
