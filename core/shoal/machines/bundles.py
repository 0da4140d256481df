"""Where the bundles of a placement group go: all of them, or none.

PACK uses as few nodes as it can, SPREAD as many; STRICT_PACK needs one node that holds everything, STRICT_SPREAD a
node of its own for each bundle. Large bundles are placed first, each on the best node that has room: the usual greedy
answer to a packing problem, which may miss a fit that a search would find.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Sequence

from shoal.machines.nodes import CPUS, Ledger
from shoal.model.resources import Resources, fits, give, make_resources, take


@dataclasses.dataclass(slots=True)
class Group:
    """A placement group that has been asked for."""

    group_id: str
    #: Ends with it; "" for a detached one.
    owner_id: str
    job_id: str
    bundles: tuple[Resources, ...]
    strategy: str
    #: Each bundle's share, None where it has no node (any more).
    shares: list[Ledger | None] = dataclasses.field(default_factory=list)

    @property
    def ready(self) -> bool:
        return bool(self.shares) and None not in self.shares


def plan(
    bundles: Sequence[Resources],
    strategy: str,
    nodes: Iterable[Ledger],
    room: Callable[[Ledger], dict[str, float]],
    taken: Iterable[str] = (),
) -> list[Ledger] | None:
    """Choose a node for each bundle, in the order of the bundles; None if they do not all fit.

    Parameters
    ----------
    room
        What a node could give.
    taken
        Ids of nodes that other bundles of the group are on already.
    """
    candidates = {node.node_id: node for node in nodes}
    free = {node_id: dict(room(node)) for node_id, node in candidates.items()}
    if strategy == "STRICT_PACK":
        return _on_one(bundles, candidates, free, set(taken))
    used = dict.fromkeys(taken, 1)
    chosen: dict[int, Ledger] = {}
    for index in sorted(range(len(bundles)), key=lambda index: -_size(bundles[index])):
        fitting = [node_id for node_id in candidates if fits(bundles[index], free[node_id])]
        if strategy == "STRICT_SPREAD":
            fitting = [node_id for node_id in fitting if node_id not in used]
        if not fitting:
            return None
        if strategy == "PACK":
            best = min(fitting, key=lambda node_id: (node_id not in used, free[node_id].get(CPUS, 0.0)))
        else:
            best = min(fitting, key=lambda node_id: (used.get(node_id, 0), -free[node_id].get(CPUS, 0.0)))
        chosen[index] = candidates[best]
        used[best] = used.get(best, 0) + 1
        take(bundles[index], free[best])
    return [chosen[index] for index in range(len(bundles))]


def _on_one(
    bundles: Sequence[Resources], candidates: dict[str, Ledger], free: dict[str, dict[str, float]], taken: set[str]
) -> list[Ledger] | None:
    whole: dict[str, float] = {}
    for bundle in bundles:
        give(bundle, whole)
    asked = make_resources(whole)
    fitting = [node for name, node in candidates.items() if fits(asked, free[name]) and taken <= {name}]
    if not fitting:
        return None
    return [min(fitting, key=lambda node: free[node.node_id].get(CPUS, 0.0))] * len(bundles)


def _size(bundle: Resources) -> float:
    return sum(amount for name, amount in bundle if name != "memory")
