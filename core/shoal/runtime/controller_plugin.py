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

    def __init__(self, cluster_id: str, cluster_name: str, *, pages: bool = False) -> None:
        """With *pages* ours are added to the scheduler's HTTP server, if they may be there."""
        self._cluster_id = cluster_id
        self._cluster_name = cluster_name
        self._pages = pages
        self._controller: Controller | None = None

    @property
    def controller(self) -> Controller:
        """The controller, once it has been started."""
        assert self._controller is not None
        return self._controller

    async def start(self, scheduler: Scheduler) -> None:
        """Take over comms that ask for shoal."""
        self._controller = Controller(self._cluster_id, self._cluster_name, scheduler.address)
        application = getattr(scheduler, "http_application", None)
        if self._pages and application is not None:
            from shoal.runtime.dashboard_pages import add_pages

            add_pages(application, scheduler.address, self._controller)
        scheduler.handlers[OPERATION] = self._controller.serve
        scheduler.handlers[SNAPSHOT_OPERATION] = self._controller.snapshot

    async def close(self) -> None:
        """The scheduler is ending."""
        if self._controller is not None:
            await self._controller.close()
