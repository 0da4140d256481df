"""The scheduler as a whole, without processes: a deterministic simulation.

The lease machine, the task machine of every owner and the executor pool of every node are the real ones. What is
simulated is what lies between them: a clock, a network that keeps order on each link and none between links, processes
that run tasks and die. The shells here do what ``runtime/{controller,owner,agent,executor}.py`` do, and no more.

A run must end by itself with nothing pending; whatever happened on the way, every task ends once, nothing is granted
twice, and all resources come back.
"""

from __future__ import annotations

import dataclasses
import heapq
import itertools
from collections import Counter, deque
from collections.abc import Callable, Iterator
from random import Random
from typing import Any

import pytest

from shoal.model.placement import SchedulingClass
from shoal.model.resources import make_resources
from shoal.state import grants, leases, pool, tasks

CPU = SchedulingClass(make_resources({"num_cpus": 1}))
HALF = SchedulingClass(make_resources({"num_cpus": 0.5}))
NOTHING = SchedulingClass(())
TWO_CPUS = SchedulingClass(make_resources({"num_cpus": 2}))
LOST_GRACE = 3.0
TICK = 0.05
MAX_EVENTS = 150_000


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

    def event(self, function: Callable[..., None], *args: Any) -> None:
        function(*args)
        self.machine.validate()
        self.world.at(0.0, self.flush)

    def lost(self, peer: Process) -> None:
        if peer.name in self.owners:
            _, _, job_id, is_driver = self.owners.pop(peer.name)
            self.event(self.machine.owner_gone, peer.name)
            self.flush()
            for agent in self.agents.values():
                self.tell(agent, agent.owner_gone, job_id, is_driver)
        elif peer.name in self.agents:
            del self.agents[peer.name]
            self.event(self.machine.node_left, peer.name, "its node left")

    def flush(self) -> None:
        actions = self.machine.flush()
        self.machine.validate()
        for action in actions:
            match action:
                case grants.Start(lease):
                    self._tell_agent(lease, "start_lease", lease.lease_id, lease.job_id)
                case grants.Grant(lease):
                    assert lease.lease_id not in self.granted, "granted twice"
                    self.granted.add(lease.lease_id)
                    self._tell_owner(lease.owner_id, "granted", lease.lease_id, lease.kind, lease.address)
                case grants.End(lease, kill):
                    self._tell_agent(lease, "end_lease", lease.lease_id, kill)
                case grants.Lost(lease, cause, _, begun):
                    self._tell_owner(lease.owner_id, "lease_lost", lease.lease_id, begun, cause)
                case grants.AskBack(lease, idle_only):
                    self._tell_owner(lease.owner_id, "reclaim", lease.lease_id, idle_only)
                case grants.CannotRun(owner_id, _, kind, largest):
                    self._tell_owner(owner_id, "infeasible", kind, largest)

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
        self.tell(controller, controller.agent_hello, self)
        self.carry_out()

    def start_lease(self, lease_id: str, job_id: str) -> None:
        self.pool.start_lease(lease_id, job_id, fresh=False)
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
                case pool.Died(lease_id, executor_id, cause):
                    self.serving.pop(executor_id, None)
                    begun = self.executors[executor_id].begun if executor_id in self.executors else "?"
                    self._report("executor_died", lease_id, cause, "", begun)

    def waits(self, lease_id: str, waiting: bool) -> None:
        self._report("waits", lease_id, waiting)

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

    # -- from executors ------------------------------------------------------------------------------------------

    def done(self, task_id: str, outcome: str, seconds: float) -> None:
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
                case tasks.GiveBack(lease):
                    self._tell("event", self.controller.machine.gave_back, lease.lease_id)
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
    owner: Owner


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
        EXECUTORS[name] = self

    def die(self) -> None:
        if self.alive:
            super().die()
            self.world.at(0.01, self.agent.hear, self.agent.executor_ended, self)

    def lost(self, peer: Process) -> None:
        self.owner.lost(peer)
        for run in list(self._pending.values()):
            if run.owner.process is peer:
                del self._pending[run.task_id]

    def arrived(self, run: Run) -> None:
        self._pending[run.task_id] = run
        self._queue.append(run)
        self._next()

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
                self.running, self._since, self._steps = run, self.world.now, self._steps_of(run)
                self._step(run)

    def _steps_of(self, run: Run) -> Iterator[tuple[str, Any]]:
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

    def submit(self, spec: Spec, driver: int = 0, at: float = 0.0, name: str = "") -> str:
        owner = self.drivers[driver]
        name = name or f"task-{len(self.submitted)}"
        self.submitted.append((owner, name, spec))
        self.world.at(at, owner.hear, owner.owner.submit, spec, name)
        return name

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
        assert all(executor.running is None for executor in EXECUTORS.values() if executor.alive)
        machine = self.controller.machine
        assert machine.leases == {}
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


# -- calm weather ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("cpus", [(1,), (2, 1)])
def test_plain_tasks_all_finish_and_run_once(seed: int, cpus: tuple[int, ...]) -> None:
    cluster = Cluster(seed, cpus)
    for _ in range(200):
        cluster.submit(random_spec(cluster.random, 0, crashes=False), at=cluster.random.random())
    assert cluster.run() == {"finished": 200}
    assert set(cluster.world.begun.values()) == {1}


@pytest.mark.parametrize("seed", range(5))
def test_tasks_that_wait_for_nested_ones_finish_on_one_cpu(seed: int) -> None:
    cluster = Cluster(seed, (1,))
    leaf = Spec(function_id="leaf")
    middle = Spec(function_id="middle", children=(leaf, leaf))
    for _ in range(6):
        cluster.submit(Spec(function_id="outer", children=(middle, leaf)))
    assert cluster.run() == {"finished": 6}
    assert cluster.world.begun.total() == 6 * (1 + 2 + 2)


def test_deep_recursion_finishes_on_one_cpu() -> None:
    spec = Spec(function_id="level-0")
    for level in range(1, 12):
        spec = Spec(function_id=f"level-{level}", children=(spec,))
    cluster = Cluster(1, (1,))
    cluster.submit(spec)
    assert cluster.run() == {"finished": 1}


def test_many_short_tasks_take_few_messages() -> None:
    cluster = Cluster(1, (2,))
    for _ in range(3_000):
        cluster.submit(Spec(seconds=0.0002, function_id="short"))
    assert cluster.run() == {"finished": 3_000}
    assert cluster.world.now < 2.5, "of which one second is the warm lease's"


@pytest.mark.parametrize(
    "connect_delay",
    [
        0.0,
        0.06,
    ],
)
def test_drivers_share(connect_delay: float) -> None:
    cluster = Cluster(1, (2,), num_drivers=2)
    cluster.world.connect_delays = (connect_delay,)
    for driver in range(2):
        for _ in range(100):
            cluster.submit(Spec(seconds=0.05, function_id="long"), driver=driver)
    shares: list[int] = []
    cluster.world.at(3.0, lambda: shares.extend(len(driver.owner.outcomes) for driver in cluster.drivers))
    assert cluster.run() == {"finished": 200}
    assert min(shares) > 0.7 * max(shares)


def test_what_no_node_holds_fails_and_the_rest_goes_on() -> None:
    cluster = Cluster(1, (1,))
    cluster.submit(Spec(kind=TWO_CPUS))
    cluster.submit(Spec())
    assert cluster.run() == {"infeasible": 1, "finished": 1}


def test_a_larger_node_takes_what_a_smaller_one_cannot() -> None:
    cluster = Cluster(1, (1, 2))
    for _ in range(5):
        cluster.submit(Spec(kind=TWO_CPUS), at=0.5)
        cluster.submit(Spec(), at=0.5)
    assert cluster.run() == {"finished": 10}


# -- storms ------------------------------------------------------------------------------------------------------


def cancel_some(cluster: Cluster) -> None:
    for driver, name, _ in cluster.submitted:
        if cluster.random.random() < 0.1:
            cluster.world.at(cluster.random.random() * 1.5, driver.hear, driver.owner.cancel, name)


def kill_some(cluster: Cluster, count: int) -> None:
    def kill() -> None:
        living = [executor for executor in EXECUTORS.values() if executor.alive]
        if living:
            cluster.random.choice(living).die()

    for _ in range(count):
        cluster.world.at(cluster.random.random() * 1.5, kill)


@pytest.mark.parametrize("seed", range(40))
def test_every_task_ends_once_whatever_happens(seed: int) -> None:
    """Nested work, crashes, kills from outside, cancellations, owners and nodes that go."""
    setup = Random(seed)
    cpus = setup.choice([(1,), (2,), (1, 1), (2, 1, 1)])
    cluster = Cluster(seed, cpus, num_drivers=setup.choice([1, 2, 3]))
    for _ in range(40):
        spec = random_spec(cluster.random, 2, crashes=True)
        cluster.submit(spec, setup.randrange(len(cluster.drivers)), cluster.random.random())
    cancel_some(cluster)
    kill_some(cluster, 4)
    if len(cluster.drivers) > 1:
        cluster.world.at(setup.random(), cluster.drivers[-1].die)
    if len(cluster.agents) > 1:
        cluster.world.at(setup.random(), cluster.agents[-1].die)
    outcomes = cluster.run()
    assert set(outcomes) <= {"finished", "cancelled", "crashed"}


@pytest.mark.parametrize("seed", range(5))
def test_retries_outlast_crashes(seed: int) -> None:
    cluster = Cluster(seed, (2,))
    for number in range(30):
        cluster.submit(Spec(retries=3, crashes=number % 3))
    assert cluster.run() == {"finished": 30}


def test_crashes_outlast_retries() -> None:
    cluster = Cluster(1, (2,))
    for _ in range(5):
        cluster.submit(Spec(retries=2, crashes=3))
    assert cluster.run() == {"crashed": 5}
    assert set(cluster.world.begun.values()) == {3}


@pytest.mark.parametrize("seed", range(5))
def test_nothing_is_left_when_every_driver_goes(seed: int) -> None:
    cluster = Cluster(seed, (2, 2), num_drivers=2)
    for number in range(40):
        cluster.submit(random_spec(cluster.random, 2, crashes=False), driver=number % 2)
    for driver in cluster.drivers:
        cluster.world.at(cluster.random.random() * 0.3, driver.die)
    assert cluster.run() == {}


def test_tasks_may_wait_for_siblings() -> None:
    """The sibling is submitted late, and may be on its way to the executor of the task that begins to wait for it."""
    for seed in range(60):
        cluster = Cluster(seed, (1,))
        for _ in range(20):
            cluster.submit(Spec(seconds=0.0005, function_id="short"))
        cluster.submit(Spec(seconds=0.0005, function_id="short", waits_for=("sibling",)), at=0.4)
        late = 0.4 + cluster.random.random() * 0.003
        cluster.submit(Spec(seconds=0.0005, function_id="short"), at=late, name="sibling")
        assert cluster.run() == {"finished": 22}


@pytest.mark.parametrize(
    "num_tasks",
    [
        1,
        10,
    ],
)
def test_a_broken_connection_is_survived(num_tasks: int) -> None:
    """Owner and executor live on and cannot talk: the lease counts as lost, and the work is done again."""
    for seed in range(10):
        cluster = Cluster(seed, (1,))
        for number in range(num_tasks):
            cluster.submit(Spec(seconds=1.0, function_id="long"), at=number * 0.05)

        def cut(owner: Owner = cluster.drivers[0].owner) -> None:
            for executor in list(owner._streams.values()):
                owner.cut(executor)

        cluster.world.at(0.6, cut)
        assert cluster.run() == {"finished": num_tasks}
