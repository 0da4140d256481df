"""The scheduler's state machines on a simulated cluster: decisions per second, and memory per queued task.

Run ``make bench-scale``. The real machines of 64 owners and of the controller are driven by a simulated clock; nothing
is sent and no process started, so what is measured is the cost of deciding. A *decision* is a lease granted, a task
sent, an actor or a placement group placed. Tasks take one second, so that none is sent ahead of another.
"""

from __future__ import annotations

import gc
import heapq
import itertools
import multiprocessing
import resource
import sys
import time
from collections.abc import Callable

from shoal.machines import grants, leases, tasks
from shoal.machines.bundles import Group
from shoal.model.placement import SchedulingClass
from shoal.model.resources import make_resources

NUM_OWNERS = 64
CPUS_PER_NODE = 8
TASK_SECONDS = 1.0
CPU = SchedulingClass(make_resources({"num_cpus": 1}))
ACTOR = SchedulingClass(make_resources({"num_cpus": 0.5}))


class Cluster:
    """A controller, its nodes and its owners, on one clock."""

    def __init__(self, num_nodes: int) -> None:
        self.machine = leases.LeaseMachine()
        total = make_resources({"num_cpus": CPUS_PER_NODE, "memory": 1 << 34})
        for number in range(num_nodes):
            self.machine.node_joined(f"node-{number}", total)
        self.owners = {f"owner-{number}": tasks.TaskMachine() for number in range(NUM_OWNERS)}
        self.now = 0.0
        self.decisions = 0
        self.finished = 0
        self._due: list[tuple[float, int, str, list[tasks.Task]]] = []
        self._numbers = itertools.count()

    def queue(self, count: int) -> None:
        """Submit tasks, the same number to each owner."""
        owners = list(self.owners.values())
        for number in range(count):
            owner = owners[number % NUM_OWNERS]
            owner.submit(tasks.Task(f"task-{number}", "f", CPU, 3, None))

    def run(self) -> None:
        """Run until every task has ended."""
        for owner_id in self.owners:
            self.flush_owner(owner_id)
        self.flush_controller()
        while self._due:
            self.now = self._due[0][0]
            changed: dict[str, None] = {}
            while self._due and self._due[0][0] <= self.now:
                _, _, owner_id, batch = heapq.heappop(self._due)
                for task in batch:
                    self.owners[owner_id].finished(task.task_id, TASK_SECONDS, self.now)
                self.finished += len(batch)
                changed[owner_id] = None
            for owner_id in changed:
                self.flush_owner(owner_id)
            self.flush_controller()

    def flush_owner(self, owner_id: str) -> None:
        for action in self.owners[owner_id].flush(self.now):
            match action:
                case tasks.Send(_, batch):
                    self.decisions += len(batch)
                    heapq.heappush(self._due, (self.now + TASK_SECONDS, next(self._numbers), owner_id, batch))
                case tasks.SetDemand(kind, wanted):
                    self.machine.demand(owner_id, f"job-{owner_id}", kind, wanted)
                case tasks.GiveBack(lease):
                    self.machine.gave_back(lease.lease_id)

    def flush_controller(self) -> None:
        """Carry out what the controller wants, to the end: executors start at once."""
        while actions := self.machine.flush():
            served: dict[str, None] = {}
            for action in actions:
                match action:
                    case grants.Start(lease):
                        self.machine.executor_started(lease.lease_id, "exec", lease.lease_id)
                    case grants.Grant(lease) if not lease.actor_id:
                        self.decisions += 1
                        granted = tasks.Lease(lease.lease_id, lease.kind, lease.address)
                        self.owners[lease.owner_id].granted(granted, self.now)
                        served[lease.owner_id] = None
                    case grants.AskBack(lease, idle_only):
                        self.owners[lease.owner_id].reclaim(lease.lease_id, idle_only, self.now)
                        served[lease.owner_id] = None
            for owner_id in served:
                self.flush_owner(owner_id)


def timed(function: Callable[[], None]) -> float:
    gc.collect()
    begin = time.perf_counter()
    function()
    return time.perf_counter() - begin


def run_tasks(num_nodes: int, num_tasks: int) -> None:
    cluster = Cluster(num_nodes)
    before = resident()
    submit = timed(lambda: cluster.queue(num_tasks))
    nbytes = (resident() - before) / num_tasks
    seconds = timed(cluster.run)
    assert cluster.finished == num_tasks
    seconds += submit
    memory = f"{nbytes:,.0f} B" if num_tasks >= 100_000 else "-"
    print(
        f"{num_nodes:>7,} {num_tasks:>10,} {cluster.decisions / seconds:>14,.0f}/s {seconds:>9.1f} s "
        f"{cluster.now:>12,.0f} s {memory:>16}",
        flush=True,
    )


def run_actors(num_nodes: int, count: int) -> None:
    cluster = Cluster(num_nodes)

    def place() -> None:
        for number in range(count):
            cluster.machine.request_actor(grants.ActorRequest(f"actor-{number}", "owner-0", "job", ACTOR))
            cluster.flush_controller()

    seconds = timed(place)
    assert len(cluster.machine.leases) == count
    print(f"{count:,} actors placed one by one on {num_nodes:,} nodes: {count / seconds:,.0f}/s", flush=True)


def run_groups(num_nodes: int, count: int, strategy: str) -> None:
    cluster = Cluster(num_nodes)
    bundles = (make_resources({"num_cpus": 1}),) * 4

    def create_and_remove() -> None:
        for number in range(count):
            cluster.machine.create_group(Group(f"group-{number}", "owner-0", "job", bundles, strategy))
            cluster.flush_controller()
        assert len(cluster.machine.groups) == count and all(group.ready for group in cluster.machine.groups.values())
        for number in range(count):
            cluster.machine.remove_group(f"group-{number}")
            cluster.flush_controller()

    seconds = timed(create_and_remove)
    print(
        f"{count:,} {strategy} groups of 4 bundles on {num_nodes:,} nodes, made and removed: {count / seconds:,.0f}/s"
    )


def resident() -> float:
    """Return this process's resident memory in bytes."""
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * resource.getpagesize()


def main() -> None:
    sizes = [
        (100, 10_000),
        (100, 100_000),
        (1_000, 100_000),
        (10_000, 100_000),
        (1_000, 1_000_000),
        (10_000, 1_000_000),
    ]
    if "--quick" in sys.argv:
        sizes = sizes[:3]
    print(
        f"{'nodes':>7} {'tasks':>10} {'decisions':>16} {'took':>11} {'simulated':>14} {'memory per task':>16}",
        flush=True,
    )
    for num_nodes, num_tasks in sizes:
        # In a process of its own, so that memory is measured from the same start.
        row = multiprocessing.get_context("fork").Process(target=run_tasks, args=(num_nodes, num_tasks))
        row.start()
        row.join()
        assert row.exitcode == 0
    print()
    run_actors(10_000, 10_000)
    for strategy in ("PACK", "STRICT_SPREAD"):
        run_groups(10_000, 1_000, strategy)


if __name__ == "__main__":
    main()
