"""Dask's own adaptive scaling, told of shoal's work.

By itself it knows of Dask's tasks only, and would end nodes that are busy with ours.
"""

from __future__ import annotations

import functools
import inspect
from typing import Any

from distributed.deploy.adaptive import Adaptive

from shoal.launch.keeping import Need
from shoal.model.errors import ShoalError


class WorkAwareAdaptive(Adaptive):
    """Dask's ``Adaptive``, on the event loop of the Dask cluster object. ``keeper.need`` says what shoal needs."""

    def __init__(self, cluster: Any, *, keeper: Any, **options: Any) -> None:
        self._keeper = keeper
        super().__init__(cluster, **options)

    @property
    def _need(self) -> Need:
        need: Need = self._keeper.need
        return need

    async def target(self) -> int:
        """Return how many workers there should be: as many as Dask's tasks need, or shoal's."""
        of_dask: int = await super().target()  # type: ignore[no-untyped-call]
        return max(of_dask, self._need.num_nodes)

    async def workers_to_close(self, target: int) -> list[str]:
        """Return those of the workers that Dask would end on which shoal has nothing."""
        names = await super().workers_to_close(target)
        identity = await self.scheduler.identity(n_workers=-1)
        busy = {worker["name"] for address, worker in identity["workers"].items() if address in self._need.busy}
        return [name for name in names if name not in busy]


def adapt(dask_cluster: Any, keeper: Any, adaptive: tuple[int, int] | None) -> None:
    """Have a Dask cluster object adapt, or stay as it is; it may block.

    Raises
    ------
    ShoalError
        It cannot.
    """
    function = getattr(dask_cluster, "adapt", None)
    if function is None:
        raise ShoalError(f"A `{type(dask_cluster).__name__}` cannot adapt: give it a number of nodes.")
    if adaptive is None:
        current = getattr(dask_cluster, "_adaptive", None)
        if current is not None:
            current.stop()
        return
    options: dict[str, Any] = {"minimum": adaptive[0], "maximum": adaptive[1]}
    if "Adaptive" in inspect.signature(function).parameters:
        options["Adaptive"] = functools.partial(WorkAwareAdaptive, keeper=keeper)
    function(**options)
