"""A cluster without a driver: ``python -m shoal.launch.detached`` keeps one until it is stopped.

It reads its configuration (:class:`shoal.launch.starting.DetachedConfig`), JSON, from standard input, writes one line
of JSON to standard output when the cluster is ready or cannot be, and to standard error what it has to say for the log.
By its spec the cluster is one of three: in this process, as an embedded one is; of a Dask cluster class, whose object
lives here; or one that runs already, which is joined and only listed by this process.
"""

from __future__ import annotations

import asyncio
import contextlib
import importlib
import json
import logging
import os
import signal
import socket
import sys
import time
import traceback
from collections.abc import Callable
from typing import Any

from distributed.security import Security

from shoal.launch.adapting import adapt
from shoal.launch.control import STOP_OPERATION, Operation, serve_operations, tell_keeper
from shoal.launch.dask_cluster import endpoint_of, install, pem_texts, security_from
from shoal.launch.dask_view import DaskWatch
from shoal.launch.head import CLOSE_TIMEOUT, local_cluster, stopper
from shoal.launch.keeping import SCALE_TIMEOUT, Keeper
from shoal.launch.registry import Connection, register
from shoal.launch.scaling import GRACE, SCALE_OPERATION
from shoal.launch.specs import Spec
from shoal.launch.watching import ClusterWatch
from shoal.model.errors import ConnectError, ShoalError, ShoalMissingError
from shoal.model.suggest import did_you_mean
from shoal.runtime.template_process import fork_template
from shoal.transport.comms import address_host, host_towards, listen

#: Seconds for joining what was started, what is said to run, and for a Dask cluster object to end what it started.
JOIN_TIMEOUT, ADDRESS_TIMEOUT, DASK_CLOSE_TIMEOUT = 60.0, 15.0, 30.0
#: Seconds between two looks at whether nodes have come or gone.
POLL = 0.2


def say(text: str) -> None:
    """Write a line to the log."""
    print(f"{time.strftime('%H:%M:%S')} {text}", file=sys.stderr, flush=True)


class _Ready:
    """The line that whoever starts us waits for; the file stays open until this process ends, which tells of that."""

    def __init__(self) -> None:
        # What libraries print belongs to the log.
        self._descriptor = os.dup(1)
        os.set_inheritable(self._descriptor, False)
        os.dup2(2, 1)

    def tell(self, **fields: Any) -> None:
        """Say how it went; only the first word counts."""
        with contextlib.suppress(OSError):  # nobody waits any more
            os.write(self._descriptor, json.dumps(fields).encode() + b"\n")


# -- on this machine ---------------------------------------------------------------------------------------------------


async def _keep_local(cluster_id: str, spec: Spec, ready: _Ready, template: Any) -> None:
    ended = asyncio.Event()
    _end_on_signal(ended, CLOSE_TIMEOUT)
    options = {"num_gpus": None, "resources": {}, "labels": {}, "object_store_memory": None, **spec.options}
    options["num_cpus"] = options.get("num_cpus") or len(os.sched_getaffinity(0))
    config = {"id": cluster_id, "name": spec.name, "pid": os.getpid(), "notebook": "", **options}
    connections: list[Connection] = []

    async def scale(num_nodes: int) -> None:
        connection = connections[0]
        security = security_from(connection.tls_files())
        fields = {"num_nodes": num_nodes, "timeout": SCALE_TIMEOUT, "force": False}
        await tell_keeper(connection.address, security, SCALE_OPERATION, SCALE_TIMEOUT + GRACE, **fields)

    keeper = Keeper(ended, spec.idle_stop, scale, None)
    async with local_cluster(config, template, ended, "detached", keeper.operations) as connection:
        connections.append(connection)
        security = security_from(connection.tls_files())
        if (spec.nodes or 1) > 1:
            await scale(spec.nodes or 1)
        await _keep(keeper, connection, security, ended, ready, [], spec.adaptive)


# -- of a Dask cluster class -------------------------------------------------------------------------------------------


def make_dask_cluster(spec: Spec) -> Any:
    """Return the Dask cluster object of a spec, which has started its cluster.

    Raises
    ------
    ShoalError
        There is no such class, or it does not take these options.
    """
    cluster_class = _find_class(spec.cluster_class)
    options = dict(spec.options)
    if _makes_own_tls(cluster_class) and "security" not in options and "protocol" not in options:
        options["security"] = Security.temporary()
    try:
        return cluster_class(**options)
    except TypeError as error:
        traceback.print_exc()
        raise ShoalError(f"`{spec.cluster_class}` does not take these options: {error}.") from error


def _find_class(path: str) -> Any:
    module_name, _, name = path.rpartition(".")
    try:
        module = importlib.import_module(module_name)
    except ImportError as error:
        raise ShoalError(f"`{path}` cannot be imported with {sys.executable}: {error}.") from error
    found = getattr(module, name, None)
    if not isinstance(found, type):
        classes = [name for name, value in vars(module).items() if isinstance(value, type)]
        raise ShoalError(f"`{module_name}` has no class `{name}`.{did_you_mean(name, classes)}")
    if not hasattr(found, "scale") or not hasattr(found, "close"):
        raise ShoalError(f"`{path}` is no Dask cluster class: it has no `scale` and `close`.")
    return found


def _makes_own_tls(cluster_class: Any) -> bool:
    """Whether a temporary certificate is enough: all processes of its clusters come from one."""
    from distributed import LocalCluster

    return issubclass(cluster_class, LocalCluster)


class _DaskNodes:
    """Scales a Dask cluster object that lives in this process; it chooses for itself which workers end."""

    def __init__(self, dask_cluster: Any, watch: Callable[[], ClusterWatch]) -> None:
        self._dask_cluster = dask_cluster
        self._watch = watch

    async def scale(self, num_nodes: int, timeout: float, force: bool) -> dict[str, Any]:
        """Serve :data:`~shoal.launch.scaling.SCALE_OPERATION`."""
        try:
            snapshot = self._watch().snapshot or {"nodes": [], "actors": []}
            kept = [] if force or num_nodes >= len(snapshot["nodes"]) else _find_kept(snapshot)
            if not kept:
                await asyncio.to_thread(self._dask_cluster.scale, num_nodes)
                await self._wait_for(num_nodes, timeout)
            return {"num_nodes": self._count(), "kept": kept}
        except Exception as error:  # boundary: whoever asked is told
            return {"failed": str(error) or type(error).__name__}

    async def _wait_for(self, num_nodes: int, timeout: float) -> None:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(timeout):
                while self._count() != num_nodes:  # noqa: ASYNC110 - the snapshot changes by itself
                    await asyncio.sleep(POLL)

    def _count(self) -> int:
        snapshot = self._watch().snapshot
        return len(snapshot["nodes"]) if snapshot is not None else 0


def _find_kept(snapshot: dict[str, Any]) -> list[tuple[str, str]]:
    """Say what the nodes have that would be lost: any of them may be ended."""
    kept: dict[str, list[str]] = {}
    for actor in snapshot["actors"]:
        if actor["state"] == "alive":
            kept.setdefault(actor["node"], []).append(f"actor `{actor['name'] or actor['class_name']}`")
    for node in snapshot["nodes"]:
        if node["store_used"]:
            kept.setdefault(node["id"], []).append("values")
    return [(node, ", ".join(what)) for node, what in kept.items()]


async def _keep_dask(cluster_id: str, spec: Spec, ready: _Ready, dask_cluster: Any) -> None:
    ended = asyncio.Event()
    _end_on_signal(ended, DASK_CLOSE_TIMEOUT)
    address, security = endpoint_of(dask_cluster)
    if address.startswith("inproc"):
        raise ShoalError(
            f"The cluster of `{spec.cluster_class}` lives inside one process (`{address}`), where no notebook reaches "
            "it: leave out `processes: false`."
        )
    say(f"the scheduler is at {address}")
    if spec.nodes is not None and spec.adaptive is None:
        await asyncio.to_thread(dask_cluster.scale, spec.nodes)

    async def adapt_dask(adaptive: tuple[int, int] | None) -> None:
        await asyncio.to_thread(adapt, dask_cluster, keeper, adaptive)

    keeper = Keeper(ended, spec.idle_stop, None, adapt_dask)
    await _keep_other(cluster_id, spec, ready, keeper, ended, address, security, dask_cluster)


# -- one that runs already ---------------------------------------------------------------------------------------------


async def _keep_joined(cluster_id: str, spec: Spec, ready: _Ready) -> None:
    ended = asyncio.Event()
    _end_on_signal(ended, CLOSE_TIMEOUT)
    keeper = Keeper(ended, spec.idle_stop, None, None)
    security = security_from(dict(spec.tls))
    await _keep_other(cluster_id, spec, ready, keeper, ended, spec.address, security, None)


async def _keep_other(
    cluster_id: str,
    spec: Spec,
    ready: _Ready,
    keeper: Keeper,
    ended: asyncio.Event,
    address: str,
    security: Security,
    dask_cluster: Any,
) -> None:
    """Bring shoal into a Dask cluster, and answer for it at an address of our own."""
    say("bringing shoal into it")
    timeout = ADDRESS_TIMEOUT if dask_cluster is None else JOIN_TIMEOUT
    has_shoal = True
    try:
        await install(address, security, spec.name, timeout, cluster_id)
    except ShoalMissingError as error:
        if dask_cluster is not None:  # started for shoal alone
            raise
        say(str(error))
        has_shoal = False
    watches: list[ClusterWatch] = []
    operations: dict[str, Operation] = {**keeper.operations, STOP_OPERATION: stopper(ended, DASK_CLOSE_TIMEOUT)}
    if dask_cluster is not None:
        operations[SCALE_OPERATION] = _DaskNodes(dask_cluster, lambda: watches[0]).scale
    # Who can reach the port of a cluster without TLS can do what they like there: not here as well.
    secure = bool(pem_texts(security))
    host = host_towards(address_host(address)) if secure else "127.0.0.1"
    protocol = "tls://" if secure else "tcp://"
    listener, control = await listen(host, protocol, security, lambda comm: serve_operations(comm, operations))
    try:
        connection = Connection(
            id=cluster_id,
            name=spec.name,
            address=address,
            kind="detached",
            pid=os.getpid(),
            host=socket.gethostname(),
            created=time.time(),
            notebook="",
            python=sys.executable,
            control=control,
        )
        registration = register(connection, pem_texts(security))
        try:
            if has_shoal:
                await _keep(keeper, connection, security, ended, ready, watches, spec.adaptive)
            else:
                await _keep_in_view(connection, security, ended, ready)
        finally:
            registration.remove()
    finally:
        listener.stop()


# -- all of them -------------------------------------------------------------------------------------------------------


async def _keep(
    keeper: Keeper,
    connection: Connection,
    security: Security,
    ended: asyncio.Event,
    ready: _Ready,
    watches: list[ClusterWatch],
    adaptive: tuple[int, int] | None,
) -> None:
    """Say that the cluster is there, and keep it to its end; *watches* gets what looks at it."""

    def lost(reason: str) -> None:
        say(reason)
        ended.set()

    watch = ClusterWatch(connection.address, security, lambda *_: None, lost, interval=1.0)
    watches.append(watch)
    await watch.open(JOIN_TIMEOUT)
    try:
        if adaptive is not None:
            await keeper.set_adaptive(adaptive)
        say(f"ready: `{connection.name}` at {connection.address}")
        ready.tell(ready=connection.id)
        keeping = asyncio.create_task(keeper.run(watch))
        await ended.wait()
        say("ending")
        keeping.cancel()
        await asyncio.gather(keeping, return_exceptions=True)
    finally:
        await watch.close()


async def _keep_in_view(connection: Connection, security: Security, ended: asyncio.Event, ready: _Ready) -> None:
    """Keep a Dask cluster without shoal listed, so that panels show what Dask tells of it, as long as it is there."""

    def lost(reason: str) -> None:
        say(reason)
        ended.set()

    watch = DaskWatch(connection.address, security, lambda *_: None, lost)
    await watch.open(JOIN_TIMEOUT)
    try:
        say(f"`{connection.name}` is listed as it is: a Dask cluster without shoal")
        ready.tell(ready=connection.id)
        await ended.wait()
        say("ending")
    finally:
        await watch.close()


def _end_on_signal(ended: asyncio.Event, limit: float) -> None:
    """Have SIGTERM end the cluster, in good order within *limit* seconds, else at once."""
    loop = asyncio.get_running_loop()

    def end() -> None:
        ended.set()
        loop.call_later(limit, os._exit, 1)

    loop.add_signal_handler(signal.SIGTERM, end)


def _keep_by(cluster_id: str, spec: Spec, ready: _Ready) -> None:
    if spec.address:
        say(f"joining {spec.address}")
        asyncio.run(_keep_joined(cluster_id, spec, ready))
    elif not spec.cluster_class:
        say("starting a cluster on this machine")
        asyncio.run(_keep_local(cluster_id, spec, ready, fork_template()))
    else:
        say(f"starting `{spec.cluster_class}`")
        dask_cluster = make_dask_cluster(spec)
        try:
            asyncio.run(_keep_dask(cluster_id, spec, ready, dask_cluster))
        finally:
            dask_cluster.close()


def _root_of(error: BaseException) -> str:
    """Say what an error came from: Dask wraps what a worker said in errors that say nothing."""
    while error.__cause__ is not None:
        error = error.__cause__
    return f"{type(error).__name__}: {error}"


def main() -> None:
    # A group of our own: it outlives whoever started it, and ends as a whole.
    with contextlib.suppress(PermissionError):  # we lead one already
        os.setsid()
    ready = _Ready()
    for signum in (signal.SIGINT, signal.SIGHUP):
        signal.signal(signum, signal.SIG_IGN)
    # While a Dask cluster object starts its cluster, it must be able to take back what it has begun.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    logging.basicConfig(format="%(asctime)s %(name)s: %(message)s", datefmt="%H:%M:%S", level=logging.WARNING)
    logging.getLogger("distributed").setLevel(logging.ERROR)
    logging.getLogger("distributed.diskutils").setLevel(logging.CRITICAL)
    config = json.loads(sys.stdin.buffer.read())
    with contextlib.suppress(OSError):
        os.chdir(config["directory"])
    sys.path[:] = [*config["sys_path"], *(entry for entry in sys.path if entry not in config["sys_path"])]
    status = 0
    try:
        fields = config["spec"]
        spec = Spec(**{**fields, "adaptive": tuple(fields["adaptive"]) if fields["adaptive"] else None})
        _keep_by(config["id"], spec, ready)
    except SystemExit:
        raise
    except (ShoalError, ConnectError) as error:
        say(str(error))
        ready.tell(failed=str(error))
        status = 1
    except BaseException as error:
        traceback.print_exc()
        ready.tell(failed=_root_of(error))
        status = 1
    sys.stderr.flush()
    # Threads of libraries must not keep the process alive.
    os._exit(status)


if __name__ == "__main__":
    main()
