"""The I/O shell of an owner's actors: those it has created, and those it calls."""

from __future__ import annotations

import asyncio
import dataclasses
import threading
from typing import TYPE_CHECKING

from shoal.machines.calls import ActorCalls, Call
from shoal.model import messages as m
from shoal.model.errors import (
    ActorDiedError,
    ActorUnavailableError,
    InfeasibleError,
    PendingCallsLimitExceeded,
    ShoalError,
)
from shoal.model.options import ActorOptions
from shoal.runtime import payload as payloads
from shoal.runtime.task_runner import LOST_GRACE, cancelled, define, definitions
from shoal.runtime.work import Work

if TYPE_CHECKING:
    from shoal.runtime.owner import Owner


@dataclasses.dataclass(slots=True)
class _Created:
    """An actor that this process has created: what its ``__init__`` needs, kept for restarts."""

    work: Work
    options: ActorOptions


#: Seconds after the end of a stream in which the news of the actor's own end should come.
CUT_GRACE = 0.3


class ActorCaller:
    """See the module's description. Lives on the owner's event loop, except for :meth:`count_call`."""

    def __init__(self, owner: Owner) -> None:
        self._owner = owner
        self._peers = owner.peers
        self._results = owner.results
        self._actors: dict[str, ActorCalls] = {}
        self._created: dict[str, _Created] = {}
        #: Actors owned here, by the object whose life is theirs.
        self._lives: dict[str, str] = {}
        #: Actors owned here that nobody has a handle of; forgotten when they have ended.
        self._abandoned: set[str] = set()
        #: The actor that each call which has not ended is for.
        self._actor_of: dict[str, str] = {}
        #: Addresses of actors that are being connected to.
        self._coming: dict[str, str] = {}
        self._counting = threading.Lock()
        #: Calls under way to actors that limit them.
        self._under_way: dict[str, int] = {}

    # -- from this process ---------------------------------------------------------------------------------------

    def create(self, request: tuple[str, Work, ActorOptions]) -> None:
        """Have an actor started as soon as its arguments are there."""
        actor_id, work, options = request
        self._results.expect(work)
        self._actors[actor_id] = ActorCalls(actor_id)
        self._created[actor_id] = _Created(work, options)
        if options.lifetime != "detached":
            self._lives[work.object_id] = actor_id
        if self._owner.dead_on_arrival(work):
            return
        if work.dependencies:
            self._owner.when_ready(work, lambda: self._request(actor_id))
        else:
            self._request(actor_id)

    def call(self, request: tuple[str, Work]) -> None:
        """Have a method of an actor called."""
        actor_id, work = request
        self._results.expect(work)
        if work.target.max_pending_calls:
            self._results.on_end[work.task_id] = lambda work: self._uncount_call(actor_id)
        calls = self._actors.get(actor_id)
        if calls is None:
            calls = self._actors[actor_id] = ActorCalls(actor_id)
            self._owner.controller.tell(m.WatchActor(actor_id))
        if self._owner.dead_on_arrival(work):
            return
        if calls.dead:
            self._fail(calls, work)
            return
        if work.target.timeout is not None:
            self._owner.loop.call_later(work.target.timeout, self._owner.timed_out, work)
        self._actor_of[work.task_id] = actor_id
        self._queue(calls, Call(work.task_id, work, work.target.retries))

    def _queue(self, calls: ActorCalls, call: Call) -> None:
        """Send a call as soon as what it depends on is there and those before it have been sent."""
        calls.add(call)

        def go_on() -> None:
            call.ready = True
            self._send(calls, calls.sendable())

        if call.spec.dependencies:
            self._owner.when_ready(call.spec, go_on)
        else:
            go_on()

    def count_call(self, actor_id: str, name: str, limit: int) -> None:
        """Count a call that is about to be made; on any thread.

        Raises
        ------
        PendingCallsLimitExceeded
            There are *limit* of them already.
        """
        with self._counting:
            under_way = self._under_way.get(actor_id, 0)
            if under_way >= limit:
                raise PendingCallsLimitExceeded(
                    f"`{name}` was not called: {under_way} calls of the actor wait for answers, and its "
                    f"`max_pending_calls` is {limit}. Get some results first.",
                    limit=limit,
                )
            self._under_way[actor_id] = under_way + 1

    def give_up(self, work: Work) -> bool:
        """A call will never be sent: those behind it need not wait for it. Returns whether it is one of ours."""
        actor_id = self._actor_of.pop(work.task_id, None)
        if actor_id is None:
            return False
        calls = self._actors[actor_id]
        calls.cancel(work.task_id)
        self._send(calls, calls.sendable())
        return True

    def cancel(self, work: Work, *, recursive: bool) -> bool:
        """Stop a call; returns whether it is one of ours."""
        actor_id = self._actor_of.get(work.task_id)
        if actor_id is None:
            return False
        calls = self._actors[actor_id]
        if work.task_id in calls.queue:
            self.give_up(work)
            self._results.complete(work, payloads.from_error(cancelled(work)), failed=True)
        elif calls.address:
            self._peers.send(calls.address, m.CancelTask(work.task_id, False, recursive))
        return True

    def kill(self, actor_id: str, cause: str = "it was killed", *, restart: bool = False) -> None:
        calls = self._actors.get(actor_id)
        if calls is not None:
            calls.held = True
        self._owner.controller.tell(m.KillActor(actor_id, cause, restart))

    def freed(self, object_id: str) -> None:
        """An object of ours is gone; if it was an actor's life, its last handle is."""
        actor_id = self._lives.pop(object_id, None)
        if actor_id is None:
            return
        if self._actors[actor_id].dead:
            del self._actors[actor_id]
        else:
            self._abandoned.add(actor_id)
            self.kill(actor_id, "its last handle is gone")

    def id_of(self, work: Work) -> str:
        """Return the actor that is created by *work*; "" if it has been already."""
        return next((actor_id for actor_id, created in self._created.items() if created.work is work), "")

    def creation(self, actor_id: str) -> Work | None:
        """Return the work that creates an actor of ours, until it has ended."""
        created = self._created.get(actor_id)
        return created.work if created is not None and self._results.awaited(created.work) else None

    def kept_creations(self) -> list[Work]:
        """Return the work that has created actors of ours which may be restarted: it keeps its arguments."""
        return [created.work for created in self._created.values() if not self._results.awaited(created.work)]

    def keeps_arguments(self, object_id: str) -> bool:
        """Whether the arguments of the work that was to make an object are kept, for an actor's restart."""
        return any(created.work.object_id == object_id for created in self._created.values())

    def count_calls(self, actor_id: str) -> int:
        """Return how many calls of an actor made here have not ended; on any thread."""
        return list(self._actor_of.values()).count(actor_id)

    def actor_of(self, task_id: str) -> str:
        """Return the actor that a call is for."""
        return self._actor_of.get(task_id, "")

    def is_queued(self, task_id: str) -> bool:
        """Whether a call has not left this process."""
        return task_id in self._actors[self._actor_of[task_id]].queue

    def first_ahead(self, task_id: str) -> Work | None:
        """Return the first call that a queued one may not overtake, if there is one."""
        calls = self._actors[self._actor_of[task_id]]
        ahead = next(iter(calls.queue.values()))
        return ahead.spec if ahead.task_id != task_id else None

    def address_of(self, task_id: str) -> str:
        """Return where a call was sent; "" if it is not known."""
        actor_id = self._actor_of.get(task_id)
        return self._actors[actor_id].address if actor_id is not None else ""

    def spec_of(self, task_id: str) -> Work | None:
        actor_id = self._actor_of.get(task_id)
        call = self._actors[actor_id].sent.get(task_id) if actor_id is not None else None
        return call.spec if call is not None else None

    def works(self) -> list[Work]:
        """Return every call that has not been answered."""
        return [call.spec for calls in self._actors.values() for call in (*calls.sent.values(), *calls.queue.values())]

    # -- from executors and the controller -----------------------------------------------------------------------

    def is_call(self, task_id: str) -> bool:
        return task_id in self._actor_of

    def is_current(self, task_id: str, attempt: int) -> bool:
        """Whether a call that was sent is at this attempt: whoever answers an earlier one counts as lost."""
        actor_id = self._actor_of.get(task_id)
        call = self._actors[actor_id].sent.get(task_id) if actor_id is not None else None
        return call is not None and call.attempt == attempt

    def finished(self, message: m.Done) -> Work | None:
        """An actor has answered a call; returns the work if it has thereby ended."""
        calls = self._actors[self._actor_of[message.task_id]]
        call = calls.sent.get(message.task_id)
        if call is None:
            return None
        work: Work = call.spec
        if call.retries_left and self._owner.is_retried(work, message.payload):
            self._send(calls, calls.again(message.task_id))
            return None
        calls.finished(message.task_id)
        del self._actor_of[message.task_id]
        return work

    def dependency_lost(self, message: m.Done) -> None:
        """A call could not begin: it is made when what it depends on has been made again, behind those under way."""
        calls = self._actors[self._actor_of[message.task_id]]
        call = calls.sent.get(message.task_id)
        if call is None:
            return
        calls.finished(message.task_id)
        self._results.unsent(call.spec)
        self._owner.recovery.dependency_lost(call.spec, message.payload)
        call.spec.attempt = call.attempt + 1
        self._queue(calls, Call(call.task_id, call.spec, call.retries_left, attempt=call.attempt + 1))

    def alive(self, message: m.ActorAlive) -> None:
        """An actor's ``__init__`` has run there."""
        calls = self._actors.get(message.actor_id)
        if calls is None or calls.dead:
            return
        created = self._created.get(message.actor_id)
        if created is not None and self._results.awaited(created.work):
            self._results.complete(created.work, payloads.NONE, failed=False)
        self._coming[message.actor_id] = message.address
        # After a restart, what the process before has answered comes first.
        self._owner.after_stream(calls.address, lambda: self._owner.start_soon(self._reach(calls, message)))

    def restarting(self, message: m.ActorRestarting) -> None:
        """An actor's process is gone and another will come."""
        calls = self._actors.get(message.actor_id)
        if calls is not None:
            self._coming.pop(message.actor_id, None)
            self._owner.after_stream(calls.address, lambda: self._restarting(calls, message.cause))

    def dead(self, message: m.ActorDead) -> None:
        """An actor has ended for good."""
        calls = self._actors.get(message.actor_id)
        if calls is not None:
            self._owner.after_stream(calls.address, lambda: self._died(calls, message))

    def infeasible(self, actor_id: str, error: InfeasibleError) -> None:
        """No node can hold an actor: that is every call's answer."""
        calls = self._actors.get(actor_id)
        if calls is not None and not calls.dead:
            calls.verdict = payloads.from_error(error)
            self._end(calls, str(error), "", calls.verdict)

    def peer_lost(self, address: str) -> None:
        for calls in [calls for calls in self._actors.values() if calls.address == address]:
            calls.cut = True
            self._suspect(calls)

    # -- what follows --------------------------------------------------------------------------------------------

    def _request(self, actor_id: str) -> None:
        created = self._created[actor_id]
        work, options = created.work, created.options
        target = work.target
        assert target.exported is not None and target.kind is not None
        run = work.message("", self._owner.dependency_payloads(work))
        arguments = tuple((ref._id, ref._owner_address) for ref in work.dependencies)
        shape = m.ActorShape(options.max_concurrency or 0, options.concurrency_groups, arguments)
        self._owner.controller.tell(
            m.CreateActor(
                actor_id,
                target.kind,
                target.exported.name,
                options.name,
                options.lifetime == "detached",
                options.max_restarts,
                m.pack([*definitions(work), shape, run]),
            )
        )
        self._results.sent(work)

    async def _reach(self, calls: ActorCalls, message: m.ActorAlive) -> None:
        while self._coming.get(calls.actor_id) == message.address and not calls.dead and not self._owner.closing:
            if await self._peers.reach(message.address):
                if self._coming.get(calls.actor_id) == message.address and not calls.dead:
                    del self._coming[calls.actor_id]
                    self._send(calls, calls.alive(message.address, message.executor_id))
                return
            # The controller believes that it lives, and says so if it does not: it may only be slow, or cut off.
            await asyncio.sleep(LOST_GRACE)

    def _send(self, calls: ActorCalls, batch: list[Call]) -> None:
        for position, call in enumerate(batch):
            work: Work = call.spec
            stream = self._peers.stream(calls.address)
            if stream is None or stream.closed:
                calls.unsent(batch[position:])
                self._suspect(calls)
                return
            define(stream, work)
            payloads_of = self._owner.dependency_payloads(work) if work.dependencies else ()
            stream.send_nowait(work.message("", payloads_of, call.attempt))
            if work.yields is not None and work.yields.taken:
                stream.send_nowait(m.Consumed(work.task_id, work.yields.taken))
            self._results.sent(work)
            if call.attempt != work.attempt:
                self._results.sent_again(work, call.attempt)

    def _restarting(self, calls: ActorCalls, cause: str) -> None:
        what = f"the actor's process died under it, because {cause}. It is being restarted"
        self._lose_calls(calls, what, cause)

    def _lose_calls(self, calls: ActorCalls, what: str, cause: str) -> None:
        """Fail the calls under way, but for those that may be made again."""
        for call in calls.restarting():
            self._actor_of.pop(call.task_id, None)
            error = ActorUnavailableError(
                f"`{call.spec.target.name}` was not answered: {what}; `max_task_retries` would have the call made "
                "again.",
                actor_id=calls.actor_id,
                cause=cause,
            )
            self._results.complete(call.spec, payloads.from_error(error), failed=True)

    def _died(self, calls: ActorCalls, message: m.ActorDead) -> None:
        cause = message.cause
        if message.error:
            try:
                payloads.load(message.error)
            except BaseException as error:  # whatever `__init__` raised
                cause = f"its `__init__` raised {type(error).__name__}: {error}"
        self._end(calls, cause, message.stderr, message.error)

    def _end(self, calls: ActorCalls, cause: str, stderr: str, creation_error: m.Payload) -> None:
        """Fail every call; the creation too, with its own error if it had one."""
        actor_id = calls.actor_id
        for call in calls.died(cause, stderr) if not calls.dead else ():
            self._actor_of.pop(call.task_id, None)
            self._fail(calls, call.spec)
        created = self._created.pop(actor_id, None)
        if created is not None:
            work = created.work
            if self._results.awaited(work):
                answer = creation_error or payloads.from_error(_actor_died(calls, work))
                self._results.complete(work, answer, failed=True)
            if work.args[0] == payloads.SEGMENT:
                self._owner.ownership.free(work.args)
        if actor_id in self._abandoned:
            self._abandoned.remove(actor_id)
            del self._actors[actor_id]

    def _fail(self, calls: ActorCalls, work: Work) -> None:
        answer = calls.verdict or payloads.from_error(_actor_died(calls, work))
        self._results.complete(work, answer, failed=True)

    def _suspect(self, calls: ActorCalls) -> None:
        """A stream has ended. Either the controller knows why and says so, or it was only the connection."""
        self._owner.loop.call_later(CUT_GRACE, self._reconnect, calls, calls.address)

    def _reconnect(self, calls: ActorCalls, address: str) -> None:
        if self._is_cut(calls, address):
            self._owner.start_soon(self._reach_again(calls, address))

    async def _reach_again(self, calls: ActorCalls, address: str) -> None:
        """The process may live: calls under way then count as those of one that was restarted."""
        executor_id = calls.executor_id
        if await self._peers.reach(address):
            if self._is_cut(calls, address):
                cause = "the connection to it was lost"
                self._lose_calls(calls, f"{cause}, and whether it has run is not known", cause)
                self._send(calls, calls.alive(address, executor_id))
            return

        def surely_lost() -> None:
            if self._is_cut(calls, address):
                self._died(calls, m.ActorDead(calls.actor_id, "the connection to it was lost", "", ()))

        self._owner.loop.call_later(LOST_GRACE, surely_lost)

    @staticmethod
    def _is_cut(calls: ActorCalls, address: str) -> bool:
        return calls.cut and calls.address == address and not calls.dead

    def _uncount_call(self, actor_id: str) -> None:
        with self._counting:
            left = self._under_way[actor_id] = self._under_way.get(actor_id, 1) - 1
            if not left:
                del self._under_way[actor_id]


def _actor_died(calls: ActorCalls, work: Work) -> ShoalError:
    return ActorDiedError(
        f"`{work.target.name}` was not answered: the actor is dead, because {calls.cause}."
        + (f"\nIts last words:\n{calls.stderr}" if calls.stderr else ""),
        actor_id=calls.actor_id,
        cause=calls.cause,
    )
