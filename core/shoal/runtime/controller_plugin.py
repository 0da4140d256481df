"""The controller inside a Dask scheduler."""

from __future__ import annotations

from distributed.diagnostics.plugin import SchedulerPlugin
from distributed.scheduler import Scheduler

from shoal.runtime.controller import Controller
from shoal.transport.comms import OPERATION

#: Asks for the cluster's state; answers with the snapshot.
SNAPSHOT_OPERATION = "shoal_snapshot"


class ControllerPlugin(SchedulerPlugin):
    """Starts the controller in a Dask scheduler; registering it twice changes nothing."""

    name = "shoal-controller"
    idempotent = True

    def __init__(self, cluster_id: str, cluster_name: str) -> None:
        self._cluster_id = cluster_id
        self._cluster_name = cluster_name
        self._controller: Controller | None = None

    @property
    def controller(self) -> Controller:
        """The controller, once it has been started."""
        assert self._controller is not None
        return self._controller

    async def start(self, scheduler: Scheduler) -> None:
        """Take over comms that ask for shoal."""
        self._controller = Controller(self._cluster_id, self._cluster_name, scheduler.address)
        scheduler.handlers[OPERATION] = self._controller.serve
        scheduler.handlers[SNAPSHOT_OPERATION] = self._controller.snapshot

    async def close(self) -> None:
        """The scheduler is ending."""
        if self._controller is not None:
            await self._controller.close()
