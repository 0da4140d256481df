"""The node agent inside a Dask worker."""

from __future__ import annotations

from typing import Any

from distributed.diagnostics.plugin import WorkerPlugin
from distributed.worker import Worker

from shoal.runtime.agent import Agent
from shoal.transport.comms import OPERATION


class AgentPlugin(WorkerPlugin):
    """Starts a node agent in each Dask worker, now and later; registering it twice changes nothing."""

    name = "shoal-agent"
    idempotent = True

    def __init__(self, cleanup: tuple[str, ...] = ()) -> None:
        """*cleanup* names directories to be removed when the node ends, however it ends."""
        self._cleanup = cleanup
        self._agent: Agent | None = None

    def __getstate__(self) -> dict[str, Any]:
        return {"_cleanup": self._cleanup, "_agent": None}

    async def setup(self, worker: Worker) -> None:
        """Bring the agent up; returns when the controller knows this node."""
        resources = {**worker.state.total_resources, "num_cpus": float(worker.state.nthreads)}
        resources.setdefault("memory", float(worker.memory_manager.memory_limit or 0))
        agent = self._agent = Agent(worker.address, worker.scheduler.address, worker.security, resources, self._cleanup)
        worker.handlers[OPERATION] = agent.serve
        try:
            await agent.start()
        except BaseException:
            await agent.close()
            raise

    async def teardown(self, worker: Worker) -> None:
        """End the agent, its executors and its store."""
        worker.handlers.pop(OPERATION, None)
        if self._agent is not None:
            await self._agent.close()
