"""Where work may run: nodes, the bundles of placement groups, and what fits in them now, or ever."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator

from shoal.machines import bundles
from shoal.machines.bundles import Group
from shoal.machines.nodes import CPUS, Ledger, NodeIndex
from shoal.model.placement import SchedulingClass
from shoal.model.resources import Resources, describe, fits, format_amount, make_resources, take

#: Nodes that a placement group is tried on before all others.
FIRST_TRY = 256


class Places:
    """See the module's description. The lease machine changes the ledgers, and says so with :meth:`changed`."""

    def __init__(self) -> None:
        self.nodes: dict[str, Ledger] = {}
        self.groups: dict[str, Group] = {}
        #: The request that nodes are set aside for.
        self.reserved_for: object = None
        self._index = NodeIndex()
        self._feasible_cache: dict[SchedulingClass, bool] = {}

    # -- what changes --------------------------------------------------------------------------------------------

    def add_node(self, node: Ledger) -> None:
        self.nodes[node.node_id] = node
        self._index.add(node)
        self._feasible_cache.clear()

    def remove_node(self, node_id: str) -> Ledger | None:
        """Forget a node; returns it, if it was known."""
        node = self.nodes.pop(node_id, None)
        if node is not None:
            self._index.remove(node)
            self._feasible_cache.clear()
        return node

    def add_group(self, group: Group) -> None:
        group.shares = [None] * len(group.bundles)
        self.groups[group.group_id] = group
        self._feasible_cache.clear()

    def remove_group(self, group_id: str) -> Group | None:
        """Forget a group; returns it, if it was known."""
        self._feasible_cache.clear()
        return self.groups.pop(group_id, None)

    def place_group(self, group: Group, missing: list[int], chosen: list[Ledger]) -> None:
        """Give the bundles numbered *missing* their shares of the *chosen* nodes."""
        for number, node in zip(missing, chosen, strict=True):
            bundle = group.bundles[number]
            take(bundle, node.free)
            self.changed(node)
            group.shares[number] = Ledger.of(node.node_id, bundle, group_id=group.group_id, bundle=number)

    def changed(self, ledger: Ledger) -> None:
        """Something was taken from a ledger, or given back."""
        if not ledger.group_id:
            self._index.changed(ledger)

    def set_aside(self, nodes: Iterable[Ledger], request: object) -> None:
        """Nobody but *request* gets anything on *nodes* until :meth:`put_back`."""
        self.reserved_for = request
        for node in nodes:
            node.reserved_for = str(request)
            self._index.remove(node)

    def put_back(self) -> None:
        self.reserved_for = None
        for node in self.nodes.values():
            if node.reserved_for:
                node.reserved_for = ""
                if not node.closed:
                    self._index.add(node)

    def close(self, node: Ledger, reason: str) -> None:
        """Nobody gets anything on *node*, nor in the bundles it holds, until :meth:`reopen` is told the same reason."""
        node.closed.add(reason)
        self._index.remove(node)

    def reopen(self, node: Ledger, reason: str) -> None:
        """This is no reason any more: unless there are others, whoever fits gets leases again."""
        node.closed.discard(reason)
        if not node.closed and not node.reserved_for:
            self._index.add(node)

    # -- what fits -----------------------------------------------------------------------------------------------

    def ledgers(self) -> Iterator[Ledger]:
        """Give every node and every bundle that has one."""
        yield from self.nodes.values()
        for group in self.groups.values():
            yield from (share for share in group.shares if share is not None)

    def plan_group(self, group: Group, missing: list[int]) -> list[Ledger] | None:
        """Choose nodes for the bundles numbered *missing*; None if they do not all fit now."""
        wanted = [group.bundles[number] for number in missing]
        taken = {share.node_id for share in group.shares if share is not None}
        roomiest = list(itertools.islice(self._index.by_room(max(wanted)), FIRST_TRY))
        chosen = bundles.plan(wanted, group.strategy, roomiest, lambda node: node.free, taken)
        if chosen is None:
            own = group.group_id
            allowed = [node for node in self.nodes.values() if node.reserved_for in ("", own) and not node.closed]
            chosen = bundles.plan(wanted, group.strategy, allowed, lambda node: node.free, taken)
        return chosen

    def why_no_group(self, group: Group) -> str:
        """Return why a group could not be placed on empty nodes either; "" if it could."""
        if bundles.plan(group.bundles, group.strategy, self.nodes.values(), lambda node: node.total) is not None:
            return ""
        strategy = f" with {group.strategy}" if group.strategy.startswith("STRICT") else ""
        nodes = f"{len(self.nodes)} nodes" if len(self.nodes) != 1 else "only node"
        needs, has = _sum(group.bundles), _sum(node.total.items() for node in self.nodes.values())
        there = ", ".join(f"{name}={format_amount(name, has.get(name, 0.0))}" for name in sorted(needs))
        return (
            f"its {len(group.bundles)} bundles need {describe(make_resources(needs))} in all, and the cluster's "
            f"{nodes} ({there}) could not hold them{strategy} even when empty"
        )

    def choose(self, kind: SchedulingClass, request: object) -> Ledger | None:
        """Return the best ledger with room for *kind*."""
        asked, place = kind.resources, kind.placement
        if place.group_id:
            shares = (share for share in self._shares(kind) if not self.nodes[share.node_id].closed)
            return next((share for share in shares if fits(asked, share.free)), None)
        if self.reserved_for is not None and self.reserved_for == request:
            for node in self.candidates(kind):
                if node.reserved_for and not node.closed and fits(asked, node.free):
                    return node
        if place.node:
            wished = self._find(place.node)
            if wished is not None and wished.matches(place.labels) and self._has_room(wished, asked):
                return wished
            if not place.soft:
                return None
        if place.labels:
            fitting = [node for node in self.candidates(kind) if self._has_room(node, asked)]
            if place.spread or not asked:
                return min(fitting, key=lambda node: len(node.leases), default=None)
            return max(fitting, key=lambda node: node.free.get(CPUS, 0.0), default=None)
        return self._index.with_fewest_leases(asked) if place.spread else self._index.with_most_room(asked)

    @staticmethod
    def _has_room(node: Ledger, asked: Resources) -> bool:
        return not node.reserved_for and not node.closed and fits(asked, node.free)

    def candidates(self, kind: SchedulingClass) -> Iterator[Ledger]:
        """Give every ledger that the class's placement allows, whether or not it has room."""
        place = kind.placement
        if place.group_id:
            yield from self._shares(kind)
            return
        if place.node and not place.soft:
            node = self._find(place.node)
            nodes: Iterable[Ledger] = [node] if node is not None else []
        else:
            nodes = self.nodes.values()
        for node in nodes:
            if not place.labels or node.matches(place.labels):
                yield node

    def _shares(self, kind: SchedulingClass) -> Iterator[Ledger]:
        group = self.groups.get(kind.placement.group_id)
        for number, share in enumerate(group.shares if group is not None else ()):
            if share is not None and kind.placement.bundle in (-1, number):
                yield share

    def _find(self, name: str) -> Ledger | None:
        node = self.nodes.get(name)
        if node is None:
            node = next((node for node in self.nodes.values() if node.address == name), None)
        return node

    def is_feasible(self, kind: SchedulingClass) -> bool:
        """Whether the cluster as it is could ever run work of this class."""
        known = self._feasible_cache.get(kind)
        if known is None:
            known = self._feasible_cache[kind] = not self.why_never(kind)
        return known

    def why_never(self, kind: SchedulingClass) -> str:
        """Return why no node could ever run work of this class; "" if one could."""
        asked, place = kind.resources, kind.placement
        if place.group_id:
            group = self.groups.get(place.group_id)
            if group is None:
                return f"there is no placement group `{place.group_id}` (any more)"
            if place.bundle >= len(group.bundles):
                return f"`{place.group_id}` has {len(group.bundles)} bundles, numbered from 0"
            chosen = group.bundles if place.bundle < 0 else (group.bundles[place.bundle],)
            if any(fits(asked, dict(bundle)) for bundle in chosen):
                return ""
            return f"no bundle of `{place.group_id}` that it may use has that much"
        if any(fits(asked, node.total) for node in self.candidates(kind)):
            return ""
        if place.node and not place.soft and self._find(place.node) is None:
            return f"node `{place.node}` is not in the cluster"
        if place.labels and not any(node.matches(place.labels) for node in self.nodes.values()):
            return "no node carries these labels"
        return "" if not self.nodes else self._most_there_is(kind)

    def _most_there_is(self, kind: SchedulingClass) -> str:
        largest = self.largest(kind)
        return f"the most any node has is {describe(largest) if largest else 'nothing of it'}"

    def largest(self, kind: SchedulingClass) -> Resources:
        nodes = list(self.candidates(kind)) or list(self.nodes.values())
        return make_resources(
            {name: max((node.total.get(name, 0.0) for node in nodes), default=0.0) for name, _ in kind.resources}
        )


def _sum(amounts: Iterable[Iterable[tuple[str, float]]]) -> dict[str, float]:
    summed: dict[str, float] = {}
    for vector in amounts:
        for name, amount in vector:
            summed[name] = summed.get(name, 0.0) + amount
    return summed
