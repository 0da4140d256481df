"""Why a request has no place: the node that comes closest to having room, and who holds what there."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

from shoal.machines.bundles import Group
from shoal.machines.grants import Lease
from shoal.machines.nodes import DRAINING, FULL, SILENT, Ledger
from shoal.machines.places import Places
from shoal.model.placement import SchedulingClass
from shoal.model.resources import Resources, describe, fits, format_amount, from_wire, give, make_resources

#: Holders that are listed by name; the rest is added up.
MAX_HOLDERS = 8
_CLOSED = {
    FULL: "its memory was nearly full: nothing new begins there until some is free, half a minute at most",
    SILENT: "nothing is heard of it: nothing new begins there until it is heard again",
    DRAINING: "it is to leave the cluster: nothing new begins there",
}


class Holder(NamedTuple):
    """Who holds part of what is asked for. ``kind``: ``actor``, ``tasks`` (of one owner), ``group`` or ``dask``."""

    kind: str
    #: Of the actor, the owner or the group.
    who: str
    amounts: Resources
    num_leases: int = 1


class Shortage(NamedTuple):
    """What stands between a request and a node."""

    asked: Resources
    node_id: str
    #: Of the asked resources on that node (or bundle), by name.
    free: Resources
    total: Resources
    holders: tuple[Holder, ...]
    #: Nodes that are set aside for somebody else who has waited long.
    reserved: bool
    #: There is room by now.
    fits: bool
    #: Why this node, like all others that could hold it, takes nothing new for the moment; "" if it does.
    closed: str

    def describe(self) -> str:
        """Say it in words: what it needs, and what the node that comes closest has."""
        if self.fits:
            return f"there is room on {self.node_id}: an executor is on its way"
        amounts = ", ".join(
            f"{format_amount(name, max(0.0, left))} of {format_amount(name, whole)} {name}"
            for (name, left), (_, whole) in zip(self.free, self.total, strict=True)
        )
        words = [f"it needs {describe(self.asked)}; {self.node_id} comes closest and has {amounts} free"]
        if self.reserved:
            words.append("all nodes with room are set aside for work that has waited long")
        if self.closed:
            words.append(_CLOSED[self.closed])
        return "; ".join(words)

    @staticmethod
    def from_wire(fields: Iterable[Any]) -> Shortage:
        asked, node_id, free, total, holders, reserved, fits, closed = fields
        named = tuple(Holder(kind, who, from_wire(amounts), count) for kind, who, amounts, count in holders)
        return Shortage(from_wire(asked), node_id, from_wire(free), from_wire(total), named, reserved, fits, closed)


def find_shortage(places: Places, leases: Mapping[str, Lease], kind: SchedulingClass) -> Shortage | None:
    """Return what keeps work of this class waiting; None if no node could ever hold it."""
    asked = kind.resources
    candidates = [ledger for ledger in places.candidates(kind) if fits(asked, ledger.total)]
    if not candidates:
        return None
    closed = {node.node_id: _reason(node) for node in places.nodes.values() if node.closed}
    best = min(
        candidates,
        key=lambda ledger: (ledger.node_id in closed, bool(ledger.reserved_for), _lacking(asked, ledger)),
    )
    groups = () if best.group_id else places.groups.values()
    return Shortage(
        asked,
        best.node_id,
        _part(asked, best.free),
        _part(asked, best.total),
        _holders(asked, best, leases, groups),
        bool(best.reserved_for),
        fits(asked, best.free) and not best.reserved_for and best.node_id not in closed,
        closed.get(best.node_id, ""),
    )


def find_group_shortage(places: Places, leases: Mapping[str, Lease], group: Group) -> Shortage | None:
    """Return what keeps a placement group waiting: for the first of its missing bundles that has no room."""
    missing = [bundle for bundle, share in zip(group.bundles, group.shares, strict=True) if share is None]
    found = [find_shortage(places, leases, SchedulingClass(bundle)) for bundle in missing]
    short = [shortage for shortage in found if shortage is not None]
    return next((shortage for shortage in short if not shortage.fits), short[0] if short else None)


def _reason(node: Ledger) -> str:
    """Return the reason for which a node is closed; of several the one that lasts longest."""
    return next(reason for reason in (DRAINING, SILENT, FULL) if reason in node.closed)


def _lacking(asked: Resources, ledger: Ledger) -> float:
    """Return which part of what is asked for is missing there, summed over resources."""
    return sum(max(0.0, amount - ledger.free.get(name, 0.0)) / amount for name, amount in asked)


def _part(asked: Resources, amounts: Mapping[str, float]) -> Resources:
    return tuple((name, amounts.get(name, 0.0)) for name, _ in asked)


def _holders(
    asked: Resources, ledger: Ledger, leases: Mapping[str, Lease], groups: Iterable[Group]
) -> tuple[Holder, ...]:
    names = {name for name, _ in asked}
    held: dict[tuple[str, str], tuple[dict[str, float], int]] = {}

    def add(kind: str, who: str, resources: Resources) -> None:
        relevant = tuple((name, amount) for name, amount in resources if name in names)
        if relevant:
            amounts, count = held.get((kind, who), ({}, 0))
            give(relevant, amounts)
            held[kind, who] = amounts, count + 1

    for lease_id in ledger.leases:
        lease = leases[lease_id]
        if not lease.waiting:
            kind, who = ("actor", lease.actor_id) if lease.actor_id else ("tasks", lease.owner_id)
            add(kind, who, lease.kind.resources)
    for group in groups:
        for share in group.shares:
            if share is not None and share.node_id == ledger.node_id:
                add("group", group.group_id, make_resources(share.total))
    add("dask", "", ledger.busy)
    holders = [Holder(kind, who, make_resources(amounts), count) for (kind, who), (amounts, count) in held.items()]
    holders.sort(key=lambda holder: -sum(amount for name, amount in holder.amounts if name != "memory"))
    return tuple(holders[:MAX_HOLDERS])
