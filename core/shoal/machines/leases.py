"""The controller's lease machine: who gets which part of which node.

It keeps the resource ledgers. Owners state an absolute *demand* per scheduling class; the machine grants leases while
resources last and asks for leases back when somebody waits and somebody else has more than a fair share. Actors are
leases that are never given back; placement groups are shares of nodes in which leases are granted as on nodes.

**Order.** Higher priorities first. Among equals, actors and groups before tasks (they are asked for once, and wait for
nothing else), then the job (driver) that holds least, then by turns. A class that found no room is not tried again
until something has been given back, so that a decision costs the same however many wait.

**Large requests.** What needs much of a node could be overtaken for ever by what needs little. A request that
:data:`PATIENCE` grants went past has a node set aside for it (a group, nodes): no new leases there, those there are
wanted back. It is set aside for :data:`RESERVATION` seconds at most, so that work that never ends cannot make a
reservation idle the rest of its node.

**Waiting.** A lease whose task waits for other work lends its resources until the task goes on; the ledger may then go
below zero for a moment, which is how nested tasks never deadlock.

Events are methods; the actions they cause gather until :meth:`LeaseMachine.flush`.
"""

from __future__ import annotations

import heapq
import itertools
from collections.abc import Iterable

from shoal.machines import bundles
from shoal.machines.bundles import Group
from shoal.machines.grants import (
    Action,
    ActorRequest,
    AskBack,
    CannotRun,
    Claim,
    End,
    Grant,
    GroupFailed,
    GroupReady,
    Lease,
    Lost,
    Start,
)
from shoal.machines.nodes import CPUS, DRAINING, FULL, SILENT, Ledger
from shoal.machines.places import Places
from shoal.model.placement import SchedulingClass
from shoal.model.resources import Resources, fits, give, take

#: Grants that may go past a request that found no room before nodes are set aside for it.
PATIENCE = 16
#: Seconds for which they are, at most.
RESERVATION = 30.0


class LeaseMachine:
    """See the module's description. One per controller; not thread-safe."""

    def __init__(self) -> None:
        self.places = Places()
        self.leases: dict[str, Lease] = {}
        self._claims: dict[tuple[str, SchedulingClass], Claim] = {}
        #: Claims that want more than they have: by class and job, in the order in which they are next served.
        self._waiting: dict[tuple[SchedulingClass, str], dict[str, Claim]] = {}
        self._actor_requests: dict[str, ActorRequest] = {}
        self._unplaced: dict[str, Group] = {}
        #: Classes that found no room, and requests likewise: not tried again until something was given back.
        self._blocked: dict[SchedulingClass, None] = {}
        self._blocked_requests: dict[str, None] = {}
        #: The grant count at which a request (by its id, or its class) first found no room.
        self._blocked_since: dict[object, int] = {}
        #: Until when nodes are set aside; set at the next tick.
        self._reserved_until: float | None = None
        #: CPUs held by each job.
        self._usage: dict[str, float] = {}
        #: Started task leases whose owners have not been asked for them, by claim.
        self._unasked: dict[tuple[str, SchedulingClass], dict[str, Lease]] = {}
        self._actions: list[Action] = []
        self._count = 0

    @property
    def nodes(self) -> dict[str, Ledger]:
        return self.places.nodes

    @property
    def groups(self) -> dict[str, Group]:
        return self.places.groups

    # -- events --------------------------------------------------------------------------------------------------

    def node_joined(
        self, node_id: str, total: Resources, *, address: str = "", labels: Iterable[tuple[str, str]] = ()
    ) -> None:
        self.places.add_node(Ledger.of(node_id, total, address=address, labels=dict(labels)))
        self._unblock()

    def node_left(self, node_id: str, cause: str) -> None:
        node = self.places.remove_node(node_id)
        if node is None:
            return
        for lease_id in list(node.leases):
            self.executor_died(lease_id, cause, "", "?")
        for group in self.groups.values():
            for number, share in enumerate(group.shares):
                if share is not None and share.node_id == node_id:
                    for lease_id in list(share.leases):
                        self.executor_died(lease_id, cause, "", "?")
                    group.shares[number] = None
                    self._unplaced[group.group_id] = group

    def node_busy(self, node_id: str, amounts: Resources) -> None:
        """Dask's own tasks use this much of a node now."""
        node = self.nodes.get(node_id)
        if node is None:
            return
        give(node.busy, node.free)
        node.busy = tuple((name, amount) for name, amount in amounts if name in node.total)
        take(node.busy, node.free)
        self.places.changed(node)
        self._unblock()
        self._drain_overcommitted(node)

    def node_full(self, node_id: str, full: bool) -> None:
        """A node's memory was nearly full: nothing new begins there until the node says that it may."""
        self._close(node_id, FULL, full)

    def node_suspected(self, node_id: str, suspected: bool) -> None:
        """Nothing is heard of a node: it is to have no work, beyond what runs there, until it is heard again."""
        self._close(node_id, SILENT, suspected)

    def node_draining(self, node_id: str, draining: bool) -> None:
        """A node is to leave the cluster, and to have nothing by then; or (not *draining*) it stays after all."""
        self._close(node_id, DRAINING, draining)

    def _close(self, node_id: str, reason: str, closed: bool) -> None:
        node = self.nodes.get(node_id)
        if node is None or (reason in node.closed) == closed:
            return
        if not closed:
            self.places.reopen(node, reason)
            self._unblock()
            return
        self.places.close(node, reason)
        if reason != FULL:
            self._empty(node)

    def _empty(self, node: Ledger) -> None:
        """Have all of a node's leases for tasks back, those in its bundles too."""
        ledgers = [ledger for ledger in self.places.ledgers() if ledger.node_id == node.node_id]
        for lease in [self.leases[lease_id] for ledger in ledgers for lease_id in ledger.leases]:
            if lease.started:
                self._ask(lease, 2)
            elif not lease.actor_id:
                # Its owner knows nothing of it yet: it gets another one elsewhere.
                self._release(lease)
                self._actions.append(End(lease, kill=False))

    def demand(self, owner_id: str, job_id: str, kind: SchedulingClass, wanted: int) -> None:
        """An owner wants *wanted* leases of a class in all, those it holds included."""
        claim = self._claims.get((owner_id, kind))
        if claim is None:
            claim = self._claims[owner_id, kind] = Claim(owner_id, job_id, kind, 0)
        claim.wanted = wanted
        self._settle(claim)

    def request_actor(self, request: ActorRequest) -> None:
        self._actor_requests[request.actor_id] = request

    def cancel_actor_request(self, actor_id: str) -> None:
        if self._actor_requests.pop(actor_id, None) is not None:
            self._no_longer_waits(actor_id)

    def create_group(self, group: Group) -> None:
        """An owner wants a placement group."""
        self.places.add_group(group)
        self._unplaced[group.group_id] = group

    def remove_group(self, group_id: str) -> None:
        """End everything that runs in a group and free its bundles."""
        group = self.places.remove_group(group_id)
        if group is None:
            return
        if self._unplaced.pop(group_id, None) is not None:
            self._no_longer_waits(group_id)
        for share in group.shares:
            if share is None:
                continue
            for lease_id in list(share.leases):
                lease = self.leases[lease_id]
                self._release(lease)
                self._actions.append(End(lease, kill=True))
                self._actions.append(Lost(lease, "its placement group was removed", "", "?"))
            node = self.nodes.get(share.node_id)
            if node is not None:
                give(tuple(share.total.items()), node.free)
                self.places.changed(node)
        self._unblock()

    def executor_started(self, lease_id: str, executor_id: str, address: str) -> None:
        """The node has bound an executor to a lease."""
        lease = self.leases.get(lease_id)
        if lease is not None:
            lease.executor_id, lease.address = executor_id, address
            self._actions.append(Grant(lease))
            if not lease.actor_id:
                self._unasked.setdefault((lease.owner_id, lease.kind), {})[lease_id] = lease

    def executor_died(self, lease_id: str, cause: str, stderr: str, begun: str, memory: tuple[int, ...] = ()) -> None:
        """The executor of a lease is gone, or could not be started."""
        lease = self.leases.get(lease_id)
        if lease is not None:
            self._release(lease)
            self._actions.append(Lost(lease, cause, stderr, begun, memory))

    def gave_back(self, lease_id: str, broken: bool = False) -> None:
        """An owner has nothing left on this lease; or (*broken*) cannot reach its executor, which is then ended."""
        lease = self.leases.get(lease_id)
        if lease is not None and not lease.actor_id:
            claim = self._claims.get((lease.owner_id, lease.kind))
            if claim is not None:
                claim.wanted = max(0, claim.wanted - 1)
            self._release(lease)
            self._actions.append(End(lease, kill=broken))

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
            (give if waiting else take)(lease.kind.resources, lease.ledger.free)
            self._use(lease, -1 if waiting else 1)
            self.places.changed(lease.ledger)
            if waiting:
                self._unblock()

    def owner_gone(self, owner_id: str) -> None:
        """An owner has ended: its claims, leases, actors and groups end with it."""
        for key in [key for key in self._claims if key[0] == owner_id]:
            claim = self._claims[key]
            claim.wanted = 0
            self._settle(claim)
        for request in [r for r in self._actor_requests.values() if r.owner_id == owner_id]:
            self.cancel_actor_request(request.actor_id)
        for lease in [lease for lease in self.leases.values() if lease.owner_id == owner_id]:
            self.end_lease(lease.lease_id)
        for group in [group for group in self.groups.values() if group.owner_id == owner_id]:
            self.remove_group(group.group_id)

    def waiting(self, limit: int) -> list[tuple[str, SchedulingClass, int, str]]:
        """Return owner, class, number and actor's id ("" for tasks' leases) of what has no place, *limit* rows."""
        actors = ((request.owner_id, request.kind, 1, request.actor_id) for request in self._actor_requests.values())
        # An owner that has leases of a class is served: it would only like more.
        claims = (
            (claim.owner_id, claim.kind, claim.missing, "")
            for claims in self._waiting.values()
            for claim in claims.values()
            if not claim.leases
        )
        return list(itertools.islice(itertools.chain(actors, claims), limit))

    def tick(self, now: float) -> None:
        """Time has passed."""
        if self.places.reserved_for is None:
            return
        if self._reserved_until is None:
            self._reserved_until = now + RESERVATION
        elif now > self._reserved_until:
            self._blocked_since[self.places.reserved_for] = self._count  # it has to wait its turn again
            self._unreserve()

    # -- what follows from them ----------------------------------------------------------------------------------

    def flush(self) -> list[Action]:
        """Grant what can be granted and return every action gathered since the last call."""
        if self.nodes:
            self._place_groups()
            self._place_actors()
            self._place_claims()
            if self._somebody_waits():
                self._reserve_for_the_overtaken()
                self._ask_back()
        actions, self._actions = self._actions, []
        return actions

    @property
    def needs_tick(self) -> bool:
        return self.places.reserved_for is not None

    def validate(self) -> None:
        """Check the invariants; for tests and the simulation."""
        used: dict[int, dict[str, float]] = {id(node): {} for node in self.places.ledgers()}
        for lease in self.leases.values():
            assert lease.lease_id in lease.ledger.leases, lease
            if not lease.waiting:
                give(lease.kind.resources, used[id(lease.ledger)])
        for group in self.groups.values():
            assert group.ready != (group.group_id in self._unplaced), group
            for share in group.shares:
                if share is not None:
                    give(tuple(share.total.items()), used[id(self.nodes[share.node_id])])
        for ledger in self.places.ledgers():
            give(ledger.busy, used[id(ledger)])
            assert all(lease_id in self.leases for lease_id in ledger.leases), ledger
            if DRAINING in self.nodes[ledger.node_id].closed:
                there = [self.leases[lease_id] for lease_id in ledger.leases]
                assert all(lease.actor_id or lease.reclaimed == 2 for lease in there), there
            for name, total in ledger.total.items():
                assert abs(total - used[id(ledger)].get(name, 0.0) - ledger.free[name]) < 1e-3, (ledger, used)
        for (owner_id, kind), claim in self._claims.items():
            expected = {x.lease_id for x in self.leases.values() if x.owner_id == owner_id and x.kind == kind}
            assert set(claim.leases) == {x for x in expected if not self.leases[x].actor_id}, claim
            assert claim.wanted or claim.leases, claim
            queue = self._waiting.get((kind, claim.job_id), {})
            assert (owner_id in queue) == (claim.missing > 0), claim
            assert claim.num_draining == sum(lease.reclaimed == 2 for lease in claim.leases.values()), claim
        assert all(queue for queue in self._waiting.values())

    # -- placing -------------------------------------------------------------------------------------------------

    def _place_groups(self) -> None:
        for group in list(self._unplaced.values()):
            if group.group_id in self._blocked_requests:
                continue
            missing = [number for number, share in enumerate(group.shares) if share is None]
            chosen = self.places.plan_group(group, missing)
            if chosen is None:
                reason = self.places.why_no_group(group) if len(missing) == len(group.bundles) else ""
                if reason:
                    self.remove_group(group.group_id)
                    self._actions.append(GroupFailed(group, reason))
                else:
                    self._block_request(group.group_id)
                continue
            self.places.place_group(group, missing, chosen)
            del self._unplaced[group.group_id]
            self._count += 1
            self._no_longer_waits(group.group_id)
            self._unblock()
            nodes = tuple(share.node_id for share in group.shares if share is not None)
            self._actions.append(GroupReady(group, nodes))

    def _place_actors(self) -> None:
        if not self._actor_requests:
            return
        order = sorted(self._actor_requests.values(), key=lambda request: -request.kind.priority)
        for request in order:
            if request.actor_id in self._blocked_requests:
                continue
            kind = request.kind
            node = self.places.choose(kind, request.actor_id)
            if node is not None:
                del self._actor_requests[request.actor_id]
                self._no_longer_waits(request.actor_id)
                self._lease(node, request.owner_id, request.job_id, kind, request.actor_id)
            elif self.places.is_feasible(kind):
                self._block_request(request.actor_id)
            else:
                del self._actor_requests[request.actor_id]
                self._cannot_run(request.owner_id, request.actor_id, kind)

    def _place_claims(self) -> None:
        turns = [
            (-kind.priority, self._usage.get(job_id, 0.0), number, kind, job_id)
            for number, (kind, job_id) in enumerate(self._waiting)
            if kind not in self._blocked
        ]
        heapq.heapify(turns)
        number = len(turns)
        while turns:
            rank, _, _, kind, job_id = heapq.heappop(turns)
            queue = self._waiting.get((kind, job_id))
            if queue is None or kind in self._blocked:
                continue
            owner_id, claim = next(iter(queue.items()))
            node = self.places.choose(kind, kind)
            if node is not None:
                lease = self._lease(node, owner_id, job_id, kind)
                claim.leases[lease.lease_id] = lease
                if kind in self._blocked_since:
                    self._no_longer_waits(kind)
                del queue[owner_id]
                if claim.missing > 0:
                    queue[owner_id] = claim  # behind its siblings
            elif self.places.is_feasible(kind):
                self._blocked[kind] = None
                self._blocked_since.setdefault(kind, self._count)
                continue
            else:
                claim.wanted = len(claim.leases)
                self._settle(claim)
                self._cannot_run(owner_id, "", kind)
            if queue:
                number += 1
                heapq.heappush(turns, (rank, self._usage.get(job_id, 0.0), number, kind, job_id))
                # Its jobs take turns from here on.
                self._waiting[kind, job_id] = self._waiting.pop((kind, job_id))
            else:
                self._waiting.pop((kind, job_id), None)

    def _cannot_run(self, owner_id: str, actor_id: str, kind: SchedulingClass) -> None:
        self._actions.append(
            CannotRun(owner_id, actor_id, kind, self.places.largest(kind), self.places.why_never(kind))
        )

    # -- the books -----------------------------------------------------------------------------------------------

    def _lease(self, ledger: Ledger, owner_id: str, job_id: str, kind: SchedulingClass, actor_id: str = "") -> Lease:
        self._count += 1
        lease = Lease(f"lease-{self._count}", self._count, owner_id, job_id, kind, ledger, actor_id)
        take(kind.resources, ledger.free)
        ledger.leases[lease.lease_id] = None
        self.leases[lease.lease_id] = lease
        self._use(lease, 1)
        self.places.changed(ledger)
        self._actions.append(Start(lease))
        return lease

    def _release(self, lease: Lease) -> None:
        del self.leases[lease.lease_id]
        self._forget_unasked(lease)
        ledger = lease.ledger
        del ledger.leases[lease.lease_id]
        if not lease.waiting:
            give(lease.kind.resources, ledger.free)
            self._use(lease, -1)
        self.places.changed(ledger)
        self._unblock()
        claim = self._claims.get((lease.owner_id, lease.kind)) if not lease.actor_id else None
        if claim is not None and claim.leases.pop(lease.lease_id, None) is not None:
            claim.num_draining -= lease.reclaimed == 2
            self._settle(claim)

    def _settle(self, claim: Claim) -> None:
        """A claim's wish or holdings have changed: see to it that it waits, or does not, or is forgotten."""
        key = claim.kind, claim.job_id
        queue = self._waiting.get(key)
        if claim.missing > 0:
            if queue is None:
                queue = self._waiting[key] = {}
            queue.setdefault(claim.owner_id, claim)
        elif queue is not None:
            queue.pop(claim.owner_id, None)
            if not queue:
                del self._waiting[key]
                if not any(kind == claim.kind for kind, _ in self._waiting):
                    self._no_longer_waits(claim.kind)
        if not claim.wanted and not claim.leases:
            self._claims.pop((claim.owner_id, claim.kind), None)

    def _use(self, lease: Lease, change: int) -> None:
        amount = self._usage.get(lease.job_id, 0.0) + change * dict(lease.kind.resources).get(CPUS, 0.01)
        if amount > 1e-6:
            self._usage[lease.job_id] = amount
        else:
            self._usage.pop(lease.job_id, None)

    def _unblock(self) -> None:
        """Something has become free: whoever found no room may look again."""
        self._blocked.clear()
        self._blocked_requests.clear()

    def _block_request(self, request_id: str) -> None:
        self._blocked_requests[request_id] = None
        self._blocked_since.setdefault(request_id, self._count)

    def _no_longer_waits(self, request: object) -> None:
        self._blocked_since.pop(request, None)
        if self.places.reserved_for is not None and self.places.reserved_for == request:
            self._unreserve()

    def _somebody_waits(self) -> bool:
        return bool(self._blocked or self._actor_requests or self._unplaced)

    # -- making room ---------------------------------------------------------------------------------------------

    def _reserve_for_the_overtaken(self) -> None:
        """Set nodes aside for the first request that others have gone past too often."""
        if self.places.reserved_for is not None:
            return
        for request, since in self._blocked_since.items():
            if self._count - since < PATIENCE:
                continue
            nodes = self._nodes_for(request)
            if not nodes:
                continue
            self._reserved_until = None
            self.places.set_aside(nodes, request)
            for node in nodes:
                for lease_id in node.leases:
                    self._ask(self.leases[lease_id], 2)
            return

    def _nodes_for(self, request: object) -> list[Ledger]:
        """Return the nodes that could hold a request once their task leases are given back."""

        def room(node: Ledger) -> dict[str, float]:
            free = dict(node.free)
            for lease_id in node.leases:
                lease = self.leases[lease_id]
                if not lease.actor_id and not lease.waiting:
                    give(lease.kind.resources, free)
            return free

        if isinstance(request, SchedulingClass):
            kind = request
        elif request in self._actor_requests:
            kind = self._actor_requests[str(request)].kind
        elif request in self._unplaced:
            group = self._unplaced[str(request)]
            staying = [node for node in self.nodes.values() if DRAINING not in node.closed]
            chosen = bundles.plan(group.bundles, group.strategy, staying, room)
            return list({node.node_id: node for node in chosen or ()}.values())
        else:
            return []
        if kind.placement.group_id:
            return []
        allowed = (node for node in self.places.candidates(kind) if DRAINING not in node.closed)
        fitting = [node for node in allowed if fits(kind.resources, room(node))]
        return [max(fitting, key=lambda node: node.free.get(CPUS, 0.0))] if fitting else []

    def _unreserve(self) -> None:
        self._reserved_until = None
        self.places.put_back()
        self._unblock()

    def _ask_back(self) -> None:
        """Somebody waits: idle leases are wanted back, and running ones where others have nothing, or too little.

        What there is is shared by jobs, and within a job by claimants; whoever has more gives up the excess. If
        claimants outnumber leases, or an actor or a group waits, the longest-served give up one each, so that everybody
        gets a turn. Waiting work of a higher priority has all that it wants.
        """
        claims = list(self._claims.values())
        blocked = [claim for claim in claims if claim.missing > 0 and claim.kind in self._blocked]
        others_wait = bool(self._actor_requests or self._unplaced)
        if not blocked and not others_wait:
            return
        self._drain_excess(claims, blocked)
        # Who waits for nobody but itself keeps its leases warm.
        alone = len(blocked) == 1 and not others_wait
        for key in list(self._unasked):
            if not alone or key != (blocked[0].owner_id, blocked[0].kind):
                for lease in list(self._unasked[key].values()):
                    self._ask(lease, 1)

    def _drain_excess(self, claims: list[Claim], blocked: list[Claim]) -> None:
        starving = len(self._actor_requests) + len(self._unplaced) + sum(not claim.leases for claim in blocked)
        urgent = max((claim.kind.priority for claim in blocked), default=None)
        if not starving and len(claims) < 2:
            return
        members: dict[str, int] = {}
        for claim in claims:
            members[claim.job_id] = members.get(claim.job_id, 0) + 1
        total = sum(len(claim.leases) for claim in claims)
        needed = sum(claim.missing for claim in blocked if claim.kind.priority == urgent)
        for claim in sorted(claims, key=lambda claim: claim.kind.priority):
            held = len(claim.leases)
            excess = max(0, held - max(1, total // (len(members) * members[claim.job_id])))
            if urgent is not None and claim.kind.priority < urgent:
                excess = max(excess, min(held, needed))
                needed -= min(held, needed)
            elif urgent is not None and claim.kind.priority > urgent:
                excess = 0
            if not excess and held and starving:
                excess = 1
            starving -= min(starving, excess)
            self._drain(claim, excess)

    def _forget_unasked(self, lease: Lease) -> None:
        key = lease.owner_id, lease.kind
        unasked = self._unasked.get(key)
        if unasked is not None and unasked.pop(lease.lease_id, None) is not None and not unasked:
            del self._unasked[key]

    def _drain(self, claim: Claim, count: int) -> None:
        """Have this many leases of a claim given back as soon as they drain, the oldest first."""
        if claim.num_draining >= count:
            return
        for lease in claim.leases.values():
            if lease.started:
                self._ask(lease, 2)
            if claim.num_draining >= count:
                return

    def _drain_overcommitted(self, node: Ledger) -> None:
        """Dask's own tasks have taken what leases hold: some of those are wanted back."""
        short = -node.free.get(CPUS, 0.0)
        for lease_id in node.leases:
            lease = self.leases[lease_id]
            if short <= 0:
                return
            if not lease.actor_id and not lease.waiting:
                short -= dict(lease.kind.resources).get(CPUS, 0.0)
                self._ask(lease, 2)

    def _ask(self, lease: Lease, level: int) -> None:
        if lease.actor_id or not lease.started or lease.reclaimed >= level:
            return
        lease.reclaimed = level
        self._forget_unasked(lease)
        claim = self._claims.get((lease.owner_id, lease.kind))
        if claim is not None and level == 2:
            claim.num_draining += 1
        self._actions.append(AskBack(lease, idle_only=level == 1))
