"""The controller: leases, actors, and what is known of the cluster. Off the path of tasks and calls."""

from __future__ import annotations

import asyncio
import functools
import itertools
import logging
import time
from collections.abc import Iterable
from typing import Any

from shoal.machines import actors, grants, leases
from shoal.machines.bundles import Group
from shoal.machines.kept import KeptValues
from shoal.machines.shortage import Holder, Shortage, find_group_shortage, find_shortage
from shoal.model import messages as m
from shoal.model.placement import SchedulingClass, class_from_wire
from shoal.model.resources import describe, from_wire
from shoal.observe.cell_memory import CellMemoryBook
from shoal.observe.cluster_view import ClusterView
from shoal.observe.executor_places import ExecutorPlaces
from shoal.observe.history import STEP
from shoal.observe.metric_book import MetricBook
from shoal.observe.records import Batch, RecordBook
from shoal.runtime.environment import event_log_root, silence_limit
from shoal.runtime.event_logger import EventLogger
from shoal.runtime.heartbeat import Heartbeat
from shoal.runtime.relay import Relay
from shoal.runtime.scope import Scope
from shoal.runtime.versions import versions_here
from shoal.runtime.watchers import Watchers
from shoal.transport.stream import Comm, Stream

logger = logging.getLogger("shoal")

#: Seconds between two looks at reservations, while there is one.
TICK = 1.0
#: Kinds of work that wait for a place, listed in the snapshot at most.
MAX_WAITING_ROWS = 20
#: Leases that one answer lists at most: the newest.
MAX_LEASE_ROWS = 10_000
#: Characters of what a cluster's keeper has everybody told.
MAX_NOTICE = 500


class Controller:
    """Serves owners and node agents on the Dask scheduler's event loop."""

    def __init__(self, cluster_id: str, name: str, address: str) -> None:
        self.cluster_id = cluster_id
        self._machine = leases.LeaseMachine()
        self._directory = actors.ActorDirectory()
        self.view = ClusterView(self.cluster_id, name, address, time.time())
        self._owners: dict[str, tuple[Stream, m.OwnerHello]] = {}
        self._agents: dict[str, tuple[Stream, m.AgentHello]] = {}
        #: Nodes by the address of their agent, also those that have left.
        self._node_ids: dict[str, str] = {}
        #: Where the names of each job's actors are.
        self._namespaces: dict[str, str] = {}
        #: News of nodes that has not been told yet, and the addresses of nodes that have gone.
        self._joined: list[tuple[str, str, str, str]] = []
        self._left: list[str] = []
        self._gone_nodes: set[str] = set()
        self._flush_due = False
        self._tick_due = False
        self._scope = Scope(f"controller {cluster_id}")
        self._heartbeat = Heartbeat(silence_limit(), self._give_up, self._suspect)
        self._beating = False
        #: Nodes that are to leave, and who wants it: the ids of owners; "" for the process that the controller is in.
        self._draining: dict[str, set[str]] = {}
        self._records = RecordBook()
        self._places = ExecutorPlaces()
        about = {"id": cluster_id, "name": name, "address": address, "started": self.view.started}
        self._log = EventLogger(event_log_root(), about, self.snapshot, self.view, self._places)
        self._metrics = MetricBook()
        self._cell_memory = CellMemoryBook()
        self._kept = KeptValues()
        self._watchers = Watchers(self.snapshot)
        self._relay = Relay(self._send_to)

    async def serve(self, comm: Comm) -> None:
        """Serve a stream that the Dask scheduler has accepted for us, to its end."""
        if not self._beating:
            self._beating = True
            self._scope.start(self._heartbeat.run(self._streams, self._agent_streams))
            self._scope.start(self._tick_the_view())
        stream = Stream(comm, self._message)
        await stream.run()
        self._gone(stream)

    def snapshot(self) -> dict[str, object]:
        """Return the cluster's state: see :mod:`shoal.observe.cluster_view`."""
        used = {
            node.node_id: {name: total - node.free[name] for name, total in node.total.items()}
            for node in self._machine.nodes.values()
        }
        return self.view.snapshot(
            time.time(),
            used,
            groups=[self._group_row(group) for group in self._machine.groups.values()],
            waiting=self._waiting_rows(),
            num_records=self._records.total,
        )

    def metric_rows(self) -> tuple[Any, ...]:
        """Return the metrics of user code: see :meth:`shoal.observe.metric_book.MetricBook.rows`."""
        return self._metrics.rows()

    def cell_memory_rows(self) -> list[dict[str, Any]]:
        """Return how much cells' values took over time: see :mod:`shoal.observe.cell_memory`."""
        return self._cell_memory.rows()

    def newest_records(self, limit: int) -> list[Batch]:
        """Return the batches with the newest *limit* records, the oldest first."""
        return self._records.newest(limit)

    def _group_row(self, group: Group) -> dict[str, Any]:
        nodes = [share.node_id if share is not None else "" for share in group.shares] or [""] * len(group.bundles)
        bundles = [
            {"resources": describe(bundle), "node": node} for bundle, node in zip(group.bundles, nodes, strict=True)
        ]
        return {
            "id": group.group_id,
            "strategy": group.strategy,
            "state": "ready" if group.ready else "pending",
            "owner": group.owner_id,
            "bundles": bundles,
        }

    def _waiting_rows(self) -> list[dict[str, Any]]:
        """Say what has no place, and why, of the work that has waited longest."""
        rows = []
        for owner_id, kind, count, actor_id in self._machine.waiting(MAX_WAITING_ROWS):
            found = find_shortage(self._machine.places, self._machine.leases, kind)
            reason = found.describe() if found is not None else "no node could ever hold it"
            what = f"actor `{self._label(actor_id)}`" if actor_id else f"tasks with {kind.describe()}"
            waiting_id = actor_id or f"{owner_id} {kind.describe()}"
            rows.append({"id": waiting_id, "owner": owner_id, "what": what, "count": count, "reason": reason})
        return rows

    async def _tick_the_view(self) -> None:
        while True:
            await asyncio.sleep(STEP)
            self.view.tick(time.time())
            self._log.tick()

    def drain(self, node_id: str, draining: bool, owner_id: str = "") -> None:
        """Give a node no new work, and have its tasks' leases back as those end; or let it have work again.

        It has work again when nobody wants it to leave any more; what an owner wants ends with it.
        """
        if node_id not in self._machine.nodes:
            return
        wanted_by = self._draining.setdefault(node_id, set())
        if draining:
            wanted_by.add(owner_id)
        else:
            wanted_by.discard(owner_id)
        if not wanted_by:
            del self._draining[node_id]
        self.view.node_state(node_id, "draining" if wanted_by else "alive")
        self._machine.node_draining(node_id, bool(wanted_by))
        self._flush()

    def work_on(self, node_id: str) -> tuple[int, list[str]]:
        """Return how many executors run tasks on a node, and what else is there: actors and bundles, in words."""
        leases = [lease for lease in self._machine.leases.values() if lease.node_id == node_id]
        actor_ids = [lease.actor_id for lease in leases if lease.actor_id]
        stays = [f"actor `{self._label(actor_id)}`" for actor_id in actor_ids]
        for group in self._machine.groups.values():
            count = sum(share is not None and share.node_id == node_id for share in group.shares)
            stays += [f"{count} bundle{'s' * (count != 1)} of placement group `{group.group_id}`"] * bool(count)
        return len(leases) - len(actor_ids), stays

    def _label(self, actor_id: str) -> str:
        actor = self._directory.actors.get(actor_id)
        return (actor.name or actor.class_name) if actor is not None else actor_id

    async def close(self) -> None:
        """Hang up on everybody."""
        await self._scope.close()
        await self._log.close()
        for stream in self._streams():
            stream.abort()

    # -- silence -------------------------------------------------------------------------------------------------

    def _streams(self) -> list[Stream]:
        told = [stream for stream, _ in (*self._owners.values(), *self._agents.values())]
        return told + self._watchers.streams()

    def _agent_streams(self) -> dict[str, Stream]:
        return {node_id: stream for node_id, (stream, _) in self._agents.items()}

    def _suspect(self, node_id: str, suspected: bool) -> None:
        """A node that says nothing gets no new work; what it has, it may yet finish."""
        self.view.node_state(node_id, "suspected" if suspected else "alive")
        logger.warning("node %s %s", node_id, "says nothing: it gets no new work" if suspected else "is heard again")
        self._machine.node_suspected(node_id, suspected)
        self._flush()

    def _give_up(self, node_id: str) -> None:
        logger.warning("node %s has said nothing for too long: it is given up", node_id)
        self._agents[node_id][0].abort()

    # -- messages ------------------------------------------------------------------------------------------------

    def _message(self, stream: Stream, message: m.Message) -> None:
        if not stream.peer_id:
            self._greet(stream, message)
        elif isinstance(message, m.Ask):
            self._asked(stream, message)
        elif isinstance(message, m.Answer):
            self._relay.answered(stream.peer_id, message)
        elif stream.peer_id in self._owners:
            self._owner_message(stream.peer_id, message)
        elif stream.peer_id in self._agents:
            self._agent_message(stream.peer_id, message)
        if not self._flush_due:
            self._flush_due = True
            asyncio.get_running_loop().call_soon(self._flush)

    def _greet(self, stream: Stream, hello: m.Message) -> None:
        if not isinstance(hello, m.OwnerHello | m.AgentHello | m.WatchHello) or hello.protocol != m.PROTOCOL_VERSION:
            ours = f"this cluster runs shoal {versions_here()['shoal']} (protocol {m.PROTOCOL_VERSION})"
            stream.send_nowait(m.Refused(f"{ours}, and the peer speaks another protocol"))
            asyncio.get_running_loop().call_later(1.0, stream.abort)
        elif isinstance(hello, m.OwnerHello):
            stream.peer_id = hello.owner_id
            self._owners[hello.owner_id] = (stream, hello)
            if hello.is_driver:
                self._namespaces[hello.job_id] = hello.namespace
            self.view.owner_joined(hello.owner_id, hello.is_driver, hello.job_id, time.time())
            stream.send_nowait(self._welcome())
        elif isinstance(hello, m.WatchHello):
            stream.peer_id = hello.watcher_id
            self._scope.start(self._watchers.serve(stream, hello))
        else:
            stream.peer_id = hello.node_id
            self._agents[hello.node_id] = (stream, hello)
            self._node_ids[hello.worker] = hello.node_id
            self._machine.node_joined(hello.node_id, from_wire(hello.total), address=hello.worker, labels=hello.labels)
            self.view.node_joined(hello.node_id, hello.host, dict(from_wire(hello.total)), time.time())
            stream.send_nowait(self._welcome())
            self._joined.append((hello.node_id, hello.worker, hello.host, hello.store))

    def _welcome(self) -> m.Welcome:
        nodes = tuple((h.node_id, h.worker, h.host, h.store, h.versions) for _, h in self._agents.values())
        return m.Welcome(self.cluster_id, self.view.name, versions_here(), nodes)

    def _owner_message(self, owner_id: str, message: m.Message) -> None:
        job_id = self._owners[owner_id][1].job_id
        match message:
            case m.Demand(kind, wanted):
                self._machine.demand(owner_id, job_id, class_from_wire(kind), wanted)
            case m.ReturnLease(lease_id, broken):
                self._machine.gave_back(lease_id, broken)
            case m.EndExecutor(lease_id, _):
                lease = self._machine.leases.get(lease_id)
                if lease is not None and lease.owner_id == owner_id:
                    self._tell_agent(lease.node_id, message)
            case m.CreateActor():
                self.view.actor_requested(message.actor_id, message.name, message.class_name, owner_id)
                self._directory.create(owner_id, job_id, message)
            case m.KillActor(actor_id, cause, restart):
                self._directory.kill(actor_id, cause, restart=restart)
            case m.WatchActor(actor_id):
                self._directory.watch(owner_id, actor_id)
            case m.CreateGroup(group_id, bundles, strategy, detached):
                shares = tuple(from_wire(bundle) for bundle in bundles)
                self._machine.create_group(Group(group_id, "" if detached else owner_id, job_id, shares, strategy))
            case m.RemoveGroup(group_id):
                self._machine.remove_group(group_id)
            case m.ClaimName():
                self._claim_name(owner_id, job_id, message)
            case m.FindActor(request, namespace, name):
                found = self._directory.find((namespace or self._namespaces.get(job_id, ""), name))
                self._tell_owners([owner_id], actors.as_claimed(request, found))
            case m.OwnerStats(counts, num_records, packed):
                self.view.owner_counts(owner_id, counts, time.time())
                self._log.work_came()
                if num_records:
                    batch = Batch(owner_id, num_records, packed)
                    self._records.add(batch)
                    self._watchers.recorded(batch)
                    self._log.recorded(batch)
            case m.CellMemory(rows):
                self._cell_memory.report(owner_id, rows, time.time())
            case m.MetricsReport(defined, changed):
                for complaint in self._metrics.add(owner_id, job_id, defined, changed):
                    self.view.event("metrics", complaint, time.time())

    def _asked(self, stream: Stream, question: m.Ask) -> None:
        if question.target:
            reply = functools.partial(_reply, stream, question.request)
            self._relay.ask(question, reply, time.monotonic())
        else:
            value, failed = None, ""
            try:
                value = self._answer(stream.peer_id, question.topic, question.details)
            except (TypeError, ValueError, LookupError) as error:
                failed = f"`{question.topic}` with {question.details!r} makes no sense: {error}"
            stream.send_nowait(m.Answer(question.request, value, failed))

    def _send_to(self, target: str, message: m.Message) -> bool:
        """Send a message to the owner or node of this id; returns whether there is one."""
        found = self._owners.get(target) or self._agents.get(target)
        if found is not None:
            found[0].send_nowait(message)
        return found is not None

    def _claim_name(self, owner_id: str, job_id: str, claim: m.ClaimName) -> None:
        key = (claim.namespace or self._namespaces.get(job_id, ""), claim.name)
        wish = actors.Name(claim.actor_id, owner_id, claim.handle, claim.life)
        holder = self._directory.claim_name(key, wish, claim.policy)
        self._tell_owners([owner_id], actors.as_claimed(claim.request, holder))

    def _answer(self, asker: str, topic: str, details: tuple[Any, ...]) -> Any:
        match topic:
            case "nodes":
                return tuple(
                    (
                        node.node_id,
                        node.address,
                        tuple(node.labels.items()),
                        tuple(node.total.items()),
                        tuple(node.free.items()),
                    )
                    for node in self._machine.nodes.values()
                )
            case "processes":
                return self._processes()
            case "snapshot":
                return self.snapshot()
            case "metrics":
                return self.metric_rows()
            case "cell_memory":
                return self.cell_memory_rows()
            case "records":
                return tuple(map(tuple, self.newest_records(int(details[0]))))
            case "record_page":
                batches, before = self._records.page(int(details[0]), details[1])
                return tuple(map(tuple, batches)), before
            case "executor_nodes":
                return self._places.nodes()
            case "leases":
                return self._lease_rows()
            case "kill_actor":
                self._directory.kill(str(details[0]), str(details[1]), restart=bool(details[2]))
            case "keep":
                return self._kept.keep(str(details[0]), details[1])
            case "kept":
                return self._kept.find(str(details[0]))
            case "notice":
                self.view.event("notice", str(details[0])[:MAX_NOTICE], time.time())
            case "bundles":
                found_group = self._machine.groups.get(str(details[0]))
                shares = found_group.shares if found_group is not None else ()
                return tuple(share.node_id if share is not None else "" for share in shares)
            case "drain":
                node_ids, draining = details
                for node_id in node_ids:
                    self.drain(str(node_id), bool(draining), asker)
            case "work":
                found_work = [self.work_on(str(node_id)) for node_id in details]
                return tuple((count, tuple(stays)) for count, stays in found_work)
            case "names":
                return tuple(
                    (namespace, name, holder.actor_id) for (namespace, name), holder in self._directory.names.items()
                )
            case "shortage":
                return self._shortage(class_from_wire(details[0]))
            case "group":
                group = self._machine.groups.get(str(details[0]))
                if group is None or group.ready:
                    return "it was removed" if group is None else "its bundles have just been reserved"
                found = find_group_shortage(self._machine.places, self._machine.leases, group)
                return self._named(found) if found is not None else "no node could hold one of its bundles"
            case "actor":
                return self._explain_actor(str(details[0]))
        return None

    def _processes(self) -> Any:
        """Return, by owner's id, what each executor does and where: the actor's label, or "" for tasks."""
        found = {}
        for lease in self._machine.leases.values():
            if lease.executor_id:
                actor = self._directory.actors.get(lease.actor_id)
                label = (actor.name or actor.class_name) if actor is not None else ""
                found[lease.executor_id] = (label, lease.node_id)
        return tuple((executor_id, *row) for executor_id, row in found.items())

    def _lease_rows(self) -> Any:
        """Return what :func:`shoal.observe.state_tables.lease_rows` reads, of the newest leases."""
        rows = []
        for lease in itertools.islice(reversed(self._machine.leases.values()), MAX_LEASE_ROWS):
            state = "waiting" if lease.waiting else "held" if lease.started else "starting"
            actor = self._label(lease.actor_id) if lease.actor_id else ""
            kind = lease.kind
            rows.append(
                (
                    lease.lease_id, state, lease.node_id, lease.executor_id, lease.owner_id, lease.job_id, actor,
                    kind.describe(), kind.resources, kind.priority,
                )
            )  # fmt: skip
        return tuple(rows)

    def _explain_actor(self, actor_id: str) -> Any:
        """Return what ``Explainer`` reads of an actor, or in words why there is nothing."""
        dead = self._directory.find_dead(actor_id)
        if dead is not None:
            return "dead", "", "", "", 0, dead.cause, ()
        actor = self._directory.actors.get(actor_id)
        if actor is None:
            return "this cluster knows no such actor"
        address = actor.alive.address if actor.alive is not None else ""
        lease = self._machine.leases.get(actor.lease_id)
        node_id = lease.node_id if lease is not None else ""
        shortage = () if actor.lease_id else self._shortage(actor.kind)
        label = actor.name or actor.class_name
        return actor.state, label, node_id, address, actor.num_restarts, "", shortage

    def _shortage(self, kind: SchedulingClass) -> Any:
        found = find_shortage(self._machine.places, self._machine.leases, kind)
        return self._named(found) if found is not None else "no node could ever hold it"

    def _named(self, shortage: Shortage) -> Shortage:
        """Say what the actors among the holders are called."""

        def named(holder: Holder) -> Holder:
            actor = self._directory.actors.get(holder.who) if holder.kind == "actor" else None
            if actor is None:
                return holder
            return holder._replace(who=f"`{actor.name or actor.class_name}` ({holder.who})")

        return shortage._replace(holders=tuple(map(named, shortage.holders)))

    def _agent_message(self, node_id: str, message: m.Message) -> None:
        match message:
            case m.LeaseStarted(lease_id, executor_id, address):
                self._machine.executor_started(lease_id, executor_id, address)
                self._log.executor_started(executor_id, node_id)
            case m.ExecutorDied(lease_id, cause, stderr, begun, memory):
                self._machine.executor_died(lease_id, cause, stderr, begun, memory)
            case m.NodeFull(full):
                self._machine.node_full(node_id, full)
            case m.Waiting(lease_id, waiting):
                self._machine.waits(lease_id, waiting)
            case m.ActorCreated(lease_id, error):
                lease = self._machine.leases.get(lease_id)
                if lease is not None:
                    self._directory.created(lease.actor_id, lease.node_id, lease.executor_id, lease.address, error)
            case m.ActorExited(lease_id, cause):
                lease = self._machine.leases.get(lease_id)
                if lease is not None:
                    self._directory.kill(lease.actor_id, cause, restart=False)
            case m.NodeBusy(amounts):
                self._machine.node_busy(node_id, from_wire(amounts))
            case m.SegmentsSeen(owner_id, _, names):
                if owner_id in self._owners:
                    self._tell_owners([owner_id], message)
                else:
                    self._tell_agent(node_id, m.SegmentsUnowned(names))
            case m.NodeUsage():
                received = tuple((self._node_ids.get(row[0], row[0]), row[1]) for row in message.received_from)
                self.view.node_usage(node_id, message._replace(received_from=received))

    def _gone(self, stream: Stream) -> None:
        """The other end of a stream has ended, and with it what it held."""
        peer = stream.peer_id
        for node_id in [node_id for node_id, wanted_by in self._draining.items() if peer in wanted_by]:
            self.drain(node_id, False, peer)
        if peer in self._owners:
            _, hello = self._owners[peer]
            if hello.is_driver:
                self._log.driver_leaves()
            del self._owners[peer]
            self._metrics.process_left(peer)
            self._cell_memory.owner_left(peer, time.time())
            if hello.is_driver:
                self._metrics.job_ended(hello.job_id)
            self.view.owner_left(peer, time.time())
            self._relay.gone(peer)
            self._directory.owner_gone(peer)
            self._machine.owner_gone(peer)
            self._flush()
            for agent, _ in self._agents.values():
                agent.send_nowait(m.OwnerGone(peer, hello.job_id, hello.is_driver))
        elif peer in self._agents:
            _, agent_hello = self._agents.pop(peer)
            self._draining.pop(peer, None)
            self.view.node_left(peer, time.time())
            self._relay.gone(peer)
            self._machine.node_left(peer, f"its node {agent_hello.host} ({peer}) left the cluster")
            self._left.append(agent_hello.worker)
            self._flush()

    # -- actions -------------------------------------------------------------------------------------------------

    def _flush(self) -> None:
        """Carry out what both machines want done, until neither wants more."""
        self._flush_due = False
        if self._joined or self._left:
            self._tell_of_nodes()
        while True:
            # Wishes first: an actor that is wanted no more must not be placed.
            wishes = self._directory.flush()
            for wish in wishes:
                self._carry_out_for_actor(wish)
            actions = self._machine.flush()
            if not wishes and not actions:
                break
            for action in actions:
                self._carry_out(action)
        if self._machine.needs_tick and not self._tick_due:
            self._tick_due = True
            asyncio.get_running_loop().call_later(TICK, self._tick)

    def _tick(self) -> None:
        self._tick_due = False
        self._machine.tick(time.monotonic())
        self._flush()

    def _carry_out_for_actor(self, wish: actors.Action) -> None:
        match wish:
            case actors.Place(actor):
                request = grants.ActorRequest(actor.actor_id, actor.owner_id, actor.job_id, actor.kind)
                self._machine.request_actor(request)
            case actors.Unplace(actor_id, lease_id):
                self._machine.cancel_actor_request(actor_id)
                self._machine.end_lease(lease_id)
            case actors.Tell(owner_ids, message):
                self._tell_owners(owner_ids, message)
            case actors.Changed(actor_id, state, node_id):
                dead = self._directory.find_dead(actor_id) if state == "dead" else None
                self.view.actor_changed(actor_id, state, node_id, time.time(), dead.cause if dead is not None else "")

    def _carry_out(self, action: grants.Action) -> None:
        match action:
            case grants.Start(lease):
                actor = self._directory.actors.get(lease.actor_id)
                if actor is not None:
                    self._directory.placed(lease.actor_id, lease.lease_id)
                creation = actor.creation if actor is not None else b""
                restartable = actor is not None and actor.restarts_left != 0
                resources = lease.kind.resources
                start = m.StartLease(lease.lease_id, lease.job_id, resources, lease.actor_id, creation, restartable)
                self._tell_agent(lease.node_id, start)
            case grants.Grant(lease):
                if not lease.actor_id:  # an actor's is news when its `__init__` has run
                    granted = m.LeaseGranted(
                        lease.lease_id, lease.kind, lease.node_id, lease.executor_id, lease.address
                    )
                    self._tell_owners([lease.owner_id], granted)
            case grants.End(lease, kill):
                self._tell_agent(lease.node_id, m.EndLease(lease.lease_id, kill))
            case grants.Lost(lease, cause, stderr, begun, memory):
                if lease.actor_id:
                    self._directory.lost(lease.actor_id, lease.lease_id, cause, stderr)
                else:
                    self._tell_owners([lease.owner_id], m.LeaseLost(lease.lease_id, cause, stderr, begun, memory))
            case grants.AskBack(lease, idle_only):
                self._tell_owners([lease.owner_id], m.Reclaim(lease.lease_id, idle_only))
            case grants.GroupReady(group, nodes):
                self._tell_owners([group.owner_id], m.GroupReady(group.group_id, nodes))
            case grants.GroupFailed(group, reason):
                self._tell_owners([group.owner_id], m.GroupFailed(group.group_id, reason))
            case grants.CannotRun(owner_id, actor_id, kind, largest, reason):
                actor = self._directory.actors.get(actor_id)
                listeners = actor.watchers if actor is not None else [owner_id]
                self._tell_owners(listeners, m.Infeasible(kind, largest, actor_id, reason))
                if actor_id:
                    self._directory.kill(actor_id, f"no node could ever hold it: {reason}", restart=False)

    def _tell_of_nodes(self) -> None:
        joined, left = tuple(self._joined), tuple(self._left)
        self._joined.clear()
        self._left.clear()
        self._tell_owners(self._owners, m.NodesChanged(joined, left))
        back = tuple(row for row in joined if row[1] in self._gone_nodes)
        self._gone_nodes.difference_update(row[1] for row in joined)
        self._gone_nodes.update(left)
        if back or left:
            for agent, _ in self._agents.values():
                agent.send_nowait(m.NodesChanged(back, left))

    def _tell_agent(self, node_id: str, message: m.Message) -> None:
        agent = self._agents.get(node_id)
        if agent is not None:
            agent[0].send_nowait(message)

    def _tell_owners(self, owner_ids: Iterable[str], message: m.Message) -> None:
        for owner_id in owner_ids:
            owner = self._owners.get(owner_id)
            if owner is not None:
                owner[0].send_nowait(message)


def _reply(stream: Stream, request: int, value: Any, failed: str) -> None:
    stream.send_nowait(m.Answer(request, value, failed))
