"""The actor that is one rank of a training run."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import shoal
from shoal.api.ranks import Rank
from shoal_ml.train.context import TrainContext
from shoal_ml.train.group.coordinator import Orders
from shoal_ml.train.group.rank_session import RankSession, Start
from shoal_ml.train.group.reports import RankReport, Saved
from shoal_ml.train.options import mesh_sizes
from shoal_ml.train.session import Stopped, running
from shoal_ml.train.shards import receive

#: Name of the file in the run's directory by which ranks see whether they have the same one.
PROBE = ".probe"


@dataclasses.dataclass(frozen=True)
class RankOrder:
    """All that a rank has to know."""

    around: Rank
    coordinator: shoal.ActorHandle
    start: Start
    name: str
    #: Directory of the run, on the driver's machine.
    storage: str
    #: Where drafts go, if the directory is shared.
    drafts: str
    #: What the file :data:`PROBE` says; None if the directory is not to be taken for shared.
    probe: str | None
    attempt: int
    num_threads: int
    uses_gpu: bool
    mesh: Mapping[str, int] | None
    asynchronous: bool
    allow_nan: bool


class ActorLink:
    """Reaches the coordinator's actor."""

    def __init__(self, coordinator: shoal.ActorHandle) -> None:
        self._coordinator = coordinator

    def report(self, report: RankReport) -> Orders:
        orders: Orders = shoal.get(self._coordinator.report.remote(report))
        return orders

    def saved(self, rank: int, number: int, saved: Saved) -> None:
        shoal.get(self._coordinator.saved.remote(rank, number, saved))


class RankWorker:
    """Runs the loop once, as one rank of a group."""

    def run(self, order: RankOrder, work: tuple[Callable[..., Any], Any], sent: Mapping[str, tuple[str, Any]]) -> Any:
        """Run the loop; returns what it returns, or None if it was stopped."""
        import torch
        import torch.distributed as distributed

        torch.set_num_threads(order.num_threads)
        around = order.around
        with around:
            session = RankSession(
                _context(order),
                ActorLink(order.coordinator),
                order.start,
                drafts=Path(order.drafts) if _is_shared(order) else None,
                asynchronous=order.asynchronous,
                allow_nan=order.allow_nan,
            )
            values = {name: (kind, _value(one)) for name, (kind, one) in sent.items()}
            session.shards = receive(values, around.rank, around.world_size, session.meter.count)
            result = run_loop(session, *work)
            # Whoever still waits for this rank in a collective fails at once.
            distributed.destroy_process_group()
            shoal.get(order.coordinator.end.remote(around.rank))
        return result


def run_loop(session: RankSession, loop: Callable[..., Any], config: Any) -> Any:
    """Run a loop in a session to its end."""
    try:
        with running(session):
            try:
                return loop() if config is None else loop(config)
            except Stopped:
                return None
            finally:
                session.shards = {}
                session.finish()
    finally:
        session.close()


def _context(order: RankOrder) -> TrainContext:
    around = order.around
    nodes = list(dict.fromkeys(around.group.nodes()))
    here = shoal.get_runtime_context().node_id
    device = f"cuda:{os.environ['LOCAL_RANK']}" if order.uses_gpu else "cpu"
    mesh = None
    if order.mesh is not None:
        from torch.distributed.device_mesh import init_device_mesh

        sizes = mesh_sizes(order.mesh, around.world_size)
        mesh = init_device_mesh(device.partition(":")[0], tuple(sizes.values()), mesh_dim_names=tuple(sizes))
    return TrainContext(
        rank=around.rank,
        world_size=around.world_size,
        local_rank=int(os.environ["LOCAL_RANK"]),
        local_world_size=int(os.environ["LOCAL_WORLD_SIZE"]),
        node_rank=nodes.index(here) if here in nodes else 0,
        attempt=order.attempt,
        name=order.name,
        storage=order.storage,
        device=device,
        mesh=mesh,
    )


def _is_shared(order: RankOrder) -> bool:
    try:
        return order.probe is not None and Path(order.storage, PROBE).read_text() == order.probe
    except OSError:
        return False


def _value(one: Any) -> Any:
    return shoal.get(one) if isinstance(one, shoal.ObjectRef) else one
