"""The I/O shell of the task machine: what an owner does about its tasks, leases and executors."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any, NamedTuple

from shoal.machines import tasks
from shoal.model import messages as m
from shoal.model.cells import cell_name
from shoal.model.errors import ExecutorCrashedError, OutOfMemoryError, ShoalError, TaskCancelledError
from shoal.model.placement import ANYWHERE, Placement, SchedulingClass, class_from_wire
from shoal.runtime import payload as payloads
from shoal.runtime.store import segment_nbytes
from shoal.runtime.work import Work
from shoal.transport.stream import Stream

if TYPE_CHECKING:
    from shoal.runtime.owner import Owner

#: Seconds between two looks at idle leases and stalled work, while there are leases.
TICK = 0.05
#: Seconds after an executor's stream has ended within which the controller should have said why.
LOST_GRACE = 3.0
#: Seconds after which a task that does not heed its time-out is ended together with its executor.
TIMEOUT_GRACE = 2.0
#: Bytes of arguments in another node's store that make it worth going there.
LOCALITY_NBYTES = 1 << 20


class Crash(NamedTuple):
    """How an executor ended; the fields are those of :class:`~shoal.model.messages.ExecutorDied`."""

    cause: str
    stderr: str = ""
    begun: str = "?"
    memory: tuple[int, ...] = ()


class TaskRunner:
    """See the module's description. Lives on the owner's event loop."""

    def __init__(self, owner: Owner) -> None:
        self._owner = owner
        self._peers = owner.peers
        self._results = owner.results
        self._machine = tasks.TaskMachine()
        #: Leases granted whose executors are being connected to, and the word that they are wanted back.
        self._grants: dict[str, m.Reclaim | None] = {}
        self._flush_due = False
        self._tick_due = False

    # -- from this process ---------------------------------------------------------------------------------------

    def submit(self, work: Work) -> None:
        """Run *work* as soon as what it depends on is there."""
        self._results.expect(work)
        if self._owner.dead_on_arrival(work):
            return
        target = work.target
        if target.timeout is not None:
            self._owner.loop.call_later(target.timeout, self._owner.timed_out, work)
        if work.dependencies:
            self._owner.when_ready(work, lambda: self._queue(work))
        else:
            self._queue(work)

    def cancel(self, task_id: str, *, force: bool = False, recursive: bool = True) -> None:
        self._machine.cancel(task_id, force=force, recursive=recursive)
        self._schedule_flush()

    def finished(self, message: m.Done) -> Work | None:
        """An executor has answered; returns the work if it has thereby ended."""
        task = self._machine.finished(message.task_id, message.seconds, time.monotonic())
        self._schedule_flush()
        if task is None:
            return None
        work: Work = task.spec
        work.attempt = task.attempt
        if task.retries_left and not task.cancelled and self._owner.is_retried(work, message.payload):
            self._machine.again(task)
            return None
        return work

    def dependency_lost(self, message: m.Done) -> None:
        """An executor could not begin: run the task again, at no cost, when what it depends on has been made again."""
        task = self._machine.finished(message.task_id, 0.0, time.monotonic())
        self._schedule_flush()
        if task is None:
            return
        work: Work = task.spec
        if task.cancelled:
            self._results.complete(work, payloads.from_error(cancelled(work)), failed=True)
            return
        self._results.unsent(work)
        self._owner.recovery.dependency_lost(work, message.payload)

        def again() -> None:
            task.attempt += 1
            work.attempt = task.attempt
            self._machine.submit(task)
            self._schedule_flush()

        self._owner.when_ready(work, again)

    def is_current(self, task_id: str, attempt: int) -> bool:
        """Whether a task is at this attempt: whoever answers an earlier one counts as lost."""
        task = self._machine.tasks.get(task_id)
        return task is not None and task.attempt == attempt

    def lease_of(self, task_id: str) -> tasks.Lease | None:
        """Return the lease that a task was sent to."""
        task = self._machine.tasks.get(task_id)
        return task.lease if task is not None else None

    def address_of(self, task_id: str) -> str:
        """Return where a task was sent; "" if it was not."""
        lease = self.lease_of(task_id)
        return lease.address if lease is not None else ""

    def spec_of(self, task_id: str) -> Work | None:
        task = self._machine.tasks.get(task_id)
        return task.spec if task is not None else None

    def works(self) -> list[Work]:
        """Return every task that has not ended."""
        return [task.spec for task in self._machine.tasks.values()]

    def flush_if_due(self) -> None:
        if self._flush_due:
            self._flush()

    # -- from executors and the controller -----------------------------------------------------------------------

    def returned(self, message: m.Returned) -> None:
        """An executor has sent back what it has not begun."""
        for task_id in message.task_ids:
            task = self._machine.tasks.get(task_id)
            if task is not None:
                self._results.unsent(task.spec)
        self._machine.returned(message.lease_id, message.task_ids, message.waiting, time.monotonic())
        self._schedule_flush()

    def resumed(self, lease_id: str) -> None:
        self._machine.resumed(lease_id, time.monotonic())
        self._schedule_flush()

    def granted(self, message: m.LeaseGranted) -> None:
        # Known from now on: the word that it is wanted back, or lost, may be the next in the same batch.
        lease = tasks.Lease(message.lease_id, class_from_wire(message.kind), message.address)
        self._grants[lease.lease_id] = None
        self._owner.start_soon(self._reach(lease))

    async def _reach(self, lease: tasks.Lease) -> None:
        await self._peers.reach(lease.address)
        if lease.lease_id not in self._grants:  # lost before we were there
            return
        reclaim = self._grants.pop(lease.lease_id)
        if self._peers.stream(lease.address) is not None:
            self._machine.granted(lease, time.monotonic())
            if reclaim is not None:
                self._machine.reclaim(lease.lease_id, reclaim.idle_only, time.monotonic())
        else:
            self._machine.unreachable(lease)
        self._schedule_flush()

    def reclaim(self, message: m.Reclaim) -> None:
        if message.lease_id in self._grants:
            self._grants[message.lease_id] = message
        self._machine.reclaim(message.lease_id, message.idle_only, time.monotonic())
        self._schedule_flush()

    def lease_lost(self, message: m.LeaseLost) -> None:
        self._grants.pop(message.lease_id, None)
        lease = self._machine.leases.get(message.lease_id)
        if lease is None:
            return

        def lost() -> None:
            self._machine.lost(message.lease_id, message.begun, Crash(*message[1:]))
            self._schedule_flush()

        self._owner.after_stream(lease.address, lost)

    def infeasible(self, kind: SchedulingClass, error: ShoalError) -> None:
        self._machine.infeasible(kind, error)
        self._schedule_flush()

    def peer_lost(self, address: str) -> None:
        """A stream has ended. The controller knows why and says so; if it does not, the end of the stream has to do."""
        for lease in [lease for lease in self._machine.leases.values() if lease.address == address]:
            self._suspect(lease)

    # -- what follows --------------------------------------------------------------------------------------------

    def _queue(self, work: Work) -> None:
        target = work.target
        assert target.kind is not None and target.exported is not None
        if target.kind.placement.group_id in self._owner.removed_groups:
            self._results.complete(work, payloads.from_error(self._owner.group_is_gone(target.kind)), failed=True)
            return
        kind = self._near_its_arguments(target.kind, work)
        self._machine.submit(
            tasks.Task(work.task_id, target.exported.function_id, kind, target.retries, work, work.attempt)
        )
        self._schedule_flush()

    def _near_its_arguments(self, kind: SchedulingClass, work: Work) -> SchedulingClass:
        """Prefer the node that holds most of a task's arguments, if that is much and there is a choice."""
        if kind.placement != ANYWHERE or len(self._owner.stores) < 2 or not (work.dependencies or len(work.args) == 4):
            return kind
        nbytes: dict[str, int] = {}
        for payload in (work.args, *self._owner.dependency_payloads(work)):
            if payload[0] == payloads.SEGMENT:
                nbytes[payload[1]] = nbytes.get(payload[1], 0) + segment_nbytes(payload[3])
        if not nbytes:
            return kind
        holder = max(nbytes, key=lambda node: nbytes[node])
        if nbytes[holder] < LOCALITY_NBYTES:
            return kind
        return kind._replace(placement=Placement(node=holder, soft=True))

    def _schedule_flush(self) -> None:
        """Have the task machine's actions carried out after the present burst of events."""
        if not self._flush_due:
            self._flush_due = True
            self._owner.loop.call_soon(self.flush_if_due)

    def _flush(self) -> None:
        self._flush_due = False
        tell = self._owner.controller.tell
        for action in self._machine.flush(time.monotonic()):
            match action:
                case tasks.Send(lease, batch):
                    self._send(lease, batch)
                case tasks.SetDemand(kind, wanted):
                    tell(m.Demand(kind, wanted))
                case tasks.SendRecall(lease):
                    self._peers.send(lease.address, m.Recall(lease.lease_id))
                case tasks.SendCancel(lease, task, force, recursive):
                    self._peers.send(lease.address, m.CancelTask(task.task_id, force, recursive))
                    if force:  # by the node too: code that holds the interpreter's lock lets no message in
                        tell(m.EndExecutor(lease.lease_id, task.task_id))
                case tasks.GiveBack(lease, broken):
                    tell(m.ReturnLease(lease.lease_id, broken))
                case tasks.Fail(task, reason, detail):
                    self._failed(task, reason, detail)
        if self._machine.needs_tick and not self._tick_due:
            self._tick_due = True
            self._owner.loop.call_later(TICK, self._tick)

    def _tick(self) -> None:
        self._tick_due = False
        if not self._owner.closing:
            self._machine.tick(time.monotonic())
            self._flush()

    def _send(self, lease: tasks.Lease, batch: list[tasks.Task]) -> None:
        stream = self._peers.stream(lease.address)
        if stream is None:  # the news of its end is on the way, and covers what was sent
            self._suspect(lease)
            return
        for task in batch:
            work: Work = task.spec
            define(stream, work)
            payloads_of = self._owner.dependency_payloads(work) if work.dependencies else ()
            stream.send_nowait(work.message(lease.lease_id, payloads_of, task.attempt))
            if work.yields is not None and work.yields.taken:
                stream.send_nowait(m.Consumed(work.task_id, work.yields.taken))
            self._results.sent(work)
            if task.attempt != work.attempt:
                self._results.sent_again(work, task.attempt)

    def _suspect(self, lease: tasks.Lease) -> None:
        self._owner.loop.call_later(LOST_GRACE, self._surely_lost, lease)

    def _surely_lost(self, lease: tasks.Lease) -> None:
        if self._machine.leases.get(lease.lease_id) is lease:
            self._machine.cut_off(lease.lease_id, Crash("the connection to it was lost"))
            self._flush()

    def _failed(self, task: tasks.Task, reason: str, detail: Any) -> None:
        work: Work = task.spec
        error: ShoalError
        if reason == "crashed":
            error = crashed(work, task.attempt, detail)
        elif reason == "cancelled":
            error = cancelled(work)
        else:
            error = detail
        self._results.complete(work, payloads.from_error(error), failed=True)


def define(stream: Stream, work: Work) -> None:
    """Send what the run of *work* refers to, unless the peer has it."""
    recipe = work.recipe
    if recipe.recipe_id in stream.defined:
        return
    stream.defined.add(recipe.recipe_id)
    for message in definitions(work):
        if not isinstance(message, m.Define):
            stream.send_nowait(message)
        elif message.function_id not in stream.defined:
            stream.defined.add(message.function_id)
            stream.send_nowait(message)


def definitions(work: Work) -> list[m.Message]:
    """Return the messages that the run of *work* refers to."""
    exported = work.target.exported
    if exported is None:
        return [work.recipe]
    return [m.Define(exported.function_id, exported.pickled, bool(exported.contained)), work.recipe]


def crashed(work: Work, attempt: int, crash: Crash) -> ExecutorCrashedError:
    """Return the error of a task that has no retries left."""
    name, cell = work.target.name, work.recipe.cell
    last = f"(attempt {attempt + 1}, no retries left)." + (f"\nIts last words:\n{crash.stderr}" if crash.stderr else "")
    if not crash.memory or crash.begun not in (work.task_id, "?"):
        # The second: another task of that executor is to blame, but this one's answer was lost with it.
        return ExecutorCrashedError(
            f"The executor running `{name}` died: {crash.cause} {last}", cause=crash.cause, stderr=crash.stderr
        )
    used, node_used, limit = crash.memory
    where = f" in {cell_name(cell)}" if cell is not None and cell_name(cell) != name else ""
    advice = (
        "Smaller batches help, or fewer tasks at once: with `memory=` (the bytes that one needs) only as many run on a "
        "node as fit."
    )
    return OutOfMemoryError(
        f"`{name}`{where} was ended: {crash.cause}. {advice} {last}",
        cause=crash.cause,
        stderr=crash.stderr,
        task_id=work.task_id,
        cell=cell,
        used=used,
        node_used=node_used,
        limit=limit,
    )


def cancelled(work: Work) -> TaskCancelledError:
    return TaskCancelledError(f"`{work.target.name}` was cancelled.", task_id=work.task_id)
