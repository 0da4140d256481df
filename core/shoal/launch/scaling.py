"""More nodes and fewer: of the embedded cluster, by its head, and of a Dask cluster, by whatever started it.

Further nodes of an embedded cluster live in the head's process, as its first does: what runs there are executors,
which are processes of their own, and a node in the head's process cannot outlive it.
"""

from __future__ import annotations

import asyncio
import dataclasses
import inspect
import time
from collections.abc import Callable, Sequence
from typing import Any, Protocol

from distributed import Worker
from distributed.security import Security

from shoal.model.amounts import format_nbytes
from shoal.model.errors import ConnectError, OptionError
from shoal.runtime.agent_plugin import AgentPlugin
from shoal.runtime.controller import Controller
from shoal.runtime.store import COPY_SUFFIX, Store
from shoal.transport.comms import connect

#: Asks the head for a number of nodes; answers with how many there are, and which were kept and why.
SCALE_OPERATION = "shoal_scale"
#: Nodes of an embedded cluster at most: beyond that it is one machine pretending too much.
MAX_NODES = 64
#: Seconds between two looks at whether the tasks of a node that is to leave have ended.
POLL = 0.1
#: Seconds that the head has beyond what it was given, to say how it went.
GRACE = 10.0


@dataclasses.dataclass(frozen=True, slots=True)
class Scaled:
    """How many nodes there are now, and what was kept: its id, and what is there that would be lost."""

    num_nodes: int
    kept: tuple[tuple[str, str], ...] = ()

    def note(self, wanted: int) -> str:
        """Say why there are not as many nodes as *wanted*."""
        there = f"There are {self.num_nodes} nodes, not {wanted}"
        if not self.kept:
            return f"{there}: the cluster has not started or ended more in time, and may yet."
        what = "; ".join(f"{node} has {why}" for node, why in self.kept)
        return f"{there}: {what}. End or get them first, or let them be lost with `force=True`."


# -- in the head -------------------------------------------------------------------------------------------------------


@dataclasses.dataclass(slots=True)
class _Node:
    worker: Worker
    plugin: AgentPlugin

    @property
    def node_id(self) -> str:
        return self.plugin.node_id

    @property
    def store(self) -> Store | None:
        return self.plugin.store


class HeadNodes:
    """The nodes that an embedded cluster has in addition to its first. Lives on the head's event loop."""

    def __init__(self, controller: Controller, make_worker: Callable[[], tuple[Worker, AgentPlugin]]) -> None:
        """``make_worker()`` returns a Dask worker that has not been started, and our plugin in it."""
        self._controller = controller
        self._make_worker = make_worker
        self._nodes: list[_Node] = []
        #: One request at a time: the next finds what the one before has left.
        self._turn = asyncio.Lock()

    async def scale(self, num_nodes: int, timeout: float, force: bool) -> dict[str, Any]:
        """Serve :data:`SCALE_OPERATION`: have *num_nodes* in all, the first included."""
        async with self._turn:
            kept: list[tuple[str, str]] = []
            more = num_nodes - 1 - len(self._nodes)
            try:
                if more > 0:
                    await asyncio.wait_for(self._add(more), timeout)
                elif more < 0:
                    kept = await self._remove(-more, timeout, force)
            except Exception as error:  # boundary: whoever asked is told
                return {"failed": str(error) or type(error).__name__}
            return {"num_nodes": 1 + len(self._nodes), "kept": kept}

    async def close(self) -> None:
        """End every further node."""
        nodes, self._nodes = self._nodes, []
        await asyncio.gather(*(node.worker.close(nanny=False, executor_wait=False) for node in nodes))

    async def _add(self, count: int) -> None:
        async with asyncio.TaskGroup() as starting:
            for _ in range(count):
                starting.create_task(self._start())

    async def _start(self) -> None:
        worker, plugin = self._make_worker()
        try:
            await worker
        except BaseException:
            await worker.close(nanny=False, executor_wait=False)
            raise
        worker.http_server.stop()
        self._nodes.append(_Node(worker, plugin))

    async def _remove(self, count: int, timeout: float, force: bool) -> list[tuple[str, str]]:
        """Let *count* nodes go, those with nothing to lose first; returns those that were kept instead."""
        order = sorted(reversed(self._nodes), key=lambda node: len(self._stays(node)))
        leaving, kept = order[:count], []
        for node in leaving:
            self._controller.drain(node.node_id, True)
        await self._wait_for_tasks(leaving, timeout)
        for node in leaving:
            stays = [] if force else [*self._tasks(node), *self._stays(node)]
            if stays:
                kept.append((node.node_id, ", ".join(stays)))
                self._controller.drain(node.node_id, False)
            else:
                await self._end(node)
        return kept

    async def _wait_for_tasks(self, nodes: Sequence[_Node], timeout: float) -> None:
        deadline = time.monotonic() + timeout
        while any(map(self._tasks, nodes)) and time.monotonic() < deadline:  # noqa: ASYNC110 - nobody tells
            await asyncio.sleep(POLL)

    def _tasks(self, node: _Node) -> list[str]:
        count, _ = self._controller.work_on(node.node_id)
        return [f"{count} executor{'s' * (count != 1)} with tasks"] if count else []

    def _stays(self, node: _Node) -> list[str]:
        """Say what would be lost with a node: actors, bundles, and values that are nowhere else."""
        _, stays = self._controller.work_on(node.node_id)
        segments = node.store.segments() if node.store is not None else []
        values = [segment.nbytes for segment in segments if not segment.name.endswith(COPY_SUFFIX)]
        if values:
            stays.append(_say_values(values))
        return stays

    async def _end(self, node: _Node) -> None:
        """End a node; what Dask itself has there goes to others first."""
        self._nodes.remove(node)
        await node.worker.close_gracefully(reason="scaled down")


# -- in the driver -----------------------------------------------------------------------------------------------------


class Scaler(Protocol):
    """Whatever can scale the cluster that a driver has joined."""

    def scale(self, num_nodes: int, timeout: float, force: bool, session: ScalableSession) -> Scaled:
        """See :meth:`shoal.Cluster.scale`."""
        ...


class ScalableSession(Protocol):
    """What a scaler needs of a driver's session."""

    @property
    def portal(self) -> Any: ...
    @property
    def owner(self) -> Any: ...
    def snapshot(self) -> dict[str, Any]: ...


class HeadScaler:
    """Has the head of an embedded cluster scale it."""

    def __init__(self, address: str, security: Security) -> None:
        self._address = address
        self._security = security

    def scale(self, num_nodes: int, timeout: float, force: bool, session: ScalableSession) -> Scaled:
        if num_nodes > MAX_NODES:
            raise OptionError(
                f"An embedded cluster has {MAX_NODES} nodes at most: {num_nodes} need a real one.", option="num_nodes"
            )
        scaled: Scaled = session.portal.call(self._ask(num_nodes, timeout, force), timeout + GRACE)
        return scaled

    async def _ask(self, num_nodes: int, timeout: float, force: bool) -> Scaled:
        comm = await connect(self._address, self._security, timeout)
        try:
            await comm.write(
                {"op": SCALE_OPERATION, "num_nodes": num_nodes, "timeout": timeout, "force": force, "close": True}
            )
            answer: Any = await comm.read()
        except OSError as error:
            raise ConnectError(f"The cluster was lost while it was scaled: {error}", address=self._address) from error
        finally:
            comm.abort()
        if "failed" in answer:
            raise ConnectError(f"Not all nodes could be started: {answer['failed']}", address=self._address)
        return Scaled(answer["num_nodes"], tuple((str(node), str(why)) for node, why in answer["kept"]))


class DaskScaler:
    """Has a Dask cluster object scale its cluster; it starts and ends workers in its own time, of its own choice."""

    def __init__(self, dask_cluster: Any) -> None:
        self._dask_cluster = dask_cluster

    def scale(self, num_nodes: int, timeout: float, force: bool, session: ScalableSession) -> Scaled:
        deadline = time.monotonic() + timeout
        snapshot = session.snapshot()
        if num_nodes < len(snapshot["nodes"]) and not force:
            kept = _find_stays(snapshot, session.owner.ask_stores(min(timeout, 5.0))[0])
            if kept:
                return Scaled(len(snapshot["nodes"]), kept)
        result = self._dask_cluster.scale(num_nodes)
        if inspect.iscoroutine(result):
            result.close()
            raise OptionError(
                "This Dask cluster object is asynchronous: `await` its own `scale`; shoal's nodes follow.",
                option="num_nodes",
            )
        while len(session.snapshot()["nodes"]) != num_nodes and time.monotonic() < deadline:
            time.sleep(POLL)
        return Scaled(len(session.snapshot()["nodes"]))


def find_scaler(dask_object: Any) -> Scaler | None:
    """Return what can scale the cluster of a Dask cluster object or client; None if it has nothing that can."""
    candidate = getattr(dask_object, "cluster", None) or dask_object
    return DaskScaler(candidate) if callable(getattr(candidate, "scale", None)) else None


def _find_stays(snapshot: dict[str, Any], stores: dict[str, Any]) -> tuple[tuple[str, str], ...]:
    """Say what the nodes of a Dask cluster have that would be lost: any of them may be ended."""
    stays: dict[str, list[str]] = {}
    for actor in snapshot["actors"]:
        if actor["state"] == "alive":
            stays.setdefault(actor["node"], []).append(f"actor `{actor['name'] or actor['class_name']}`")
    for node, found in stores.items():
        segments = found.segments if found is not None else ()
        values = [
            nbytes for name, nbytes, where, _ in segments if where != "leaving" and not name.endswith(COPY_SUFFIX)
        ]
        if values:
            stays.setdefault(node, []).append(_say_values(values))
    return tuple((node, ", ".join(what)) for node, what in stays.items())


def _say_values(sizes: Sequence[int]) -> str:
    return f"{len(sizes)} value{'s' * (len(sizes) != 1)} ({format_nbytes(sum(sizes))})"
