"""Where work may run, and the scheduling class that results.

All tasks of one *scheduling class* are alike to the scheduler: they share a queue and the leases that serve it. A class
is made of plain tuples, so that it can be a key and can travel as it is.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, NamedTuple

from shoal.model.resources import Resources, describe, from_wire

#: ``(key, value)`` pairs that a node must carry; a value that begins with ``!`` must not be there.
LabelSelector = tuple[tuple[str, str], ...]

STRATEGIES = ("PACK", "SPREAD", "STRICT_PACK", "STRICT_SPREAD")


class Placement(NamedTuple):
    """Which nodes a task or actor may run on, and which of those it likes best."""

    #: Prefer the node with the fewest leases to the one with the most free CPUs.
    spread: bool = False
    #: Id of the node, or address of its Dask worker; "" for any.
    node: str = ""
    #: *node* is a wish: others will do when it has no room.
    soft: bool = False
    labels: LabelSelector = ()
    #: Placement group, and which of its bundles (-1: any with room); resources are taken from the bundle's share.
    group_id: str = ""
    bundle: int = -1


ANYWHERE = Placement()


class SchedulingClass(NamedTuple):
    """What a task asks for: see the module's description."""

    resources: Resources
    placement: Placement = ANYWHERE
    #: Waiting work of a higher priority is served first, across all drivers.
    priority: int = 0

    def describe(self) -> str:
        """Say it in words: ``num_cpus=2 on node-ab12``."""
        words = describe(self.resources)
        place = self.placement
        if place.node:
            words += f"{', if possible' if place.soft else ''} on `{place.node}`"
        if place.labels:
            words += " on a node with " + ", ".join(f"{key}={value}" for key, value in place.labels)
        if place.group_id:
            words += f" in {'any bundle' if place.bundle < 0 else f'bundle {place.bundle}'} of `{place.group_id}`"
        return words


def class_from_wire(fields: Iterable[Any]) -> SchedulingClass:
    """Rebuild a class from what a message carried."""
    resources, placement, priority = fields
    spread, node, soft, labels, group_id, bundle = placement
    pairs = tuple((str(key), str(value)) for key, value in labels)
    return SchedulingClass(from_wire(resources), Placement(spread, node, soft, pairs, group_id, bundle), priority)
