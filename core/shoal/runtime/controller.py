"""The controller: leases, actors, and what is known of the cluster. Off the path of tasks and calls."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterable

from shoal.model import messages as m
from shoal.model.placement import class_from_wire
from shoal.model.resources import from_wire
from shoal.observe.cluster_view import ClusterView
from shoal.runtime.versions import versions_here
from shoal.state import leases
from shoal.transport.stream import Comm, Stream

#: Dead actors whose cause of death is remembered.
MAX_DEAD = 1_000


class Controller:
    """Serves owners and node agents on the Dask scheduler's event loop."""

    def __init__(self, cluster_id: str, name: str, address: str) -> None:
        self.cluster_id = cluster_id
        self._machine = leases.LeaseMachine()
        self.view = ClusterView(self.cluster_id, name, address, time.time())
        self._owners: dict[str, tuple[Stream, m.OwnerHello]] = {}
        self._agents: dict[str, tuple[Stream, m.AgentHello]] = {}
        #: Who wants to know about an actor: its owner, and every process that holds a handle and has called it.
        self._watchers: dict[str, set[str]] = {}
        #: The owner of each actor that is not dead.
        self._actor_owners: dict[str, str] = {}
        self._alive: dict[str, m.ActorAlive] = {}
        self._dead: dict[str, m.ActorDead] = {}
        self._flush_due = False

    async def serve(self, comm: Comm) -> None:
        """Serve a stream that the Dask scheduler has accepted for us, to its end."""
        stream = Stream(comm, self._message)
        await stream.run()
        self._gone(stream)

    def snapshot(self) -> dict[str, object]:
        """Return the cluster's state: see :mod:`shoal.observe.cluster_view`."""
        used = {
            node.node_id: {name: total - node.free[name] for name, total in node.total.items()}
            for node in self._machine.nodes.values()
        }
        return self.view.snapshot(time.time(), used)

    async def close(self) -> None:
        """Hang up on everybody."""
        for stream, _ in (*self._owners.values(), *self._agents.values()):
            stream.abort()

    # -- messages ------------------------------------------------------------------------------------------------

    def _message(self, stream: Stream, message: m.Message) -> None:
        if not stream.peer_id:
            self._greet(stream, message)
        elif stream.peer_id in self._owners:
            self._owner_message(stream.peer_id, message)
        else:
            self._agent_message(stream.peer_id, message)
        if not self._flush_due:
            self._flush_due = True
            asyncio.get_running_loop().call_soon(self._flush)

    def _greet(self, stream: Stream, hello: m.Message) -> None:
        if not isinstance(hello, m.OwnerHello | m.AgentHello) or hello.protocol != m.PROTOCOL_VERSION:
            ours = f"this cluster runs shoal {versions_here()['shoal']} (protocol {m.PROTOCOL_VERSION})"
            stream.send_nowait(m.Refused(f"{ours}, and the peer speaks another protocol"))
            asyncio.get_running_loop().call_later(1.0, stream.abort)
        elif isinstance(hello, m.OwnerHello):
            stream.peer_id = hello.owner_id
            self._owners[hello.owner_id] = (stream, hello)
            self.view.owner_joined(hello.owner_id, hello.is_driver)
            stream.send_nowait(self._welcome())
        else:
            stream.peer_id = hello.node_id
            self._agents[hello.node_id] = (stream, hello)
            self._machine.node_joined(hello.node_id, from_wire(hello.total))
            self.view.node_joined(hello.node_id, hello.host, dict(from_wire(hello.total)))
            stream.send_nowait(self._welcome())

    def _welcome(self) -> m.Welcome:
        nodes = tuple((h.node_id, h.worker, h.host, h.store, h.versions) for _, h in self._agents.values())
        return m.Welcome(self.cluster_id, self.view.name, versions_here(), nodes)

    def _owner_message(self, owner_id: str, message: m.Message) -> None:
        job_id = self._owners[owner_id][1].job_id
        match message:
            case m.Demand(kind, wanted):
                self._machine.demand(owner_id, job_id, class_from_wire(kind), wanted)
            case m.ReturnLease(lease_id):
                self._machine.gave_back(lease_id)
            case m.CreateActor(actor_id, kind, class_name, name):
                self._watchers[actor_id] = {owner_id}
                self._actor_owners[actor_id] = owner_id
                self.view.actor_requested(actor_id, name, class_name)
                self._machine.request_actor(leases.ActorRequest(actor_id, owner_id, job_id, class_from_wire(kind)))
            case m.KillActor(actor_id, cause):
                self._actor_ends(actor_id, cause, "", kill=True)
            case m.WatchActor(actor_id):
                self._watch(owner_id, actor_id)
            case m.OwnerStats(queued, functions):
                self.view.owner_stats(owner_id, queued, functions)

    def _agent_message(self, node_id: str, message: m.Message) -> None:
        match message:
            case m.LeaseStarted(lease_id, executor_id, address):
                self._machine.executor_started(lease_id, executor_id, address)
            case m.ExecutorDied(lease_id, cause, stderr, begun):
                self._machine.executor_died(lease_id, cause, stderr, begun)
            case m.Waiting(lease_id, waiting):
                self._machine.waits(lease_id, waiting)
            case m.NodeUsage():
                self.view.node_usage(node_id, message)

    def _gone(self, stream: Stream) -> None:
        """The other end of a stream has ended, and with it what it held."""
        peer = stream.peer_id
        if peer in self._owners:
            _, hello = self._owners.pop(peer)
            self.view.owner_left(peer)
            for actor_id in [actor_id for actor_id, owner_id in self._actor_owners.items() if owner_id == peer]:
                self._actor_ends(actor_id, "its owner is gone", "", kill=True)
            self._machine.owner_gone(peer)
            self._flush()
            for agent, _ in self._agents.values():
                agent.send_nowait(m.OwnerGone(peer, hello.job_id, hello.is_driver))
        elif peer in self._agents:
            _, agent_hello = self._agents.pop(peer)
            self.view.node_left(peer)
            self._machine.node_left(peer, f"its node {agent_hello.host} ({peer}) left the cluster")
            self._flush()

    # -- actions -------------------------------------------------------------------------------------------------

    def _flush(self) -> None:
        self._flush_due = False
        for action in self._machine.flush():
            match action:
                case leases.Start(lease):
                    self._tell_agent(
                        lease.node_id, m.StartLease(lease.lease_id, lease.job_id, lease.kind.resources, lease.actor_id)
                    )
                case leases.Grant(lease):
                    self._granted(lease)
                case leases.End(lease, kill):
                    self._tell_agent(lease.node_id, m.EndLease(lease.lease_id, kill))
                case leases.Lost(lease, cause, stderr, begun):
                    if lease.actor_id:
                        self._actor_ends(lease.actor_id, cause, stderr, kill=False)
                    else:
                        self._tell_owners([lease.owner_id], m.LeaseLost(lease.lease_id, cause, stderr, begun))
                case leases.AskBack(lease, idle_only):
                    self._tell_owners([lease.owner_id], m.Reclaim(lease.lease_id, idle_only))
                case leases.CannotRun(owner_id, actor_id, kind, largest):
                    self._tell_owners([owner_id], m.Infeasible(kind, largest, actor_id))
                    if actor_id:
                        self._actor_ends(actor_id, "no node could ever hold it", "", kill=False)

    def _granted(self, lease: leases.Lease) -> None:
        if lease.actor_id:
            alive = m.ActorAlive(lease.actor_id, lease.node_id, lease.executor_id, lease.address)
            self._alive[lease.actor_id] = alive
            self.view.actor_alive(lease.actor_id, lease.node_id)
            self._tell_owners(self._watchers.get(lease.actor_id, ()), alive)
        else:
            message = m.LeaseGranted(lease.lease_id, lease.kind, lease.node_id, lease.executor_id, lease.address)
            self._tell_owners([lease.owner_id], message)

    def _watch(self, owner_id: str, actor_id: str) -> None:
        if actor_id in self._dead:
            self._tell_owners([owner_id], self._dead[actor_id])
        elif actor_id in self._watchers:
            self._watchers[actor_id].add(owner_id)
            if actor_id in self._alive:
                self._tell_owners([owner_id], self._alive[actor_id])
        else:
            self._tell_owners([owner_id], m.ActorDead(actor_id, "this cluster knows no such actor", ""))

    def _actor_ends(self, actor_id: str, cause: str, stderr: str, *, kill: bool) -> None:
        if actor_id not in self._watchers:
            return
        dead = self._dead[actor_id] = m.ActorDead(actor_id, cause, stderr)
        self._tell_owners(self._watchers.pop(actor_id), dead)
        self._alive.pop(actor_id, None)
        self._actor_owners.pop(actor_id, None)
        self._machine.cancel_actor_request(actor_id)
        lease_ids = [lease.lease_id for lease in self._machine.leases.values() if lease.actor_id == actor_id]
        for lease_id in lease_ids if kill else ():
            self._machine.end_lease(lease_id)
        self.view.actor_dead(actor_id)
        while len(self._dead) > MAX_DEAD:
            del self._dead[next(iter(self._dead))]

    def _tell_agent(self, node_id: str, message: m.Message) -> None:
        agent = self._agents.get(node_id)
        if agent is not None:
            agent[0].send_nowait(message)

    def _tell_owners(self, owner_ids: Iterable[str], message: m.Message) -> None:
        for owner_id in owner_ids:
            owner = self._owners.get(owner_id)
            if owner is not None:
                owner[0].send_nowait(message)
