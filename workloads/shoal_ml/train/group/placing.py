"""Room for a group: how many ranks there can be, and their bundles."""

from __future__ import annotations

import shoal
from shoal.errors import InfeasibleError
from shoal_ml.train.errors import TrainingError
from shoal_ml.train.options import ScalingConfig, mesh_sizes

#: Seconds that an elastic run waits for the room that seems to be there.
MOMENT = 10.0


def reserve(scaling: ScalingConfig, before: int = 0) -> tuple[shoal.PlacementGroup, int]:
    """Reserve room for as many ranks as there can be now; waits for the least number of them.

    Parameters
    ----------
    before
        How many there were before a failure: their room may be about to become free.

    Returns
    -------
    group, world_size

    Raises
    ------
    InfeasibleError
        The cluster could never hold the least number.
    TrainingError
        There was no room in time.
    """
    least = scaling.bounds[0]
    for world_size in range(max(fitting(scaling), before), least, -1):
        group = shoal.placement_group([scaling.bundle] * world_size, scaling.placement)
        if _try(group, MOMENT):
            return group, world_size
        group.remove()
    group = shoal.placement_group([scaling.bundle] * least, scaling.placement)
    try:
        if group.wait(scaling.placement_timeout):
            return group, least
    except InfeasibleError as error:
        group.remove()
        raise InfeasibleError(
            f"{least} ranks of {scaling.bundle} each cannot be placed ({scaling.placement}): {error} Lower "
            "`num_workers` or `resources_per_worker`, or add nodes.",
            **{name: value for name, value in vars(error).items() if name in ("asked", "largest")},
        ) from None
    except BaseException:
        group.remove()
        raise
    group.remove()
    raise TrainingError(
        f"There was no room for {least} ranks of {scaling.bundle} each within {scaling.placement_timeout:g} s; free "
        f"are {shoal.available_resources()}. Wait for other work, lower `num_workers`, or raise `placement_timeout`.",
        rank=-1,
        num_failures=0,
        path="",
    )


def fitting(scaling: ScalingConfig, occupied: int = 0) -> int:
    """Return for how many ranks there seems to be room, those that run (*occupied*) included; within the bounds."""
    least, most = scaling.bounds
    if least == most:
        return least
    free = shoal.available_resources()
    room = min((int(free.get(name, 0.0) / amount) for name, amount in scaling.bundle.items() if amount), default=most)
    for world_size in range(min(most, room + occupied), least, -1):
        if scaling.mesh is None or _multiplies(scaling, world_size):
            return world_size
    return least


def _multiplies(scaling: ScalingConfig, world_size: int) -> bool:
    assert scaling.mesh is not None
    try:
        mesh_sizes(scaling.mesh, world_size)
    except ValueError:
        return False
    return True


def _try(group: shoal.PlacementGroup, timeout: float) -> bool:
    try:
        return group.wait(timeout)
    except InfeasibleError:
        return False
    except BaseException:
        group.remove()
        raise
