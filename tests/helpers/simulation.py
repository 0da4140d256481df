"""The scheduler as a whole, without processes: a deterministic simulation.

The lease machine and the actor directory, the task machine and the calls of every owner, and the executor pool of
every node are the real ones. What is simulated is what lies between them: a clock, a network that keeps order on each
link and none between links, processes that run tasks, host actors and die. The shells here do what
``runtime/{controller,owner,agent,executor}.py`` do, and no more.

A run must end by itself with nothing pending; whatever happened on the way, every task and call ends once, calls of
one caller keep their order, nothing is granted twice, and all resources come back.
"""

from __future__ import annotations

import dataclasses
import heapq
import itertools
from collections import Counter, deque
from collections.abc import Callable, Iterator
from random import Random
from typing import Any

from shoal.machines import actors, grants, leases, pool, tasks
from shoal.machines.bundles import Group
from shoal.machines.calls import ActorCalls, Call
from shoal.model import messages as m
from shoal.model.placement import Placement, SchedulingClass
from shoal.model.resources import Resources, make_resources

CPU = SchedulingClass(make_resources({"num_cpus": 1}))
HALF = SchedulingClass(make_resources({"num_cpus": 0.5}))
NOTHING = SchedulingClass(())
TWO_CPUS = SchedulingClass(make_resources({"num_cpus": 2}))
LOST_GRACE = 3.0
LAST_ANSWERS = 1.0
TICK = 0.05
CONTROLLER_TICK = 1.0
MAX_EVENTS = 150_000


def in_group(group_id: str, bundle: int = -1) -> SchedulingClass:
    """Half a CPU of a placement group, or of one of its bundles."""
    return HALF._replace(placement=Placement(group_id=group_id, bundle=bundle))


def with_priority(priority: int) -> SchedulingClass:
    return CPU._replace(priority=priority)


@dataclasses.dataclass
class Spec:
    """What a task does: works, starts children and waits for them, waits for others, and perhaps kills its process."""

    seconds: float = 0.001
    function_id: str = "f"
    kind: SchedulingClass = CPU
    retries: int = 3
    children: tuple[Spec, ...] = ()
    #: Names of tasks of the driver, which are waited for.
    waits_for: tuple[str, ...] = ()
    #: Attempts that end the process.
    crashes: int = 0


@dataclasses.dataclass
class ActorSpec:
    """How an actor lives: its ``__init__`` works (and crashes in its first lives), or raises."""

    init: Spec = dataclasses.field(default_factory=Spec)
    raises: bool = False
    kind: SchedulingClass = NOTHING
    max_restarts: int = 0
    detached: bool = False


class World:
    """Clock, network and the counts that the tests look at."""

    def __init__(self, seed: int) -> None:
        self.random = Random(seed)
        self.now = 0.0
        self.events = 0
        self.begun: Counter[str] = Counter()
        #: How long an owner may take to connect to an executor.
        self.connect_delays = (0.001, 0.06)
        #: Pairs whose connection is broken.
        self.cut: set[frozenset[Process]] = set()
        self._heap: list[tuple[float, int, Callable[..., None], tuple[Any, ...]]] = []
        self._numbers = itertools.count()
        self._links: dict[tuple[Process, Process], float] = {}

    def at(self, delay: float, function: Callable[..., None], *args: Any) -> None:
        heapq.heappush(self._heap, (self.now + delay, next(self._numbers), function, args))

    def carry(self, sender: Process, receiver: Process, function: Callable[..., None], *args: Any) -> None:
        """Call *function* when a message from *sender* to *receiver* arrives: in order on this link."""
        if frozenset((sender, receiver)) in self.cut:
            return
        usual, slow = self.random.expovariate(2_000.0), self.random.random() < 0.05
        arrival = max(self._links.get((sender, receiver), 0.0), self.now + usual + (0.05 if slow else 0.0))
        self._links[sender, receiver] = arrival
        self.at(arrival - self.now, function, *args)

    def run(self) -> None:
        """Run until nothing is left to happen."""
        while self._heap:
            self.now, _, function, args = heapq.heappop(self._heap)
            function(*args)
            self.events += 1
            assert self.events < MAX_EVENTS, "it goes on for ever"


class Process:
    """Something that sends, receives and dies. Who has exchanged messages with it sees it die, after the last one."""

    def __init__(self, world: World, name: str) -> None:
        self.world, self.name, self.alive = world, name, True
        self._peers: dict[Process, None] = {}

    def tell(self, receiver: Process, function: Callable[..., None], *args: Any) -> None:
        if self.alive:
            self.meet(receiver)
            self.world.carry(self, receiver, receiver.hear, function, *args)

    def hear(self, function: Callable[..., None], *args: Any) -> None:
        if self.alive:
            function(*args)

    def meet(self, other: Process) -> None:
        self._peers[other] = other._peers[self] = None

    def die(self) -> None:
        if self.alive:
            self.alive = False
            for peer in self._peers:
                self.world.carry(self, peer, peer.hear, peer.lost, self)

    def lost(self, peer: Process) -> None: ...


class Controller(Process):
    def __init__(self, world: World) -> None:
        super().__init__(world, "controller")
        self.machine = leases.LeaseMachine()
        self.directory = actors.ActorDirectory()
        self.actor_specs: dict[str, ActorSpec] = {}
        self._tick_due = False
        self.owners: dict[str, tuple[Process, Owner, str, bool]] = {}
        self.agents: dict[str, Agent] = {}
        self.granted: set[str] = set()

    def owner_hello(self, process: Process, owner: Owner, job_id: str, is_driver: bool) -> None:
        self.owners[process.name] = (process, owner, job_id, is_driver)

    def agent_hello(self, agent: Agent) -> None:
        self.agents[agent.name] = agent
        self.event(self.machine.node_joined, agent.name, agent.total)

    def demand(self, owner_id: str, kind: SchedulingClass, wanted: int) -> None:
        if owner_id in self.owners:
            self.event(self.machine.demand, owner_id, self.owners[owner_id][2], kind, wanted)

    def create_actor(self, owner_id: str, actor_id: str, spec: ActorSpec) -> None:
        if owner_id in self.owners:
            self.actor_specs[actor_id] = spec
            request = m.CreateActor(actor_id, spec.kind, "Class", "", spec.detached, spec.max_restarts, b"")
            self.event(self.directory.create, owner_id, self.owners[owner_id][2], request)

    def create_group(self, owner_id: str, group_id: str, bundles: tuple[Resources, ...], strategy: str) -> None:
        if owner_id in self.owners:
            self.event(
                self.machine.create_group, Group(group_id, owner_id, self.owners[owner_id][2], bundles, strategy)
            )

    def kill_actor(self, actor_id: str, restart: bool) -> None:
        def kill() -> None:
            self.directory.kill(actor_id, "it was killed", restart=restart)

        self.event(kill)

    def actor_created(self, lease_id: str, error: tuple[str, ...]) -> None:
        lease = self.machine.leases.get(lease_id)
        if lease is not None:
            self.event(self.directory.created, lease.actor_id, lease.node_id, lease.executor_id, lease.address, error)

    def event(self, function: Callable[..., None], *args: Any) -> None:
        function(*args)
        self.machine.validate()
        self.directory.validate()
        self.world.at(0.0, self.flush)

    def lost(self, peer: Process) -> None:
        if peer.name in self.owners:
            _, _, job_id, is_driver = self.owners.pop(peer.name)
            self.event(self.directory.owner_gone, peer.name)
            self.event(self.machine.owner_gone, peer.name)
            self.flush()
            for agent in self.agents.values():
                self.tell(agent, agent.owner_gone, job_id, is_driver)
        elif peer.name in self.agents:
            del self.agents[peer.name]
            self.event(self.machine.node_left, peer.name, "its node left")

    def flush(self) -> None:
        while True:
            wishes = self.directory.flush()
            for wish in wishes:
                self._carry_out_for_actor(wish)
            actions = self.machine.flush()
            self.machine.validate()
            if not wishes and not actions:
                break
            self._carry_out(actions)
        if self.machine.needs_tick and not self._tick_due:
            self._tick_due = True
            self.world.at(CONTROLLER_TICK, self._tick)

    def _tick(self) -> None:
        self._tick_due = False
        self.machine.tick(self.world.now)
        self.flush()

    def _carry_out_for_actor(self, wish: actors.Action) -> None:
        match wish:
            case actors.Place(actor):
                self.machine.request_actor(
                    grants.ActorRequest(actor.actor_id, actor.owner_id, actor.job_id, actor.kind)
                )
            case actors.Unplace(actor_id, lease_id):
                self.machine.cancel_actor_request(actor_id)
                self.machine.end_lease(lease_id)
            case actors.Tell(owner_ids, message):
                for owner_id in owner_ids:
                    self._tell_owner(owner_id, "actor_news", message)

    def _carry_out(self, actions: list[grants.Action]) -> None:
        for action in actions:
            match action:
                case grants.Start(lease):
                    actor = self.directory.actors.get(lease.actor_id)
                    assert actor is not None or not lease.actor_id, "nobody wants it any more"
                    if actor is not None:
                        self.directory.placed(lease.actor_id, lease.lease_id)
                    lives = actor.num_restarts if actor is not None else 0
                    self._tell_agent(lease, "start_lease", lease.lease_id, lease.job_id, lease.actor_id, lives)
                case grants.Grant(lease) if lease.actor_id:
                    pass
                case grants.Grant(lease):
                    assert lease.lease_id not in self.granted, "granted twice"
                    self.granted.add(lease.lease_id)
                    self._tell_owner(lease.owner_id, "granted", lease.lease_id, lease.kind, lease.address)
                case grants.End(lease, kill):
                    self._tell_agent(lease, "end_lease", lease.lease_id, kill)
                case grants.Lost(lease, cause, stderr, begun) if lease.actor_id:
                    self.directory.lost(lease.actor_id, lease.lease_id, cause, stderr)
                case grants.Lost(lease, cause, _, begun):
                    self._tell_owner(lease.owner_id, "lease_lost", lease.lease_id, begun, cause)
                case grants.AskBack(lease, idle_only):
                    self._tell_owner(lease.owner_id, "reclaim", lease.lease_id, idle_only)
                case grants.CannotRun(_, actor_id, _, _) if actor_id:
                    self.directory.kill(actor_id, "no node could ever hold it", restart=False)
                case grants.CannotRun(owner_id, _, kind, largest):
                    self._tell_owner(owner_id, "infeasible", kind, largest)
                case grants.GroupReady(group):
                    self._tell_owner(group.owner_id, "group_settled", group.group_id, "ready")
                case grants.GroupFailed(group):
                    self._tell_owner(group.owner_id, "group_settled", group.group_id, "failed")

    def _tell_owner(self, owner_id: str, handler: str, *args: Any) -> None:
        if owner_id in self.owners:
            process, owner, *_ = self.owners[owner_id]
            self.tell(process, getattr(owner, handler), *args)

    def _tell_agent(self, lease: grants.Lease, handler: str, *args: Any) -> None:
        if lease.node_id in self.agents:
            agent = self.agents[lease.node_id]
            self.tell(agent, getattr(agent, handler), *args)


class Agent(Process):
    def __init__(self, world: World, name: str, num_cpus: int, controller: Controller) -> None:
        super().__init__(world, name)
        self.total = make_resources({"num_cpus": num_cpus})
        self.controller = controller
        numbers = itertools.count()
        self.pool = pool.ExecutorPool(lambda: f"{name}-exec-{next(numbers)}", num_cpus)
        self.executors: dict[str, Executor] = {}
        self.serving: dict[str, str] = {}
        #: Leases of actors: who, and how many lives it has had.
        self.actors: dict[str, tuple[str, int]] = {}
        self.tell(controller, controller.agent_hello, self)
        self.carry_out()

    def start_lease(self, lease_id: str, job_id: str, actor_id: str, lives: int) -> None:
        if actor_id:
            self.actors[lease_id] = actor_id, lives
        self.pool.start_lease(lease_id, job_id, fresh=bool(actor_id))
        self.carry_out()

    def end_lease(self, lease_id: str, kill: bool) -> None:
        self.pool.end_lease(lease_id, kill)
        self.serving = {executor: lease for executor, lease in self.serving.items() if lease != lease_id}
        self.carry_out()

    def owner_gone(self, job_id: str, job_ended: bool) -> None:
        if job_ended:
            self.pool.job_ended(job_id)
            self.carry_out()

    def executor_ready(self, executor: Executor) -> None:
        self.pool.ready(executor.name, executor.name, 1)
        self.carry_out()

    def executor_ended(self, executor: Executor) -> None:
        """The template has reaped it."""
        self.pool.exited(executor.name, "it crashed")
        self.carry_out()
        self.executors.pop(executor.name, None)

    def die(self) -> None:
        super().die()
        for executor in list(self.executors.values()):
            executor.die()

    def carry_out(self) -> None:
        for action in self.pool.flush():
            match action:
                case pool.Spawn(executor_id):
                    self.world.at(0.015, self.hear, self._spawned, executor_id)
                case pool.Kill(executor_id):
                    if executor_id in self.executors:
                        self.executors.pop(executor_id).die()
                case pool.Bound(lease_id, bound):
                    assert bound.executor_id not in self.serving, "an executor serves one lease"
                    self.serving[bound.executor_id] = lease_id
                    self._report("executor_started", lease_id, bound.executor_id, bound.address)
                    if lease_id in self.actors and bound.executor_id in self.executors:
                        executor = self.executors[bound.executor_id]
                        self.tell(executor, executor.host, lease_id, *self.actors.pop(lease_id))
                case pool.Died(lease_id, executor_id, cause):
                    self.serving.pop(executor_id, None)
                    begun = self.executors[executor_id].begun if executor_id in self.executors else "?"
                    self._report("executor_died", lease_id, cause, "", begun)

    def waits(self, lease_id: str, waiting: bool) -> None:
        self._report("waits", lease_id, waiting)

    def created(self, lease_id: str, error: tuple[str, ...]) -> None:
        self.tell(self.controller, self.controller.actor_created, lease_id, error)

    def busy(self, cpus: float) -> None:
        """Dask's own tasks use this much now."""
        self._report("node_busy", self.name, make_resources({"num_cpus": cpus}))

    def full(self, seconds: float) -> None:
        """The memory was nearly full: for this long nothing new begins here."""
        self._report("node_full", self.name, True)
        self.world.at(seconds, self.hear, self._report, "node_full", self.name, False)

    def drained(self, seconds: float) -> None:
        """It is to leave; somebody changes their mind."""
        self._report("node_draining", self.name, True)
        self.world.at(seconds, self.hear, self._report, "node_draining", self.name, False)

    def _report(self, event: str, *args: Any) -> None:
        self.tell(self.controller, self.controller.event, getattr(self.controller.machine, event), *args)

    def _spawned(self, executor_id: str) -> None:
        if executor_id in self.pool.executors:
            executor = self.executors[executor_id] = Executor(self.world, executor_id, self)
            executor.tell(self, self.executor_ready, executor)


class Owner:
    """The owner part of a driver or an executor."""

    def __init__(self, process: Process, controller: Controller, job_id: str, is_driver: bool) -> None:
        self.process, self.controller, self.world = process, controller, process.world
        self.machine = tasks.TaskMachine()
        self.job_id, self.is_driver = job_id, is_driver
        self.outcomes: dict[str, str] = {}
        self.actors: dict[str, ActorCalls] = {}
        self.groups: dict[str, str] = {}
        self._actor_of: dict[str, str] = {}
        #: In the order made.
        self.call_numbers: dict[str, int] = {}
        self._at_end: dict[str, list[Callable[[], None]]] = {}
        self._greeted = False
        self._grants: dict[str, bool | None] = {}
        self._streams: dict[str, Executor] = {}
        self._waiters: dict[str, list[Callable[[], None]]] = {}
        self._tick_due = False
        self._numbers = itertools.count()

    def submit(self, spec: Spec, task_id: str = "") -> str:
        task_id = task_id or f"{self.process.name}/{next(self._numbers)}"
        self.machine.submit(tasks.Task(task_id, spec.function_id, spec.kind, spec.retries, spec))
        self.flush()
        return task_id

    def cancel(self, task_id: str) -> None:
        self.machine.cancel(task_id)
        self.flush()

    def when_ended(self, task_id: str, function: Callable[[], None]) -> None:
        if task_id in self.outcomes:
            function()
        else:
            self._waiters.setdefault(task_id, []).append(function)

    def locate(self, task_id: str, asker: Executor, answer: Callable[[], None]) -> None:
        self.when_ended(task_id, lambda: self.process.tell(asker, answer))

    def cut(self, executor: Executor) -> None:
        """The connection breaks while both live on."""
        self.world.cut.add(frozenset((self.process, executor)))
        self.process.hear(self.lost, executor)
        executor.hear(executor.lost, self.process)

    # -- from the controller -------------------------------------------------------------------------------------

    def granted(self, lease_id: str, kind: SchedulingClass, address: str) -> None:
        lease = tasks.Lease(lease_id, kind, address)
        self._grants[lease_id] = None
        delay = 0.0 if address in self._streams else self.world.random.choice(self.world.connect_delays)
        self.world.at(delay, self.process.hear, self._connected, lease)

    def _connected(self, lease: tasks.Lease) -> None:
        if lease.lease_id not in self._grants:
            return
        reclaim = self._grants.pop(lease.lease_id)
        executor = EXECUTORS[lease.address]
        if executor.alive:
            self.world.cut.discard(frozenset((self.process, executor)))
            self.process.meet(executor)
            self._streams[lease.address] = executor
            self.machine.granted(lease, self.world.now)
            if reclaim is not None:
                self.machine.reclaim(lease.lease_id, reclaim, self.world.now)
        else:
            self.machine.unreachable(lease)
        self.flush()

    def reclaim(self, lease_id: str, idle_only: bool) -> None:
        if lease_id in self._grants:
            self._grants[lease_id] = idle_only
        self.machine.reclaim(lease_id, idle_only, self.world.now)
        self.flush()

    def lease_lost(self, lease_id: str, begun: str, cause: str) -> None:
        self._grants.pop(lease_id, None)
        self.machine.lost(lease_id, begun, cause)
        self.flush()

    def infeasible(self, kind: SchedulingClass, largest: Any) -> None:
        self.machine.infeasible(kind, largest)
        self.flush()

    # -- actors and groups ---------------------------------------------------------------------------------------

    def create_actor(self, actor_id: str, spec: ActorSpec) -> None:
        self.actors[actor_id] = ActorCalls(actor_id)
        self._tell("create_actor", self.process.name, actor_id, spec)

    def kill_actor(self, actor_id: str, restart: bool) -> None:
        if actor_id in self.actors:
            self.actors[actor_id].held = True
        self._tell("kill_actor", actor_id, restart)

    def call(self, actor_id: str, spec: Spec, task_id: str, ready_after: float = 0.0) -> None:
        """Call an actor; the call's arguments are there after a while."""
        calls = self.actors.get(actor_id)
        if calls is None:
            calls = self.actors[actor_id] = ActorCalls(actor_id)
            self._tell("event", self.controller.directory.watch, self.process.name, actor_id)
        if calls.dead:
            self._ended(task_id, "died")
            return
        self._actor_of[task_id] = actor_id
        self.call_numbers[task_id] = len(self.call_numbers)
        call = Call(task_id, spec, spec.retries)
        calls.add(call)

        def ready() -> None:
            call.ready = True
            self._send_calls(calls, calls.sendable())

        self.world.at(ready_after, self.process.hear, ready)

    def actor_news(self, message: m.Message) -> None:
        calls = self.actors.get(message.actor_id)
        if calls is None or calls.dead:
            return
        match message:
            case m.ActorAlive(_, _, executor_id, address):
                self._after_stream(calls.address, lambda: self._reach(calls, address, executor_id))
            case m.ActorRestarting():
                self._after_stream(calls.address, lambda: self._fail_calls(calls.restarting(), "unavailable"))
            case m.ActorDead(_, cause, stderr):
                self._after_stream(calls.address, lambda: self._died(calls, cause, stderr))

    def group_settled(self, group_id: str, state: str) -> None:
        self.groups[group_id] = state

    def create_group(self, group_id: str, bundles: tuple[Resources, ...], strategy: str) -> None:
        self._tell("create_group", self.process.name, group_id, bundles, strategy)

    def remove_group(self, group_id: str) -> None:
        self._tell("event", self.controller.machine.remove_group, group_id)

    def _reach(self, calls: ActorCalls, address: str, executor_id: str) -> None:
        executor = EXECUTORS[address]
        if executor.alive and not calls.dead:
            self.process.meet(executor)
            self._streams[address] = executor
            self._send_calls(calls, calls.alive(address, executor_id))

    def _died(self, calls: ActorCalls, cause: str, stderr: str) -> None:
        if not calls.dead:
            self._fail_calls(calls.died(cause, stderr), "died")

    def _fail_calls(self, lost: list[Call], outcome: str) -> None:
        for call in lost:
            del self._actor_of[call.task_id]
            self._ended(call.task_id, outcome)

    def _send_calls(self, calls: ActorCalls, batch: list[Call]) -> None:
        executor = self._streams.get(calls.address)
        for call in batch if executor is not None else ():
            self.process.tell(executor, executor.arrived, Run(call.task_id, "", call.spec, call.attempt, self))

    def _after_stream(self, address: str, go_on: Callable[[], None]) -> None:
        """Go on when all that a dead process has sent has been read."""
        if address not in self._streams:
            go_on()
            return
        waiting = self._at_end.setdefault(address, [])
        waiting.append(go_on)

        def too_late() -> None:
            if go_on in waiting:
                waiting.remove(go_on)
                go_on()

        self.world.at(LAST_ANSWERS, self.process.hear, too_late)

    # -- from executors ------------------------------------------------------------------------------------------

    def done(self, task_id: str, outcome: str, seconds: float) -> None:
        if task_id in self._actor_of:
            if self.actors[self._actor_of[task_id]].finished(task_id) is not None:
                del self._actor_of[task_id]
                self._ended(task_id, outcome)
            return
        if self.machine.finished(task_id, seconds, self.world.now) is not None:
            self._ended(task_id, outcome)
        self.flush()

    def returned(self, lease_id: str, task_ids: tuple[str, ...], waiting: bool) -> None:
        self.machine.returned(lease_id, task_ids, waiting, self.world.now)
        self.flush()

    def resumed(self, lease_id: str) -> None:
        self.machine.resumed(lease_id, self.world.now)
        self.flush()

    def lost(self, peer: Process) -> None:
        self._streams.pop(peer.name, None)
        for go_on in self._at_end.pop(peer.name, ()):
            go_on()
        for lease in [lease for lease in self.machine.leases.values() if lease.address == peer.name]:
            self._suspect(lease)

    def _suspect(self, lease: tasks.Lease) -> None:
        self.world.at(LOST_GRACE, self.process.hear, self._surely_lost, lease)

    def _surely_lost(self, lease: tasks.Lease) -> None:
        if self.machine.leases.get(lease.lease_id) is lease:
            self.machine.cut_off(lease.lease_id, "the connection to it was lost")
            self.flush()

    # -- actions -------------------------------------------------------------------------------------------------

    def flush(self) -> None:
        for action in self.machine.flush(self.world.now):
            match action:
                case tasks.Send(lease, batch):
                    self._send(lease, batch)
                case tasks.SetDemand(kind, wanted):
                    self._tell("demand", self.process.name, kind, wanted)
                case tasks.GiveBack(lease, broken):
                    self._tell("event", self.controller.machine.gave_back, lease.lease_id, broken)
                case tasks.SendRecall(lease):
                    self._order(lease, "recall", lease.lease_id, self)
                case tasks.SendCancel(lease, task, _, _):
                    self._order(lease, "cancel", task.task_id)
                case tasks.Fail(task, reason):
                    self._ended(task.task_id, reason)
        if self.machine.needs_tick and not self._tick_due:
            self._tick_due = True
            self.world.at(TICK, self.process.hear, self._tick)

    def _tick(self) -> None:
        self._tick_due = False
        self.machine.tick(self.world.now)
        self.flush()

    def _send(self, lease: tasks.Lease, batch: list[tasks.Task]) -> None:
        if lease.address not in self._streams:
            self._suspect(lease)
            return
        for task in batch:
            self._order(lease, "arrived", Run(task.task_id, lease.lease_id, task.spec, task.attempt, self))

    def _order(self, lease: tasks.Lease, handler: str, *args: Any) -> None:
        executor = self._streams.get(lease.address)
        if executor is not None:
            self.process.tell(executor, getattr(executor, handler), *args)

    def _tell(self, handler: str, *args: Any) -> None:
        if not self._greeted:
            self._greeted = True
            self.process.tell(
                self.controller, self.controller.owner_hello, self.process, self, self.job_id, self.is_driver
            )
        self.process.tell(self.controller, getattr(self.controller, handler), *args)

    def _ended(self, task_id: str, outcome: str) -> None:
        assert task_id not in self.outcomes, "a task ends once"
        self.outcomes[task_id] = outcome
        for function in self._waiters.pop(task_id, ()):
            function()


class Driver(Process):
    def __init__(self, world: World, name: str, controller: Controller) -> None:
        super().__init__(world, name)
        self.owner = Owner(self, controller, f"job-{name}", is_driver=True)

    def lost(self, peer: Process) -> None:
        self.owner.lost(peer)


@dataclasses.dataclass
class Run:
    task_id: str
    lease_id: str
    spec: Spec
    attempt: int
    #: None for an actor's ``__init__``.
    owner: Owner | None


#: Every executor of the run that is going on, by address.
EXECUTORS: dict[str, Executor] = {}


class Executor(Process):
    def __init__(self, world: World, name: str, agent: Agent) -> None:
        super().__init__(world, name)
        self.agent = agent
        self.begun = ""
        self.running: Run | None = None
        self.owner = Owner(self, agent.controller, "", is_driver=False)
        self._steps: Iterator[tuple[str, Any]] = iter(())
        self._since = 0.0
        self._waiting = False
        self._queue: deque[Run] = deque()
        self._pending: dict[str, Run] = {}
        #: The actor that lives here, its lease, and the last call of each caller.
        self._actor: tuple[str, str] = ("", "")
        self._last_call: dict[str, int] = {}
        EXECUTORS[name] = self

    def die(self) -> None:
        if self.alive:
            super().die()
            self.world.at(0.01, self.agent.hear, self.agent.executor_ended, self)

    def lost(self, peer: Process) -> None:
        self.owner.lost(peer)
        for run in list(self._pending.values()):
            if run.owner is not None and run.owner.process is peer:
                del self._pending[run.task_id]

    def arrived(self, run: Run) -> None:
        self._pending[run.task_id] = run
        self._queue.append(run)
        self._next()

    def host(self, lease_id: str, actor_id: str, lives: int) -> None:
        """Become an actor: run its ``__init__``."""
        self._actor = actor_id, lease_id
        spec = self.agent.controller.actor_specs[actor_id]
        self.arrived(Run(f"{actor_id}.__init__", "", spec.init, lives, None))

    def recall(self, lease_id: str, owner: Owner, waiting: bool = False) -> None:
        back = tuple(task_id for task_id, run in self._pending.items() if run.lease_id == lease_id)
        for task_id in back:
            del self._pending[task_id]
        self.tell(owner.process, owner.returned, lease_id, back, waiting)

    def cancel(self, task_id: str) -> None:
        run = self._pending.pop(task_id, None)
        if run is not None:
            self.tell(run.owner.process, run.owner.done, task_id, "cancelled", 0.0)
        elif self.running is not None and self.running.task_id == task_id:
            self._go_on()
            self._finish("cancelled")

    def _next(self) -> None:
        while self.running is None and self._queue:
            run = self._queue.popleft()
            if self._pending.pop(run.task_id, None) is not None:
                self.begun = run.task_id
                self.world.begun[run.task_id] += 1
                if not run.lease_id and run.owner is not None:
                    caller, number = run.owner.process.name, run.owner.call_numbers[run.task_id]
                    assert number > self._last_call.get(caller, -1), "calls of one caller keep their order"
                    self._last_call[caller] = number
                self.running, self._since, self._steps = run, self.world.now, self._steps_of(run)
                self._step(run)

    def _steps_of(self, run: Run) -> Iterator[tuple[str, Any]]:
        if run.owner is not None:
            self.owner.job_id = run.owner.job_id
        yield "work", run.spec.seconds / 2
        children = [self.owner.submit(child) for child in run.spec.children]
        if children:
            yield "wait", [(self.owner, child) for child in children]
        if run.spec.waits_for:
            yield "wait", [(run.owner, name) for name in run.spec.waits_for]
        if run.attempt < run.spec.crashes:
            yield "crash", None
        yield "work", run.spec.seconds / 2

    def _step(self, run: Run) -> None:
        if run is not self.running:  # it was cancelled
            return
        match next(self._steps, ("end", None)):
            case "work", seconds:
                self.world.at(seconds, self.hear, self._step, run)
            case "wait", awaited:
                self._wait(run, awaited)
            case "crash", _:
                self.die()
            case _:
                self._finish("finished")

    def _wait(self, run: Run, awaited: list[tuple[Owner, str]]) -> None:
        missing = [
            (owner, task_id) for owner, task_id in awaited if task_id not in owner.outcomes or owner is run.owner
        ]
        left = len(missing)

        def ready() -> None:
            nonlocal left
            left -= 1
            if not left and run is self.running:
                self._go_on()
                self._step(run)

        if not missing:
            self._step(run)
            return
        if run.lease_id:
            self._waiting = True
            self.recall(run.lease_id, run.owner, waiting=True)
            self.tell(self.agent, self.agent.waits, run.lease_id, True)
        for owner, task_id in missing:
            if owner is self.owner:
                owner.when_ended(task_id, ready)
            else:
                self.tell(owner.process, owner.locate, task_id, self, ready)

    def _go_on(self) -> None:
        run = self.running
        if run is not None and self._waiting:
            self._waiting = False
            self.tell(run.owner.process, run.owner.resumed, run.lease_id)
            self.tell(self.agent, self.agent.waits, run.lease_id, False)

    def _finish(self, outcome: str) -> None:
        run, self.running = self.running, None
        assert run is not None
        if run.owner is None:
            actor_id, lease_id = self._actor
            raises = self.agent.controller.actor_specs[actor_id].raises
            self.tell(self.agent, self.agent.created, lease_id, ("e", "error") if raises else ())
            self._next()
            return
        self.tell(run.owner.process, run.owner.done, run.task_id, outcome, self.world.now - self._since)
        self._next()


class Cluster:
    """A world with a controller, nodes and drivers."""

    def __init__(self, seed: int, cpus: tuple[int, ...], num_drivers: int = 1) -> None:
        EXECUTORS.clear()
        self.world = World(seed)
        self.random = self.world.random
        self.controller = Controller(self.world)
        self.agents = [Agent(self.world, f"node-{n}", num, self.controller) for n, num in enumerate(cpus)]
        self.drivers = [Driver(self.world, f"driver-{n}", self.controller) for n in range(num_drivers)]
        self.submitted: list[tuple[Driver, str, Spec]] = []
        self.actors: list[tuple[Driver, str]] = []
        self.groups: list[tuple[Driver, str]] = []

    def submit(self, spec: Spec, driver: int = 0, at: float = 0.0, name: str = "") -> str:
        owner = self.drivers[driver]
        name = name or f"task-{len(self.submitted)}"
        self.submitted.append((owner, name, spec))
        self.world.at(at, owner.hear, owner.owner.submit, spec, name)
        return name

    def create_actor(self, spec: ActorSpec, driver: int = 0, at: float = 0.0) -> str:
        owner, actor_id = self.drivers[driver], f"actor-{len(self.actors)}"
        self.actors.append((owner, actor_id))
        self.world.at(at, owner.hear, owner.owner.create_actor, actor_id, spec)
        return actor_id

    def call(self, actor_id: str, spec: Spec, driver: int = 0, at: float = 0.0, ready_after: float = 0.0) -> str:
        owner, name = self.drivers[driver], f"call-{len(self.submitted)}"
        self.submitted.append((owner, name, spec))
        self.world.at(at, owner.hear, owner.owner.call, actor_id, spec, name, ready_after)
        return name

    def create_group(self, bundles: list[float], strategy: str, driver: int = 0, at: float = 0.0) -> str:
        owner, group_id = self.drivers[driver], f"group-{len(self.groups)}"
        self.groups.append((owner, group_id))
        shares = tuple(make_resources({"num_cpus": cpus}) for cpus in bundles)
        self.world.at(at, owner.hear, owner.owner.create_group, group_id, shares, strategy)
        return group_id

    def run(self) -> Counter[str]:
        """Run to the end, check what must hold there, and return how the tasks of living drivers ended."""
        self.world.run()
        outcomes: Counter[str] = Counter()
        for driver, name, _ in self.submitted:
            if driver.alive:
                assert name in driver.owner.outcomes, f"{name} waits for ever"
                outcomes[driver.owner.outcomes[name]] += 1
        owners = [driver.owner for driver in self.drivers if driver.alive]
        owners += [executor.owner for executor in EXECUTORS.values() if executor.alive]
        for owner in owners:
            assert not owner.machine.tasks and not owner.machine.leases and not owner.machine.num_queued
            assert not any(calls.queue or calls.sent for calls in owner.actors.values())
        assert all(executor.running is None for executor in EXECUTORS.values() if executor.alive)
        machine, living = self.controller.machine, self.controller.directory.actors
        assert {lease.actor_id for lease in machine.leases.values()} == set(living)
        assert all(actor.state == "alive" for actor in living.values())
        for actor_id in list(living):
            self.controller.kill_actor(actor_id, restart=False)
        for group_id in list(machine.groups):
            machine.remove_group(group_id)
        self.world.run()
        assert machine.leases == {} and machine.groups == {} and not machine.needs_tick
        for node in machine.nodes.values():
            assert node.free == node.total
        for agent in self.agents:
            if agent.alive:
                assert not any(executor.lease_id for executor in agent.pool.executors.values())
        return outcomes


def random_spec(random: Random, depth: int, crashes: bool) -> Spec:
    function, seconds = random.choice(
        [("short", 0.0005), ("short", 0.001), ("long", 0.08), ("mixed", 0.001), ("mixed", 0.2)]
    )
    num_children = random.choice([0, 0, 1, 3]) if depth else 0
    return Spec(
        seconds=seconds,
        function_id=f"{function}-{depth}",
        kind=random.choice([CPU, CPU, CPU, NOTHING, HALF]),
        retries=random.choice([0, 1, 3]),
        children=tuple(random_spec(random, depth - 1, crashes) for _ in range(num_children)),
        crashes=random.choice([0] * 12 + [1, 5]) if crashes else 0,
    )
