"""A cell's way into the cluster: as tasks, as a call of an actor, or in the background."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

from IPython.core.error import UsageError

import shoal
from shoal.errors import ActorDiedError, ShoalError
from shoal.model.ids import random_id
from shoal_kernel.cell import CellSpec, explain_loss
from shoal_kernel.cell_run import CellRun, Ended
from shoal_kernel.hosting import BACKGROUND, WATCH, BackgroundCell, BackgroundStatus, CellHost
from shoal_kernel.packing import Package, UnpicklableVariable, pack
from shoal_kernel.parts import Part, Parts
from shoal_kernel.shipping import Shipment
from shoal_kernel.tasks import CellPart, CellTasks, RunOptions

#: Seconds within which background cells say how they stand.
STATUS_TIMEOUT = 10.0


@dataclasses.dataclass(frozen=True)
class Launch:
    """All that is needed to launch a cell."""

    spec: CellSpec
    shipment: Shipment
    parts: Parts
    options: RunOptions
    #: Called with the launched cell and what has ended.
    take: Callable[[CellRun, Ended], Any]
    #: Called when all has ended.
    close: Callable[[], None] = lambda: None

    def start(self) -> CellRun:
        """Launch it as tasks of this notebook."""
        tasks = self.tasks()
        started = tasks.start()

        def close() -> None:
            started.end()
            self.close()

        return CellRun(random_id("cell"), tasks, self.take, started.refs, close=close)

    def start_in_background(self, keep: float) -> CellRun:
        """Launch it so that it outlives this notebook; *keep* says how long it is kept when it has ended."""
        run_id, tasks = random_id("cell"), self.tasks()
        options = {"name": run_id, "namespace": BACKGROUND, "lifetime": "detached", "cell": self.options.tag}
        host = shoal.remote(BackgroundCell).options(**options).remote(tasks, run_id, keep)
        return CellRun(run_id, tasks, self.take, host=host, begun=host.begin.remote(), close=self.close)

    def call(self, host: shoal.ActorHandle, *, background: bool) -> CellRun:
        """Run it in an actor, which keeps its variables."""
        tasks = self.tasks()
        num_returns = 3 if self.spec.keeps_value else 2
        method = host.run.options(
            num_returns=num_returns,
            cell=self.options.tag,
            name=self.options.name,
            timeout=self.options.timeout if background else None,
        )
        refs = method.remote(tasks.spec, tasks.package, tasks.parts[0].own, *tasks.stored)
        return CellRun(random_id("cell"), tasks, self.take, [refs], close=self.close, is_call=True)

    def tasks(self) -> CellTasks:
        parts = tuple(map(self._part, self.parts.parts, self.shipment.own))
        package = self.shipment.package if len(parts) == 1 else shoal.put(self.shipment.package)
        return CellTasks(self.spec, package, self.shipment.stored, parts, self.parts.kind, self.options)

    def _part(self, part: Part, own: Package | None) -> CellPart:
        rank = part.key if self.parts.kind == "list" else -1
        return CellPart(part.label, part.key, own, part.options, rank)


def pack_parts(parts: Parts, user_ns: dict[str, Any]) -> Iterator[Package | None]:
    """Pack the variables that each part has of its own, one part after the other; None where it has none.

    Parameters
    ----------
    user_ns
        The notebook's variables: what functions among the parts' own read comes from there.

    Raises
    ------
    UsageError
        One of them cannot be pickled.
    """
    for part in parts.parts:
        try:
            yield pack(part.variables, {**user_ns, **part.variables}, user_ns) if part.variables else None
        except UnpicklableVariable as error:
            loss = explain_loss(error, error.name)
            raise UsageError(
                f"`{part.label}` cannot be sent: `{loss.path}`: {loss.reason}. Nothing was sent."
            ) from None


def find_host(name: str, options: Mapping[str, Any], tag: str) -> shoal.ActorHandle:
    """Return the actor that keeps the variables of ``--actor`` *name*; started if there is none.

    Raises
    ------
    UsageError
        An actor of this name is something else.
    """
    # It answers some calls while others run.
    actor = shoal.remote(concurrency_groups={WATCH: 4})(CellHost)
    host: shoal.ActorHandle = actor.options(**options, name=name, get_if_exists=True, cell=tag).remote()
    if not {"run", "names"} <= set(dir(host)):
        raise UsageError(f"`{name}` is an actor of another kind; choose another name for `--actor`.")
    return host


def find_background(run_id: str, take: Callable[[CellRun, Ended], Any]) -> CellRun:
    """Return a handle of a background cell, whoever has launched it."""
    host = shoal.get_actor(run_id, BACKGROUND)
    tasks, started = shoal.get(host.about.remote(), timeout=30.0)
    return CellRun(run_id, tasks, take, host=host, begun=host.refs.remote(), started=started)


def background_statuses(run_ids: Iterable[str]) -> dict[str, BackgroundStatus | None]:
    """Return how background cells stand, whoever has launched them; None for one that does not answer.

    Those that are gone by now are left out.
    """
    asked: dict[str, shoal.ObjectRef] = {}
    for run_id in run_ids:
        with contextlib.suppress(ValueError):
            asked[run_id] = shoal.get_actor(run_id, BACKGROUND).status.remote()
    ready = set(shoal.wait(list(asked.values()), num_returns=len(asked), timeout=STATUS_TIMEOUT)[0]) if asked else set()
    found: dict[str, BackgroundStatus | None] = {}
    for run_id, ref in asked.items():
        try:
            found[run_id] = shoal.get(ref) if ref in ready else None
        except ActorDiedError:
            continue
        except ShoalError:  # whatever else is wrong with it, it is told of
            found[run_id] = None
    return found


def background_ids() -> list[str]:
    """Return the ids of all background cells in the cluster."""
    from shoal.api.actors import list_names
    from shoal.api.session import owner_or_init

    return sorted(name for namespace, name, _ in list_names(owner_or_init()) if namespace == BACKGROUND)
