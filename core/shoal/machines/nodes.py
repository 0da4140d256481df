"""What nodes have and what of it is free: the controller's ledgers, and an index that finds room in them.

A *ledger* is either a node or a bundle of a placement group, which is a share of one: work that runs in a bundle takes
from the bundle, and the bundle has taken from its node. Looking for room must not get slower as the cluster grows, so
nodes are kept in buckets by the amount they have free of each resource that work asks for.
"""

from __future__ import annotations

import bisect
import dataclasses
from collections.abc import Iterable, Iterator, Mapping

from shoal.model.placement import LabelSelector
from shoal.model.resources import Resources, fits

CPUS = "num_cpus"
#: Never a reason to choose a node, only to leave one out: its amounts are too many to sort by.
_UNSORTED = ("memory",)

#: Why nothing new begins on a node: its memory was nearly full; nothing is heard of it; it is to leave the cluster.
FULL, SILENT, DRAINING = "full", "silent", "draining"


@dataclasses.dataclass(slots=True, eq=False)
class Ledger:
    """Resources of which leases take their share. ``free`` may be below zero while work that waited goes on."""

    #: Of the node; for a bundle of the one that it is on.
    node_id: str
    total: dict[str, float]
    free: dict[str, float]
    #: Address of the node's Dask worker.
    address: str = ""
    labels: Mapping[str, str] = dataclasses.field(default_factory=dict)
    #: Leases here, oldest first.
    leases: dict[str, None] = dataclasses.field(default_factory=dict)
    #: What Dask's own tasks use.
    busy: Resources = ()
    #: Placement group and number, for a bundle.
    group_id: str = ""
    bundle: int = -1
    #: The request that has this node set aside; nobody else gets leases here meanwhile.
    reserved_for: str = ""
    #: Reasons for which nobody gets leases on this node, nor in its bundles; each is lifted by itself.
    closed: set[str] = dataclasses.field(default_factory=set)

    @staticmethod
    def of(node_id: str, total: Resources, **more: object) -> Ledger:
        return Ledger(node_id, dict(total), dict(total), **more)  # type: ignore[arg-type]

    def matches(self, labels: LabelSelector) -> bool:
        """Whether every label is as the selector wants it."""
        for key, wanted in labels:
            if wanted.startswith("!"):
                if self.labels.get(key) == wanted[1:]:
                    return False
            elif self.labels.get(key) != wanted:
                return False
        return True


class NodeIndex:
    """All nodes that may get leases, in buckets by what they have free."""

    def __init__(self) -> None:
        self._nodes: dict[str, Ledger] = {}
        #: By resource, and under "" by the number of leases.
        self._buckets: dict[str, _Buckets] = {"": _Buckets(), CPUS: _Buckets()}

    def add(self, node: Ledger) -> None:
        self._nodes[node.node_id] = node
        for name in node.total:
            if name not in self._buckets and name not in _UNSORTED:
                self._buckets[name] = _Buckets()
        for name, buckets in self._buckets.items():
            if not name or name == CPUS or name in node.total:
                buckets.put(node, _level(node, name))

    def remove(self, node: Ledger) -> None:
        if self._nodes.pop(node.node_id, None) is not None:
            for buckets in self._buckets.values():
                buckets.drop(node)

    def changed(self, node: Ledger) -> None:
        """Something of a node was taken or given back."""
        if node.node_id in self._nodes:
            for name, buckets in self._buckets.items():
                if node.node_id in buckets.level_of:
                    buckets.put(node, _level(node, name))

    def with_most_room(self, asked: Resources) -> Ledger | None:
        """Return the node that has most free of the rarest thing asked for; with nothing asked, the least used."""
        if not self._rarest(asked):
            return self.with_fewest_leases(asked)
        return _first(self.by_room(asked), asked)

    def by_room(self, asked: Resources) -> Iterator[Ledger]:
        """Give the nodes in order of what they have free of the rarest thing asked for, down to what is asked."""
        name = self._rarest(asked) or CPUS
        buckets = self._buckets.get(name)
        if buckets is not None:
            yield from buckets.descending(dict(asked).get(name, 0.0))

    def with_fewest_leases(self, asked: Resources) -> Ledger | None:
        return _first(self._buckets[""].ascending(), asked)

    def _rarest(self, asked: Resources) -> str:
        names = [name for name, _ in asked if name not in _UNSORTED]
        others = [name for name in names if name != CPUS]
        return others[0] if others else CPUS if names else ""


class _Buckets:
    """Nodes by level. Within one level, the one that has been there longest comes first."""

    def __init__(self) -> None:
        self.level_of: dict[str, int] = {}
        self._by_level: dict[int, dict[str, Ledger]] = {}
        self._levels: list[int] = []

    def put(self, node: Ledger, level: int) -> None:
        before = self.level_of.get(node.node_id)
        if before == level:
            return
        if before is not None:
            self.drop(node)
        self.level_of[node.node_id] = level
        bucket = self._by_level.get(level)
        if bucket is None:
            bucket = self._by_level[level] = {}
            bisect.insort(self._levels, level)
        bucket[node.node_id] = node

    def drop(self, node: Ledger) -> None:
        level = self.level_of.pop(node.node_id, None)
        if level is None:
            return
        bucket = self._by_level[level]
        del bucket[node.node_id]
        if not bucket:
            del self._by_level[level]
            del self._levels[bisect.bisect_left(self._levels, level)]

    def descending(self, least: float) -> Iterator[Ledger]:
        for level in reversed(self._levels):
            if level + 1 <= least:
                return
            yield from self._by_level[level].values()

    def ascending(self) -> Iterator[Ledger]:
        for level in self._levels:
            yield from self._by_level[level].values()


def _level(node: Ledger, name: str) -> int:
    return int(node.free.get(name, 0.0) // 1) if name else len(node.leases)


def _first(nodes: Iterable[Ledger], asked: Resources) -> Ledger | None:
    for node in nodes:
        if fits(asked, node.free):
            return node
    return None
