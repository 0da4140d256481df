"""The owner's task machine: which task goes to which leased executor, and when.

Every process that submits tasks has one. Tasks wait in one queue per *scheduling class*. The
machine asks the controller for leases, spreads tasks over the leases it holds, and gives leases back.

**Depth.** A task's round trip costs a fraction of a millisecond, so short tasks are sent ahead: an executor may
have up to :data:`TARGET_BACKLOG` seconds of *expected* work, where what is expected is a running mean per function.
A function never seen before, or one slower than the target, is sent one at a time. Estimates can be wrong, so
queued work is *recalled* from an executor that has made no progress for a while, and whenever the running task
waits for others.

Events are methods, called with the current time in seconds where time matters; the actions they cause gather until
:meth:`TaskMachine.flush` hands them out. Everything is synchronous and deterministic.
"""

from __future__ import annotations

import dataclasses
from collections import deque
from typing import Any

from shoal.model.options import ENDLESS
from shoal.model.placement import SchedulingClass

#: Seconds of expected work sent ahead to one executor.
TARGET_BACKLOG = 0.02
#: Tasks sent ahead to one executor at most, whatever they are expected to take.
MAX_DEPTH = 1_000
#: Seconds without a result after which the work behind the running task is recalled.
STALL = 0.03
#: Seconds a lease is kept warm without work.
IDLE_KEEP = 1.0
#: Seconds for which a lease is kept, while there is work for it, although others wait for their turn. Handing one over
#: costs several round trips.
TURN = 0.1
#: Leases wanted for one class at most.
MAX_WANTED = 1_024


@dataclasses.dataclass(slots=True)
class Task:
    """One task as the machine sees it."""

    task_id: str
    function_id: str
    kind: SchedulingClass
    #: How often it may still be run again; -1 for no end.
    retries_left: int
    #: What the I/O shell needs to send it; the machine never looks inside.
    spec: Any
    attempt: int = 0
    cancelled: bool = False
    #: The lease it was sent to, None while it is queued.
    lease: Lease | None = None
    #: Seconds it was expected to take when it was sent.
    expected: float = 0.0


@dataclasses.dataclass(slots=True)
class Lease:
    """An executor that the controller has granted to this owner."""

    lease_id: str
    kind: SchedulingClass
    #: Where the executor is; only the I/O shell uses it.
    address: str
    #: Sent and not answered, in the order sent: the first one is running.
    sent: dict[str, Task] = dataclasses.field(default_factory=dict)
    #: Sum of the expected seconds of everything in ``sent``.
    expected: float = 0.0
    #: When the last result came, or the first task was sent, or it became idle.
    progress: float = 0.0
    #: The running task waits for other work: send nothing.
    waiting: bool = False
    #: The controller wants it back as soon as it drains: send nothing more.
    draining: bool = False
    #: When it was granted.
    since: float = 0.0
    #: The controller wants it back as soon as its turn is over.
    turn_ends: bool = False
    #: The controller wants it back as soon as it idles.
    wanted_back: bool = False
    #: A recall is under way.
    recalled: bool = False
    #: Its running task takes longer than expected: send nothing behind it until it ends.
    stalled: bool = False
    #: What the machine has of its class; from the grant on.
    lane: Lane = dataclasses.field(init=False, repr=False, compare=False)


@dataclasses.dataclass(frozen=True, slots=True)
class SetDemand:
    kind: SchedulingClass
    wanted: int


@dataclasses.dataclass(frozen=True, slots=True)
class Send:
    lease: Lease
    tasks: list[Task]


@dataclasses.dataclass(frozen=True, slots=True)
class SendRecall:
    lease: Lease


@dataclasses.dataclass(frozen=True, slots=True)
class SendCancel:
    lease: Lease
    task: Task
    #: End the executor if the task runs.
    force: bool
    #: Stop what the task has submitted as well.
    recursive: bool


@dataclasses.dataclass(frozen=True, slots=True)
class GiveBack:
    lease: Lease
    #: The executor does not answer: it may still be at work, and must not get any other.
    broken: bool = False


@dataclasses.dataclass(frozen=True, slots=True)
class Fail:
    """The task ends without a result: ``reason`` is ``crashed``, ``cancelled`` or ``infeasible``."""

    task: Task
    reason: str
    detail: Any = None


Action = SetDemand | Send | SendRecall | SendCancel | GiveBack | Fail


@dataclasses.dataclass(slots=True, eq=False)
class Lane:
    """All tasks and leases of one scheduling class."""

    kind: SchedulingClass
    queue: deque[Task] = dataclasses.field(default_factory=deque)
    leases: dict[str, Lease] = dataclasses.field(default_factory=dict)
    #: Those that may have room: all others were full, or closed, when they were last looked at.
    roomy: dict[str, Lease] = dataclasses.field(default_factory=dict)
    #: Those that are to be given back when they have nothing left.
    leaving: dict[str, Lease] = dataclasses.field(default_factory=dict)
    #: The number of leases the controller was last told we want.
    told: int = 0


class TaskMachine:
    """See the module's description. One per owner; not thread-safe."""

    def __init__(self) -> None:
        #: Every task that has not ended: queued, sent, or on its way back.
        self.tasks: dict[str, Task] = {}
        self.leases: dict[str, Lease] = {}
        self._lanes: dict[SchedulingClass, Lane] = {}
        #: Running mean of seconds per function id; missing until the first result.
        self._seconds: dict[str, float] = {}
        self._actions: list[Action] = []
        #: Lanes to look at with the next flush.
        self._dirty: dict[Lane, None] = {}

    # -- events --------------------------------------------------------------------------------------------------

    def submit(self, task: Task) -> None:
        """A task whose dependencies are ready."""
        self.tasks[task.task_id] = task
        lane = self._lane_of(task.kind)
        lane.queue.append(task)
        self._dirty[lane] = None

    def granted(self, lease: Lease, now: float) -> None:
        """The controller has granted a lease."""
        lease.progress = lease.since = now
        self.leases[lease.lease_id] = lease
        lease.lane = self._lane_of(lease.kind)
        lease.lane.leases[lease.lease_id] = lease
        self._look_at(lease)

    def unreachable(self, lease: Lease) -> None:
        """The executor of a lease that the controller believes to be ours does not answer us."""
        lane = self._lane_of(lease.kind)
        lane.told -= 1
        self._actions.append(GiveBack(lease, broken=True))
        self._dirty[lane] = None

    def finished(self, task_id: str, seconds: float, now: float) -> Task | None:
        """An executor has answered; returns the task, or None for a late answer to a task that has ended."""
        task = self.tasks.get(task_id)
        if task is None or task.lease is None:
            return None
        known = self._seconds.get(task.function_id)
        self._seconds[task.function_id] = seconds if known is None else known + 0.2 * (seconds - known)
        task.lease.stalled = False
        self._unsend(task, now)
        del self.tasks[task_id]
        return task

    def returned(self, lease_id: str, task_ids: tuple[str, ...], waiting: bool, now: float) -> None:
        """An executor has sent back tasks that it did not begin."""
        lease = self.leases.get(lease_id)
        if lease is None:
            return
        lease.recalled = False
        lease.waiting = lease.waiting or waiting
        self._look_at(lease)
        queue = lease.lane.queue
        for task_id in reversed(task_ids):
            task = self.tasks.get(task_id)
            if task is None or task.lease is not lease:
                continue
            self._unsend(task, now)
            if task.cancelled:
                self._end(task, "cancelled")
            else:
                queue.appendleft(task)
        if waiting and len(lease.sent) > 1:
            # These crossed its word: they lie behind the waiting task, which may wait for one of them.
            lease.recalled = True
            self._actions.append(SendRecall(lease))

    def resumed(self, lease_id: str, now: float) -> None:
        """The task that waited on this lease goes on."""
        lease = self.leases.get(lease_id)
        if lease is not None:
            lease.waiting = False
            lease.progress = now
            self._look_at(lease)

    def reclaim(self, lease_id: str, idle_only: bool, now: float) -> None:
        """The controller wants a lease back: when it next idles, or when its turn is over."""
        lease = self.leases.get(lease_id)
        if lease is not None:
            self._leaves(lease)
            lease.turn_ends = lease.turn_ends or not idle_only
            self._end_turn(lease, now)

    def lost(self, lease_id: str, begun: str, detail: Any) -> None:
        """The executor behind a lease is gone; *begun* is the task it began last ("" none, "?" unknown).

        Tasks that may have begun have used up an attempt, those whose answer was lost with it included. The rest has
        not: it is simply queued again.
        """
        lease = self.leases.pop(lease_id, None)
        if lease is None:
            return
        lane = lease.lane
        self._forget(lane, lease)
        may_have_begun = begun == "?"
        for task_id, task in reversed(list(lease.sent.items())):
            may_have_begun = may_have_begun or task_id == begun
            task.lease = None
            if task.cancelled:
                self._end(task, "cancelled")
            elif not may_have_begun:
                lane.queue.appendleft(task)
            elif task.retries_left:
                self._use_retry(task)
                lane.queue.appendleft(task)
            else:
                self._end(task, "crashed", detail)
        lease.sent.clear()
        self._dirty[lane] = None

    def cut_off(self, lease_id: str, detail: Any) -> None:
        """The connection to an executor is lost and nobody says that it is gone: do without it."""
        lease = self.leases.get(lease_id)
        if lease is not None:
            self.lost(lease_id, "?", detail)
            lease.lane.told -= 1
            self._actions.append(GiveBack(lease, broken=True))

    def infeasible(self, kind: SchedulingClass, detail: Any) -> None:
        """No node could ever run tasks of this class: those that wait fail now."""
        lane = self._lane_of(kind)
        lane.told = 0
        while lane.queue:
            self._end(lane.queue.popleft(), "infeasible", detail)

    def again(self, task: Task) -> None:
        """A task that has just finished has failed in a way that it may be run again after."""
        self._use_retry(task)
        self.submit(task)

    def cancel(self, task_id: str, *, force: bool = False, recursive: bool = True) -> None:
        """Stop a task wherever it is; a task that has ended is left alone. Repeats are harmless."""
        task = self.tasks.get(task_id)
        if task is None or (task.cancelled and not force):
            return
        task.cancelled = True
        if task.lease is not None:
            self._actions.append(SendCancel(task.lease, task, force, recursive))
        # A queued one is dropped when the queue reaches it, but its owner is told at once.
        else:
            self._end(task, "cancelled")
            self._dirty[self._lane_of(task.kind)] = None

    def tick(self, now: float) -> None:
        """Time has passed: recall stalled work, give idle leases back."""
        for lane in self._lanes.values():
            for lease in lane.leases.values():
                if not lease.sent:
                    if now - lease.progress > IDLE_KEEP:
                        self._leaves(lease)
                elif lease.turn_ends and not lease.draining and now - lease.since >= TURN:
                    self._end_turn(lease, now)
                elif len(lease.sent) > 1 and now - lease.progress > STALL and not lease.recalled:
                    # What was thought to be short is not. The rest goes elsewhere, or waits here for a better place.
                    lease.recalled = lease.stalled = True
                    self._actions.append(SendRecall(lease))

    # -- what follows from them ----------------------------------------------------------------------------------

    def flush(self, now: float) -> list[Action]:
        """Place what can be placed and return every action gathered since the last call."""
        for lane in self._dirty:
            self._place(lane, now)
            self._give_back(lane)
            self._set_demand(lane)
        self._dirty.clear()
        actions, self._actions = self._actions, []
        return actions

    @property
    def needs_tick(self) -> bool:
        return bool(self.leases)

    @property
    def num_queued(self) -> int:
        return sum(len(lane.queue) for lane in self._lanes.values())

    def _lane_of(self, kind: SchedulingClass) -> Lane:
        lane = self._lanes.get(kind)
        if lane is None:
            lane = self._lanes[kind] = Lane(kind)
        return lane

    def _place(self, lane: Lane, now: float) -> None:
        queue = lane.queue
        while queue and queue[0].cancelled:
            queue.popleft()
        if not queue:
            return
        open_leases = [
            lease
            for lease in lane.roomy.values()
            if not (lease.waiting or lease.draining or lease.recalled or lease.stalled)
        ]
        open_leases.sort(key=lambda lease: len(lease.sent))
        lane.roomy.clear()
        for position, lease in enumerate(open_leases):
            batch: list[Task] = []
            # An even share of what waits, so that a handful of short tasks still runs in parallel.
            share = -(-len(queue) // (len(open_leases) - position))
            while queue and len(lease.sent) < MAX_DEPTH and len(batch) < share:
                task = queue[0]
                if task.cancelled:
                    queue.popleft()
                    continue
                seconds = self._seconds.get(task.function_id, TARGET_BACKLOG)
                if lease.sent and lease.expected + seconds > TARGET_BACKLOG:
                    break
                queue.popleft()
                if not lease.sent:
                    lease.progress = now
                task.lease = lease
                lease.sent[task.task_id] = task
                task.expected = seconds
                lease.expected += seconds
                batch.append(task)
            if batch:
                self._actions.append(Send(lease, batch))
            if not queue:
                # Whatever room is left is still there when the next task comes.
                lane.roomy.update((lease.lease_id, lease) for lease in open_leases[position:])
                break

    def _give_back(self, lane: Lane) -> None:
        if not lane.leaving:
            return
        for lease in [lease for lease in lane.leaving.values() if not lease.sent]:
            if lane.queue and not lease.draining:
                continue
            self._forget(lane, lease)
            del self.leases[lease.lease_id]
            lane.told -= 1
            self._actions.append(GiveBack(lease))

    def _set_demand(self, lane: Lane) -> None:
        queued = len(lane.queue)
        if not queued and lane.told <= len(lane.leases):
            return
        wanted = len(lane.leases)
        if queued:
            # In powers of two, so that a growing queue is a handful of messages, not one for each task.
            wanted = min(len(lane.leases) + (1 << (queued - 1).bit_length()), MAX_WANTED)
        if wanted > lane.told or wanted < lane.told // 2 or not queued:
            lane.told = wanted
            self._actions.append(SetDemand(lane.kind, wanted))

    def _unsend(self, task: Task, now: float) -> None:
        lease = task.lease
        assert lease is not None
        task.lease = None
        del lease.sent[task.task_id]
        lease.progress = now
        lease.recalled = lease.recalled and bool(lease.sent)
        lease.stalled = lease.stalled and bool(lease.sent)
        if lease.sent:
            lease.expected = max(0.0, lease.expected - task.expected)
        else:
            lease.expected = 0.0
        self._look_at(lease)

    def _end_turn(self, lease: Lease, now: float) -> None:
        """Send nothing more to a lease that others wait for, unless its turn has only begun."""
        if lease.turn_ends and not lease.draining and now - lease.since >= TURN:
            lease.draining = True
            self._dirty[lease.lane] = None
            if len(lease.sent) > 1 and not lease.recalled:
                lease.recalled = True
                self._actions.append(SendRecall(lease))

    def _look_at(self, lease: Lease) -> None:
        """Something about a lease has changed: it may have room now."""
        lease.lane.roomy[lease.lease_id] = lease
        self._dirty[lease.lane] = None

    def _leaves(self, lease: Lease) -> None:
        """Give a lease back when it has nothing left."""
        lease.wanted_back = True
        lease.lane.leaving[lease.lease_id] = lease
        self._dirty[lease.lane] = None

    @staticmethod
    def _forget(lane: Lane, lease: Lease) -> None:
        for leases in (lane.leases, lane.roomy, lane.leaving):
            leases.pop(lease.lease_id, None)

    @staticmethod
    def _use_retry(task: Task) -> None:
        task.attempt += 1
        if task.retries_left != ENDLESS:
            task.retries_left -= 1

    def _end(self, task: Task, reason: str, detail: Any = None) -> None:
        if self.tasks.pop(task.task_id, None) is not None:
            self._actions.append(Fail(task, reason, detail))
