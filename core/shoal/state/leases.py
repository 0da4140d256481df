"""The controller's lease machine: who gets which part of which node.

It keeps the resource ledger. Owners state an absolute *demand* per scheduling class; the machine grants leases while
resources last, takes turns between claimants (an owner and one of its classes), and asks for leases back when
somebody waits and somebody else has more than a fair share. Actors are leases that are never given back: they are
placed before tasks, in the order asked.

A lease whose task waits for other work lends its resources until the task goes on; the ledger may then go below zero
for a moment, which is how nested tasks never deadlock.

Events are methods; the actions they cause gather until :meth:`LeaseMachine.flush`.
"""

from __future__ import annotations

import dataclasses
from collections import OrderedDict

from shoal.model.placement import SchedulingClass
from shoal.model.resources import Resources, fits, give, make_resources, take


@dataclasses.dataclass(slots=True)
class Node:
    """What one node agent declared, and what of it is free."""

    node_id: str
    total: dict[str, float]
    free: dict[str, float]
    leases: set[str] = dataclasses.field(default_factory=set)


@dataclasses.dataclass(slots=True)
class Lease:
    """A grant. ``actor_id`` is set if the executor hosts an actor."""

    lease_id: str
    #: Leases are numbered in the order granted.
    number: int
    owner_id: str
    job_id: str
    kind: SchedulingClass
    node_id: str
    actor_id: str = ""
    executor_id: str = ""
    address: str = ""
    #: Its task waits for other work and has lent its resources.
    waiting: bool = False
    #: The owner was asked to give it back (1: when idle, 2: as soon as it drains).
    reclaimed: int = 0

    @property
    def started(self) -> bool:
        return bool(self.address)


@dataclasses.dataclass(slots=True)
class Claim:
    """What one owner wants of one class."""

    owner_id: str
    job_id: str
    kind: SchedulingClass
    wanted: int
    leases: set[str] = dataclasses.field(default_factory=set)


@dataclasses.dataclass(slots=True)
class ActorRequest:
    actor_id: str
    owner_id: str
    job_id: str
    kind: SchedulingClass


@dataclasses.dataclass(frozen=True, slots=True)
class Start:
    """Tell the lease's node to bind an executor."""

    lease: Lease


@dataclasses.dataclass(frozen=True, slots=True)
class Grant:
    """Tell the owner that its executor is ready."""

    lease: Lease


@dataclasses.dataclass(frozen=True, slots=True)
class End:
    """Tell the lease's node that the lease is over; with ``kill``, to end the executor."""

    lease: Lease
    kill: bool


@dataclasses.dataclass(frozen=True, slots=True)
class Lost:
    """Tell the owner that the executor is gone."""

    lease: Lease
    cause: str
    stderr: str
    begun: str


@dataclasses.dataclass(frozen=True, slots=True)
class AskBack:
    lease: Lease
    idle_only: bool


@dataclasses.dataclass(frozen=True, slots=True)
class CannotRun:
    """No node could ever hold this; ``largest`` is what the largest nodes have of each resource asked for."""

    owner_id: str
    actor_id: str
    kind: SchedulingClass
    largest: Resources


Action = Start | Grant | End | Lost | AskBack | CannotRun


class LeaseMachine:
    """See the module's description. One per controller; not thread-safe."""

    def __init__(self) -> None:
        self.nodes: dict[str, Node] = {}
        self.leases: dict[str, Lease] = {}
        #: Claims in the order in which they are next served.
        self._claims: OrderedDict[tuple[str, SchedulingClass], Claim] = OrderedDict()
        self._actor_requests: OrderedDict[str, ActorRequest] = OrderedDict()
        self._actions: list[Action] = []
        self._count = 0

    # -- events --------------------------------------------------------------------------------------------------

    def node_joined(self, node_id: str, total: Resources) -> None:
        self.nodes[node_id] = Node(node_id, dict(total), dict(total))

    def node_left(self, node_id: str, cause: str) -> None:
        node = self.nodes.pop(node_id, None)
        for lease_id in list(node.leases) if node else ():
            self.executor_died(lease_id, cause, "", "?")

    def demand(self, owner_id: str, job_id: str, kind: SchedulingClass, wanted: int) -> None:
        """An owner wants *wanted* leases of a class in all, those it holds included."""
        claim = self._claims.get((owner_id, kind))
        if claim is None:
            claim = self._claims[owner_id, kind] = Claim(owner_id, job_id, kind, 0)
        claim.wanted = wanted
        self._forget_if_empty(claim)

    def request_actor(self, request: ActorRequest) -> None:
        self._actor_requests[request.actor_id] = request

    def cancel_actor_request(self, actor_id: str) -> None:
        self._actor_requests.pop(actor_id, None)

    def executor_started(self, lease_id: str, executor_id: str, address: str) -> None:
        """The node has bound an executor to a lease."""
        lease = self.leases.get(lease_id)
        if lease is not None:
            lease.executor_id, lease.address = executor_id, address
            self._actions.append(Grant(lease))

    def executor_died(self, lease_id: str, cause: str, stderr: str, begun: str) -> None:
        """The executor of a lease is gone, or could not be started."""
        lease = self.leases.get(lease_id)
        if lease is not None:
            self._release(lease)
            self._actions.append(Lost(lease, cause, stderr, begun))

    def gave_back(self, lease_id: str) -> None:
        """An owner has nothing left on this lease."""
        lease = self.leases.get(lease_id)
        if lease is not None:
            claim = self._claims.get((lease.owner_id, lease.kind))
            if claim is not None:
                claim.wanted = max(0, claim.wanted - 1)
            self._release(lease)
            self._actions.append(End(lease, kill=False))

    def end_lease(self, lease_id: str) -> None:
        """End a lease at once, and its executor with it."""
        lease = self.leases.get(lease_id)
        if lease is not None:
            self._release(lease)
            self._actions.append(End(lease, kill=True))

    def waits(self, lease_id: str, waiting: bool) -> None:
        """The task of a lease waits for other work, or goes on."""
        lease = self.leases.get(lease_id)
        if lease is not None and lease.waiting != waiting:
            lease.waiting = waiting
            node = self.nodes[lease.node_id]
            (give if waiting else take)(lease.kind.resources, node.free)

    def owner_gone(self, owner_id: str) -> None:
        """An owner has ended: its claims, leases and actors end with it."""
        for key in [key for key in self._claims if key[0] == owner_id]:
            del self._claims[key]
        for request in [r for r in self._actor_requests.values() if r.owner_id == owner_id]:
            del self._actor_requests[request.actor_id]
        for lease in [lease for lease in self.leases.values() if lease.owner_id == owner_id]:
            self.end_lease(lease.lease_id)

    # -- what follows from them ----------------------------------------------------------------------------------

    def flush(self) -> list[Action]:
        """Grant what can be granted and return every action gathered since the last call."""
        if self.nodes:
            self._place_actors()
            self._place_claims()
        actions, self._actions = self._actions, []
        return actions

    def validate(self) -> None:
        """Check the invariants; for tests and the simulation."""
        for node in self.nodes.values():
            used: dict[str, float] = {}
            for lease_id in node.leases:
                lease = self.leases[lease_id]
                assert lease.node_id == node.node_id
                if not lease.waiting:
                    give(lease.kind.resources, used)
            for name, total in node.total.items():
                assert abs(total - used.get(name, 0.0) - node.free[name]) < 1e-3, (node, used)
        for (owner_id, kind), claim in self._claims.items():
            assert claim.leases == {
                lease.lease_id
                for lease in self.leases.values()
                if lease.owner_id == owner_id and lease.kind == kind and not lease.actor_id
            }

    def _place_actors(self) -> None:
        for request in list(self._actor_requests.values()):
            node = self._choose(request.kind.resources)
            if node is not None:
                del self._actor_requests[request.actor_id]
                self._lease(node, request.owner_id, request.job_id, request.kind, request.actor_id)
            elif not self._feasible(request.kind.resources):
                del self._actor_requests[request.actor_id]
                self._cannot_run(request.owner_id, request.actor_id, request.kind)

    def _place_claims(self) -> None:
        waiting = [claim for claim in self._claims.values() if claim.wanted > len(claim.leases)]
        unmet = False
        while waiting:
            still: list[Claim] = []
            for claim in waiting:
                node = self._choose(claim.kind.resources)
                if node is not None:
                    lease = self._lease(node, claim.owner_id, claim.job_id, claim.kind)
                    claim.leases.add(lease.lease_id)
                    self._claims.move_to_end((claim.owner_id, claim.kind))
                    if claim.wanted > len(claim.leases):
                        still.append(claim)
                elif self._feasible(claim.kind.resources):
                    unmet = True
                else:
                    claim.wanted = len(claim.leases)
                    self._cannot_run(claim.owner_id, "", claim.kind)
                    self._forget_if_empty(claim)
            waiting = still
        if unmet or self._actor_requests:
            self._ask_back()

    def _ask_back(self) -> None:
        """Somebody waits: idle leases are wanted back, and running ones where others have nothing, or too little.

        A claimant with more than a fair share gives up the excess. If claimants outnumber the leases there are, or an
        actor waits, the longest-served give up one each, so that everybody gets a turn.
        """
        claims = [claim for claim in self._claims.values() if claim.wanted or claim.leases]
        share = max(1, sum(len(claim.leases) for claim in claims) // max(1, len(claims)))
        starving = len(self._actor_requests) + sum(not claim.leases for claim in claims)
        for claim in claims:
            held = [self.leases[lease_id] for lease_id in claim.leases if self.leases[lease_id].started]
            held.sort(key=lambda lease: lease.number)
            excess = max(0, len(claim.leases) - share) if len(claims) > 1 else 0
            if not excess and held and starving:
                excess = 1
            starving -= min(starving, excess)
            for position, lease in enumerate(held):
                level = 2 if position < excess else 1
                if level > lease.reclaimed:
                    lease.reclaimed = level
                    self._actions.append(AskBack(lease, idle_only=level == 1))

    def _choose(self, resources: Resources) -> Node | None:
        """Return the node with the most room that fits, so that work spreads."""
        best, best_key = None, (0.0, 0.0)
        for node in self.nodes.values():
            if fits(resources, node.free):
                key = (node.free.get("num_cpus", 0.0), -float(len(node.leases)))
                if best is None or key > best_key:
                    best, best_key = node, key
        return best

    def _feasible(self, resources: Resources) -> bool:
        return any(fits(resources, node.total) for node in self.nodes.values())

    def _cannot_run(self, owner_id: str, actor_id: str, kind: SchedulingClass) -> None:
        nodes = self.nodes.values()
        largest = {name: max((node.total.get(name, 0.0) for node in nodes), default=0.0) for name, _ in kind.resources}
        self._actions.append(CannotRun(owner_id, actor_id, kind, make_resources(largest)))

    def _lease(self, node: Node, owner_id: str, job_id: str, kind: SchedulingClass, actor_id: str = "") -> Lease:
        self._count += 1
        lease = Lease(f"lease-{self._count}", self._count, owner_id, job_id, kind, node.node_id, actor_id)
        take(kind.resources, node.free)
        node.leases.add(lease.lease_id)
        self.leases[lease.lease_id] = lease
        self._actions.append(Start(lease))
        return lease

    def _release(self, lease: Lease) -> None:
        del self.leases[lease.lease_id]
        node = self.nodes.get(lease.node_id)
        if node is not None:
            node.leases.discard(lease.lease_id)
            if not lease.waiting:
                give(lease.kind.resources, node.free)
        claim = self._claims.get((lease.owner_id, lease.kind))
        if claim is not None:
            claim.leases.discard(lease.lease_id)
            self._forget_if_empty(claim)

    def _forget_if_empty(self, claim: Claim) -> None:
        if not claim.wanted and not claim.leases:
            self._claims.pop((claim.owner_id, claim.kind), None)
