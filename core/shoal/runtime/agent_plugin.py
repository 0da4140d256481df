"""The node agent inside a Dask worker."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from typing import Any

from distributed.core import Status
from distributed.diagnostics.plugin import WorkerPlugin
from distributed.system import MEMORY_LIMIT
from distributed.worker import Worker

from shoal.model.errors import ShoalError
from shoal.runtime.agent import Agent
from shoal.runtime.environment import node_settings
from shoal.runtime.gpus import count_gpus
from shoal.runtime.memory_watch import memory_settings
from shoal.runtime.store import Limits, Store, default_limits
from shoal.runtime.template_process import TemplateProcess
from shoal.transport.comms import OPERATION, address_host

#: Seconds before a node that was given up comes back, at first and at most.
REJOIN, MAX_REJOIN = 1.0, 30.0


def _do_nothing() -> None:
    """What a plugin that was sent to a worker does when its node is broken: leave is enough."""


def limits_of(node_memory: float, object_store_memory: int | None = None) -> Limits:
    """Return the limits of a node's store: as told, as the environment says, or a share of what there is."""
    limits, settings = default_limits(node_memory), node_settings()
    memory = object_store_memory or settings.store_memory or limits.memory
    disk = limits.disk if settings.spill_limit is None else settings.spill_limit
    return Limits(memory, disk)


def enforced_memory_limit(worker: Worker) -> int:
    """Return the bytes at which Dask ends a worker; 0 if it does not: without a nanny the limit is a mere wish."""
    return int(worker.memory_manager.memory_limit or 0) if worker.nanny is not None else 0


class AgentPlugin(WorkerPlugin):
    """Starts a node agent in each Dask worker, now and later; registering it twice changes nothing."""

    name = "shoal-agent"
    idempotent = True

    def __init__(
        self,
        cleanup: tuple[str, ...] = (),
        template: TemplateProcess | None = None,
        on_broken: Callable[[], None] | None = None,
        labels: Mapping[str, str] | None = None,
        object_store_memory: int | None = None,
    ) -> None:
        """Make the plugin.

        Parameters
        ----------
        cleanup
            Directories to be removed when the node ends, however it ends.
        template
            A template process that is up already.
        on_broken
            Called if the node turns out to be unable to start executors. This and *template* are for a plugin that is
            not sent anywhere.
        labels
            What ``label_selector`` finds, in addition to the node's own labels.
        object_store_memory
            Bytes that the node's object store may use; a share of its memory by default.
        """
        self._cleanup = cleanup
        self._template = template
        self._labels = dict(labels or {})
        self._object_store_memory = object_store_memory
        self._on_broken = on_broken or _do_nothing
        self._agent: Agent | None = None
        self._worker: Worker | None = None
        self._rejoining: asyncio.Task[None] | None = None

    @property
    def node_id(self) -> str:
        """The id of this node; "" before there is one."""
        return self._agent.node_id if self._agent is not None else ""

    @property
    def store(self) -> Store | None:
        """The object store of this node, once there is one."""
        return self._agent.store if self._agent is not None else None

    def __getstate__(self) -> dict[str, Any]:
        here = {"_template": None, "_on_broken": _do_nothing, "_agent": None, "_worker": None, "_rejoining": None}
        return {**self.__dict__, **here}

    async def setup(self, worker: Worker) -> None:
        """Bring the agent up; returns when the controller knows this node."""
        self._worker = worker
        await self._start_agent(worker, self._template)

    async def _start_agent(self, worker: Worker, template: TemplateProcess | None) -> None:
        resources = {**worker.state.total_resources, "num_cpus": float(worker.state.nthreads)}
        resources.setdefault("memory", float(worker.memory_manager.memory_limit or 0))
        resources.setdefault("num_gpus", resources.pop("GPU", float(count_gpus())))
        agent = self._agent = Agent(
            worker.address,
            worker.scheduler.address,
            worker.security,
            resources,
            {"host": address_host(worker.address), **node_settings().labels, **self._labels},
            self._cleanup,
            self._on_broken,
            limits_of(float(worker.memory_manager.memory_limit or MEMORY_LIMIT), self._object_store_memory),
            self._lost,
            memory_settings(enforced_memory_limit(worker), node_settings()),
        )
        worker.handlers[OPERATION] = agent.serve
        try:
            await agent.start(template)
        except BaseException:
            await agent.close()
            raise

    def _lost(self) -> None:
        """The controller has hung up on us: it ends, or we were silent for so long that it has given us up."""
        self._rejoining = asyncio.get_running_loop().create_task(self._rejoin())

    async def _rejoin(self) -> None:
        """Come back as a node without a past, as long as Dask's scheduler goes on with this worker."""
        pause = REJOIN
        while True:
            if self._agent is not None:
                await self._agent.close()
            await asyncio.sleep(pause)
            worker = self._worker
            if worker is None or worker.status != Status.running:
                return
            try:
                await self._start_agent(worker, None)
                return
            except (ShoalError, OSError, TimeoutError):
                pause = min(2 * pause, MAX_REJOIN)

    def transition(self, key: object, start: str, finish: str, **kwargs: Any) -> None:
        """Dask calls this for each of its own tasks that begins or ends here."""
        if self._agent is not None and self._worker is not None and "executing" in (start, finish):
            self._agent.dask_runs(self._worker.state.executing_count)

    async def teardown(self, worker: Worker) -> None:
        """End the agent, its executors and its store."""
        worker.handlers.pop(OPERATION, None)
        self._worker = None
        if self._rejoining is not None:
            self._rejoining.cancel()
        if self._agent is not None:
            await self._agent.close()
