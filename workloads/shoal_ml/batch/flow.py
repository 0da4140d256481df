"""The flow machine: which work of a plan may begin when, on whom, and what comes out in which order.

Sans-IO: events in, actions out; no clock, no threads, no shoal. :mod:`~shoal_ml.batch.execution` is the shell.

A plan is a row of *stages*. Pieces are pulled from the source, each stage makes blocks of blocks, and what leaves the
last one is emitted. The rules:

- **Later stages first.** What is nearest to the end begins first, so that blocks leave before new ones are made.
- **A budget of bytes** bounds what is held: queued, worked on, made and not taken by the consumer, and what running
  work will probably come to. Stage *k* of *n* may fill ``(k + 1) / n`` of it: however much a fast reader could
  make, those after it have room to work.
- **Always forward.** Where nothing is held or done behind a stage, one piece of its work may begin whatever the budget
  says: a block larger than the budget is slow, not stuck.
- **Order.** Each stage numbers its work and lets results go on by number; without *ordered*, as they come.
- **Exactly once.** Work that was lost with its process is done again, by its number and without the results that were
  taken already; what comes from an attempt that was given up is not looked at.
"""

from __future__ import annotations

import dataclasses
from collections import deque
from collections.abc import Sequence

from shoal_ml.batch.handles import UNKNOWN, Handle

#: How often work is done again after its process was lost.
MAX_RETRIES = 3
#: Replicas in a row that may end before they are ready.
MAX_FAILED_STARTS = 3
#: Blocks that may wait for the consumer, at least; the budget bounds their bytes.
MIN_WAITING = 16
#: Work that is queued for each that a stage does at once.
QUEUED_PER_SLOT = 2
#: Seconds after which a replica that has nothing to do may go.
IDLE_SECONDS = 5.0
#: What a piece that says nothing of its size is taken for, in bytes.
ASSUMED_NBYTES = 16 << 20


@dataclasses.dataclass(frozen=True, slots=True)
class StageSpec:
    """What the machine has to know of a stage.

    Attributes
    ----------
    slots
        Tasks at once; for a pool, calls that one replica holds: the one it works on, and one that waits.
    replicas
        Smallest and largest number of replicas; None for a stage of tasks.
    min_rows
        Rows to gather from several blocks for one piece of work.
    limit
        For a stage that does no work: rows that it lets through.
    """

    name: str
    slots: int = 2
    replicas: tuple[int, int] | None = None
    min_rows: int = 0
    limit: int | None = None


@dataclasses.dataclass(slots=True, eq=False)
class Work:
    """One piece of work: some blocks in, any number out."""

    work_id: int
    stage: int
    #: Its place in the order of its stage's results.
    number: int
    inputs: tuple[Handle, ...]
    replica: int | None = None
    #: How often it was lost with its process.
    attempt: int = 0
    #: Results that have arrived.
    received: int = 0
    reserved: int = 0


# -- actions -----------------------------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True, slots=True)
class Pull:
    """Ask the source for its next piece."""


@dataclasses.dataclass(frozen=True, slots=True)
class Begin:
    """Start a piece of work; on its replica, if it names one."""

    work: Work


@dataclasses.dataclass(frozen=True, slots=True)
class Abandon:
    """Cancel a piece of work: nobody wants its results."""

    work: Work


@dataclasses.dataclass(frozen=True, slots=True)
class StartReplica:
    stage: int
    replica: int


@dataclasses.dataclass(frozen=True, slots=True)
class StopReplica:
    stage: int
    replica: int


@dataclasses.dataclass(frozen=True, slots=True)
class Emit:
    """Hand a block to the consumer, who says :meth:`Flow.taken` for it."""

    handle: Handle


@dataclasses.dataclass(frozen=True, slots=True)
class GiveUp:
    """The plan has failed; whoever reported the last failure knows why."""


@dataclasses.dataclass(frozen=True, slots=True)
class Finish:
    """Everything was emitted."""


Action = Pull | Begin | Abandon | StartReplica | StopReplica | Emit | GiveUp | Finish


@dataclasses.dataclass(slots=True)
class Replica:
    """One replica of a pool, as the machine sees it."""

    ready: bool = False
    working: int = 0
    idle_since: float = 0.0


class Stage:
    """State of one stage. Read by who shows progress; changed by :class:`Flow` alone."""

    def __init__(self, spec: StageSpec) -> None:
        self.spec = spec
        self.queue: deque[Handle] = deque()
        #: Work that was lost and is to be done again, before all else.
        self.again: deque[Work] = deque()
        self.running: dict[int, Work] = {}
        self.replicas: dict[int, Replica] = {}
        self.failed_starts = 0
        self.retries = 0
        #: Results that wait for their turn, and the numbers whose work has ended.
        self.waiting: dict[int, list[Handle]] = {}
        self.ended: set[int] = set()
        self.next_number = self.next_out = 0
        #: Nothing will be added to the queue any more.
        self.closed = False
        #: All has been let go.
        self.over = False
        self.rows_in = self.rows_out = self.nbytes_out = self.num_done = self.num_out = 0

    @property
    def is_pool(self) -> bool:
        return self.spec.replicas is not None

    @property
    def capacity(self) -> int:
        """Pieces of work that it can hold at once, with all replicas that it may have."""
        return self.spec.slots * (self.spec.replicas[1] if self.spec.replicas else 1)

    @property
    def num_waiting(self) -> int:
        """Results that wait for their turn."""
        return sum(map(len, self.waiting.values()))

    def expected_nbytes(self, inputs: Sequence[Handle]) -> int:
        """Return what a piece of work will probably come to."""
        if self.num_done:
            return self.nbytes_out // self.num_done
        return sum(handle.nbytes or ASSUMED_NBYTES for handle in inputs)


class Flow:
    """See the module's description. Each method takes one event and returns the actions that follow."""

    def __init__(self, specs: Sequence[StageSpec], *, budget: int, ordered: bool = True) -> None:
        self.stages = [Stage(spec) for spec in specs]
        self.budget = budget
        self.ordered = ordered
        self.held = 0
        self.most_held = 0
        self.reserved = 0
        self.num_emitted = 0
        #: Emitted and not taken.
        self.num_waiting = 0
        self.pulling = False
        self.exhausted = False
        self.finished = self.failed = False
        self._next_id = 0
        self._now = 0.0
        self._actions: list[Action] = []

    # -- events ------------------------------------------------------------------------------------------------

    def begin(self) -> list[Action]:
        """Start."""
        for index, stage in enumerate(self.stages):
            for _ in range(stage.spec.replicas[0] if stage.spec.replicas else 0):
                self._start_replica(index)
        return self._go_on()

    def pulled(self, handle: Handle) -> list[Action]:
        """The source has given its next piece."""
        self.pulling = False
        self._hold(handle)
        self._offer(0, handle)
        return self._go_on()

    def source_ended(self) -> list[Action]:
        """The source has no more."""
        self.pulling = False
        self.exhausted = True
        return self._go_on()

    def result(self, work: Work, index: int, handle: Handle) -> list[Action]:
        """Result number *index* of a piece of work is here; one that was there before is not looked at."""
        if self._is_current(work) and index == work.received:
            work.received += 1
            self._result(work, handle)
        return self._go_on()

    def ended(self, work: Work) -> list[Action]:
        """A piece of work has given all its results."""
        stage = self.stages[work.stage]
        if self._is_current(work):
            self._leave(work)
            stage.failed_starts = 0
            stage.num_done += 1
            for handle in work.inputs:
                self._let_go(handle)
            stage.ended.add(work.number)
            self._release(work.stage)
        return self._go_on()

    def lost(self, work: Work) -> list[Action]:
        """A piece of work has ended with its process; it is done again, unless that happened too often."""
        stage = self.stages[work.stage]
        if self._is_current(work):
            self._leave(work)
            if work.attempt >= MAX_RETRIES:
                return self._give_up()
            stage.retries += 1
            stage.again.append(
                dataclasses.replace(work, work_id=self._new_id(), attempt=work.attempt + 1, replica=None)
            )
        return self._go_on()

    def replica_ready(self, stage: int, replica: int) -> list[Action]:
        """A replica can take work."""
        found = self.stages[stage].replicas.get(replica)
        if found is not None:
            found.ready, found.idle_since = True, self._now
        return self._go_on()

    def replica_lost(self, index: int, replica: int) -> list[Action]:
        """A replica has ended by itself; what it worked on is reported by :meth:`lost`. Another takes its place."""
        stage = self.stages[index]
        found = stage.replicas.pop(replica, None)
        if found is not None:
            assert stage.spec.replicas is not None
            stage.failed_starts += not found.ready
            if stage.failed_starts >= MAX_FAILED_STARTS:
                return self._give_up()
            if len(stage.replicas) < stage.spec.replicas[0]:
                self._start_replica(index)
        return self._go_on()

    def taken(self, handle: Handle) -> list[Action]:
        """The consumer has taken a block that was emitted."""
        self.num_waiting -= 1
        self._let_go(handle)
        return self._go_on()

    def tick(self, now: float) -> list[Action]:
        """*now* seconds have passed since the start; replicas that have been idle for long may go."""
        self._now = now
        for index, stage in enumerate(self.stages):
            fewest = stage.spec.replicas[0] if stage.spec.replicas else 0
            for name, replica in list(stage.replicas.items()):
                idle = replica.ready and not replica.working and now - replica.idle_since >= IDLE_SECONDS
                if idle and len(stage.replicas) > fewest and not stage.queue:
                    self._stop_replica(index, name)
        return self._go_on()

    # -- what follows ------------------------------------------------------------------------------------------

    def _go_on(self) -> list[Action]:
        """Begin what may begin, from the last stage to the first, and pull."""
        if not self.finished and not self.failed:
            self._close_stages()
            for index in range(len(self.stages) - 1, -1, -1):
                while self._begin_one(index):
                    pass
            self._pull()
            if not self._is_moving():
                self._force()
        actions, self._actions = self._actions, []
        return actions

    def _begin_one(self, index: int, *, partial: bool = False) -> bool:
        stage = self.stages[index]
        if stage.spec.limit is not None or not (stage.queue or stage.again):
            return False
        replica = self._choose_replica(index) if stage.is_pool else None
        if (stage.is_pool and replica is None) or (not stage.is_pool and len(stage.running) >= stage.spec.slots):
            return False
        work = stage.again[0] if stage.again else self._gather(index, partial)
        if work is None or not (work.attempt or self._has_room(index, work)):
            return False
        if work.attempt:
            stage.again.popleft()
        else:
            for _ in work.inputs:
                stage.queue.popleft()
            stage.next_number += 1
        work.replica = replica
        work.reserved = stage.expected_nbytes(work.inputs)
        self.reserved += work.reserved
        stage.running[work.work_id] = work
        if replica is not None:
            stage.replicas[replica].working += 1
        self._actions.append(Begin(work))
        return True

    def _gather(self, index: int, partial: bool) -> Work | None:
        """Return the next piece of work of a stage; None while it has too few rows and more may come."""
        stage = self.stages[index]
        inputs, rows = [], 0
        for handle in stage.queue:
            inputs.append(handle)
            rows += handle.num_rows
            if not handle.is_read or rows >= stage.spec.min_rows:
                break
        else:
            if not (stage.closed or partial):
                return None
        return Work(self._new_id(), index, stage.next_number, tuple(inputs))

    def _choose_replica(self, index: int) -> int | None:
        """Return the replica with least to do, or start another if all have enough and there is more."""
        stage = self.stages[index]
        free = [(r.working, name) for name, r in stage.replicas.items() if r.ready and r.working < stage.spec.slots]
        if free:
            return min(free)[1]
        assert stage.spec.replicas is not None
        if len(stage.replicas) < stage.spec.replicas[1] and all(r.ready for r in stage.replicas.values()):
            self._start_replica(index)
        return None

    def _has_room(self, index: int, work: Work) -> bool:
        stage = self.stages[index]
        if self._is_clear_behind(index):
            return True
        ahead = self.stages[index + 1 :]
        following = next((later for later in ahead if later.spec.limit is None), None)
        if following is not None:
            queued = len(following.queue) + len(stage.running) + stage.num_waiting
            if queued >= max(QUEUED_PER_SLOT * following.capacity, stage.capacity, following.spec.min_rows and 64):
                return False
        elif self.num_waiting + stage.num_waiting + len(stage.running) >= max(MIN_WAITING, 2 * stage.capacity):
            return False
        share = self.budget * (index + 1) // len(self.stages)
        return self.held + self.reserved + stage.expected_nbytes(work.inputs) <= share

    def _is_clear_behind(self, index: int) -> bool:
        """Whether nothing is worked on in a stage, or held or worked on in those after it."""
        later = self.stages[index:]
        return (
            not self.num_waiting
            and not any(stage.running or stage.waiting for stage in later)
            and not any(stage.queue or stage.again for stage in later[1:])
        )

    def _pull(self) -> None:
        if self.pulling or self.exhausted or not self.stages:
            return
        first = self.stages[0]
        wanted = max(QUEUED_PER_SLOT * min(first.capacity, 16), 2)
        room = self.held + self.reserved <= self.budget // (len(self.stages) + 1)
        if first.spec.limit is not None:
            wanted, room = 1, room and self.num_waiting < MIN_WAITING
        if len(first.queue) < wanted and (room or (not first.queue and self._is_clear_behind(0))):
            self.pulling = True
            self._actions.append(Pull())

    def _is_moving(self) -> bool:
        """Whether some event will come without our doing."""
        starting = any(not r.ready for stage in self.stages for r in stage.replicas.values())
        return self.pulling or starting or self.num_waiting > 0 or any(stage.running for stage in self.stages)

    def _force(self) -> None:
        """Nothing moves: too few rows have been gathered and the budget allows no more. Go on with what there is."""
        for index in range(len(self.stages) - 1, -1, -1):
            if self._begin_one(index, partial=True):
                return

    def _result(self, work: Work, handle: Handle) -> None:
        stage = self.stages[work.stage]
        self._hold(handle)
        used = min(work.reserved, handle.nbytes)
        work.reserved -= used
        self.reserved -= used
        stage.waiting.setdefault(work.number, []).append(handle)
        self._release(work.stage)

    def _release(self, index: int) -> None:
        """Let results go on whose turn it is."""
        stage = self.stages[index]
        if not self.ordered:
            for number in list(stage.waiting):
                self._pass_on(index, stage.waiting.pop(number))
            stage.ended.clear()
            return
        while True:
            self._pass_on(index, stage.waiting.pop(stage.next_out, []))
            if stage.next_out not in stage.ended:
                return
            stage.ended.remove(stage.next_out)
            stage.next_out += 1

    def _pass_on(self, index: int, handles: Sequence[Handle]) -> None:
        stage = self.stages[index]
        for handle in handles:
            stage.rows_out += handle.num_rows
            stage.nbytes_out += handle.nbytes
            stage.num_out += 1
            self._offer(index + 1, handle)

    def _offer(self, index: int, handle: Handle) -> None:
        """A block has arrived at a stage, or at the consumer."""
        if index == len(self.stages):
            self.num_emitted += 1
            self.num_waiting += 1
            self._actions.append(Emit(handle))
            return
        stage = self.stages[index]
        if stage.closed:
            self._let_go(handle)
            return
        stage.rows_in += max(0, handle.num_rows)
        if stage.spec.limit is None:
            stage.queue.append(handle)
            return
        left = stage.spec.limit - stage.rows_out
        self._pass_on(index, [handle.rows(0, left)])
        if stage.rows_out >= stage.spec.limit:
            self._cut(index)

    def _cut(self, index: int) -> None:
        """A limit is reached: nothing before it is wanted any more."""
        self.exhausted = True
        for stage in self.stages[: index + 1]:
            stage.closed = True
            for handle in stage.queue:
                self._let_go(handle)
            stage.queue.clear()
            stage.again.clear()
            for work in list(stage.running.values()):
                self._leave(work)
                for handle in work.inputs:
                    self._let_go(handle)
                self._actions.append(Abandon(work))
            for handles in stage.waiting.values():
                for handle in handles:
                    self._let_go(handle)
            stage.waiting.clear()

    def _close_stages(self) -> None:
        """Note the stages that have nothing left to come, and end their pools; finish after the last."""
        closed = self.exhausted and not self.pulling
        for index, stage in enumerate(self.stages):
            stage.closed = stage.closed or closed
            closed = stage.closed and not (stage.queue or stage.again or stage.running or stage.waiting)
            if closed and not stage.over:
                stage.over = True
                for name in list(stage.replicas):
                    self._stop_replica(index, name)
        if closed:
            self.finished = True
            self._actions.append(Finish())

    def _give_up(self) -> list[Action]:
        self.failed = True
        self._actions.append(GiveUp())
        return self._go_on()

    def _start_replica(self, index: int) -> None:
        name = self._new_id()
        self.stages[index].replicas[name] = Replica()
        self._actions.append(StartReplica(index, name))

    def _stop_replica(self, index: int, name: int) -> None:
        del self.stages[index].replicas[name]
        self._actions.append(StopReplica(index, name))

    def _is_current(self, work: Work) -> bool:
        return self.stages[work.stage].running.get(work.work_id) is work

    def _leave(self, work: Work) -> None:
        """Work has ended, one way or another."""
        stage = self.stages[work.stage]
        del stage.running[work.work_id]
        self.reserved -= work.reserved
        work.reserved = 0
        replica = stage.replicas.get(work.replica) if work.replica is not None else None
        if replica is not None:
            replica.working -= 1
            replica.idle_since = self._now

    def _hold(self, handle: Handle) -> None:
        self.held += handle.nbytes if handle.is_read else 0
        self.most_held = max(self.most_held, self.held)

    def _let_go(self, handle: Handle) -> None:
        self.held -= handle.nbytes if handle.is_read else 0

    def _new_id(self) -> int:
        self._next_id += 1
        return self._next_id


__all__ = [
    "UNKNOWN", "Abandon", "Action", "Begin", "Emit", "Finish", "Flow", "GiveUp", "Pull", "Stage", "StageSpec",
    "StartReplica", "StopReplica", "Work",
]  # fmt: skip
