"""More nodes and fewer, of the embedded cluster: its head starts and ends them. See also ``dask_scaling``.

Further nodes of an embedded cluster live in the head's process, as its first does: what runs there are executors,
which are processes of their own, and a node in the head's process cannot outlive it.
"""

from __future__ import annotations

import asyncio
import dataclasses
import logging
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Protocol

from distributed import Worker
from distributed.security import Security

from shoal.model.amounts import format_nbytes
from shoal.model.errors import ConnectError, OptionError
from shoal.runtime.agent_plugin import AgentPlugin
from shoal.runtime.controller import Controller
from shoal.runtime.store import COPY_SUFFIX, Store
from shoal.transport.comms import connect

logger = logging.getLogger("shoal")

#: Asks the head for a number of nodes; answers with how many there are, and which were kept and why.
SCALE_OPERATION = "shoal_scale"
#: Nodes of an embedded cluster at most: beyond that it is one machine pretending too much.
MAX_NODES = 64
#: Seconds between two looks at whether the tasks of a node that is to leave have ended.
POLL = 0.1
#: Seconds that the head has beyond what it was given, to say how it went.
GRACE = 10.0
#: Seconds that a node has at least to hand on what Dask itself has there.
HANDING_ON = 5.0


@dataclasses.dataclass(frozen=True, slots=True)
class Scaled:
    """How many nodes there are now, and what was kept: its id, and what is there that would be lost.

    ``together`` are nodes that end only together, and are more than were to leave.
    """

    num_nodes: int
    kept: tuple[tuple[str, str], ...] = ()
    together: tuple[str, ...] = ()

    def note(self, wanted: int) -> str:
        """Say why there are not as many nodes as *wanted*."""
        there = f"There are {self.num_nodes} nodes, not {wanted}"
        if self.together and not self.kept:
            fewer = self.num_nodes - len(self.together)
            return f"{there}: {', '.join(self.together)} end only together. Ask for {fewer} or {self.num_nodes}."
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
        """Serve :data:`SCALE_OPERATION`: have *num_nodes* in all, the first included.

        What fails for one node costs the others nothing: it is in the answer, as a sentence under ``"failed"``.
        """
        async with self._turn:
            kept: list[tuple[str, str]] = []
            errors: list[BaseException] = []
            more = num_nodes - 1 - len(self._nodes)
            try:
                if more > 0:
                    errors = await self._add(more, timeout)
                elif more < 0:
                    kept, errors = await self._remove(-more, timeout, force)
            except Exception as error:  # boundary: whoever asked is told
                errors = [error]
            answer: dict[str, Any] = {"num_nodes": 1 + len(self._nodes), "kept": kept}
            if errors:
                nodes = f"{len(errors)} of {abs(more)} node{'s' * (abs(more) != 1)}"
                done = "started" if more > 0 else "ended"
                answer["failed"] = f"{nodes} could not be {done}: {say_causes(errors)}."
            return answer

    async def close(self) -> None:
        """End every further node."""
        nodes, self._nodes = self._nodes, []
        closing = (node.worker.close(nanny=False, executor_wait=False) for node in nodes)
        await asyncio.gather(*closing, return_exceptions=True)

    async def _add(self, count: int, timeout: float) -> list[BaseException]:
        """Start *count* nodes; returns what went wrong with those that are not there after *timeout* seconds."""
        starting = [asyncio.ensure_future(self._start()) for _ in range(count)]
        try:
            await asyncio.wait(starting, timeout=timeout)
        finally:
            for start in starting:
                start.cancel()
            ends = await asyncio.gather(*starting, return_exceptions=True)
        late = TimeoutError(f"not up within {timeout:g} s")
        return [late if isinstance(end, asyncio.CancelledError) else end for end in ends if end is not None]

    async def _start(self) -> None:
        worker, plugin = self._make_worker()
        try:
            await worker
        except BaseException:
            await asyncio.gather(worker.close(nanny=False, executor_wait=False), return_exceptions=True)
            raise
        worker.http_server.stop()
        self._nodes.append(_Node(worker, plugin))

    async def _remove(
        self, count: int, timeout: float, force: bool
    ) -> tuple[list[tuple[str, str]], list[BaseException]]:
        """Let *count* nodes go, those with nothing to lose first.

        Returns those that were kept instead, and what went wrong with others.
        """
        order = sorted(reversed(self._nodes), key=lambda node: len(self._stays(node)))
        leaving, going, kept = order[:count], list[_Node](), list[tuple[str, str]]()
        deadline = time.monotonic() + timeout
        try:
            for node in leaving:
                self._controller.drain(node.node_id, True)
            await self._wait_for_tasks(leaving, deadline)
            for node in leaving:
                stays = [] if force else [*self._tasks(node), *self._stays(node)]
                if stays:
                    kept.append((node.node_id, ", ".join(stays)))
                else:
                    going.append(node)
        finally:
            for node in leaving:
                if node not in going:
                    self._controller.drain(node.node_id, False)
        ends = await asyncio.gather(*(self._end(node, deadline) for node in going), return_exceptions=True)
        return kept, [end for end in ends if end is not None]

    async def _wait_for_tasks(self, nodes: Sequence[_Node], deadline: float) -> None:
        while any(map(self._tasks, nodes)) and time.monotonic() < deadline:  # noqa: ASYNC110 - nobody tells
            await asyncio.sleep(POLL)

    def _tasks(self, node: _Node) -> list[str]:
        return say_tasks(self._controller.work_on(node.node_id)[0])

    def _stays(self, node: _Node) -> list[str]:
        """Say what would be lost with a node: actors, bundles, and values that are nowhere else."""
        _, stays = self._controller.work_on(node.node_id)
        segments = node.store.segments() if node.store is not None else []
        values = [segment.nbytes for segment in segments if not segment.name.endswith(COPY_SUFFIX)]
        if values:
            stays.append(say_values(values))
        return stays

    async def _end(self, node: _Node, deadline: float) -> None:
        """End a node; what Dask itself has there goes to others first, if it can by *deadline* (monotonic)."""
        try:
            seconds = max(HANDING_ON, deadline - time.monotonic())
            await asyncio.wait_for(node.worker.close_gracefully(reason="scaled down"), seconds)
        except Exception as error:  # boundary: a node that has to go goes
            logger.warning("node %s ends without handing on what Dask has there: %s", node.node_id, say_causes([error]))
            await node.worker.close(nanny=False, executor_wait=False)
        self._nodes.remove(node)


# -- in the driver -----------------------------------------------------------------------------------------------------


class Scaler(Protocol):
    """Whatever can scale the cluster that a driver has joined."""

    def scale(self, num_nodes: int, timeout: float, force: bool, session: ScalableSession) -> Scaled:
        """See :meth:`shoal.Cluster.scale`."""
        ...


class ScalableSession(Protocol):
    """What a scaler needs of a driver's session."""

    @property
    def address(self) -> str: ...
    @property
    def security(self) -> Any: ...
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
            raise ConnectError(str(answer["failed"]), address=self._address)
        return Scaled(answer["num_nodes"], tuple((str(node), str(why)) for node, why in answer["kept"]))


# -- in words ----------------------------------------------------------------------------------------------------------


def say_tasks(count: int) -> list[str]:
    """Name executors that run tasks as something that keeps a node; nothing for none."""
    return [f"{count} executor{'s' * (count != 1)} with tasks"] if count else []


def say_values(sizes: Sequence[int]) -> str:
    """Name values of these sizes (bytes) as something that would be lost."""
    return f"{len(sizes)} value{'s' * (len(sizes) != 1)} ({format_nbytes(sum(sizes))})"


def say_causes(errors: Sequence[BaseException]) -> str:
    """Say what lies at the bottom of *errors*, each thing once."""
    causes = (cause for error in errors for cause in _causes(error))
    words = (f"{type(cause).__name__}: {' '.join(str(cause).split())}".rstrip(": .") for cause in causes)
    return "; ".join(dict.fromkeys(words))


def _causes(error: BaseException) -> Iterator[BaseException]:
    if isinstance(error, BaseExceptionGroup):
        for inner in error.exceptions:
            yield from _causes(inner)
    elif error.__cause__ is not None:
        yield from _causes(error.__cause__)
    else:
        yield error
