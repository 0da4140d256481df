"""The owner runtime: submits work, owns its results, and gets their values.

One per process that runs user code: each driver has one, and each executor (for nested work). It lives on the process's
event loop; the methods in the first part may be called on any thread and reach the loop through an inbox. The decisions
are those of the state machines; this shell carries them out.
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import os
import time
from collections.abc import Callable, Sequence
from typing import Any

from shoal.model import messages as m
from shoal.model.errors import (
    ActorDiedError,
    ClusterLostError,
    ConnectError,
    ExecutorCrashedError,
    InfeasibleError,
    NotInitializedError,
    ObjectLostError,
    OwnerDiedError,
    ShoalError,
    TaskCancelledError,
)
from shoal.model.ids import new_object_id, new_task_id
from shoal.model.options import ActorOptions, TaskOptions
from shoal.model.placement import class_from_wire
from shoal.model.resources import describe, from_wire
from shoal.observe.functions import FunctionStats
from shoal.runtime import payload as payloads
from shoal.runtime import session
from shoal.runtime.context import get_current
from shoal.runtime.inbox import Inbox
from shoal.runtime.peers import CONNECT_TIMEOUT, Peers
from shoal.runtime.refs import ObjectRef
from shoal.runtime.scope import Scope
from shoal.runtime.segments import SegmentReader
from shoal.runtime.serialization import dumps
from shoal.runtime.store import Store
from shoal.runtime.versions import versions_here
from shoal.runtime.waiting import Waiter
from shoal.runtime.work import Exported, Work, take_dependencies
from shoal.state import objects, tasks
from shoal.state.calls import ActorCalls, Call
from shoal.transport.comms import Security, connect
from shoal.transport.stream import Stream

#: Seconds between two looks at idle leases and stalled work, while there are leases.
TICK = 0.05
#: Seconds between two reports to the controller, while there is news.
REPORT_INTERVAL = 0.25
#: Seconds after an executor's stream has ended within which the controller should have said why.
LOST_GRACE = 3.0
#: Seconds after news of an executor's death within which its stream should have ended.
LAST_ANSWERS = 1.0


@dataclasses.dataclass(frozen=True)
class OwnerConfig:
    """Who an owner is and where its cluster is."""

    owner_id: str
    job_id: str
    #: Address of the Dask scheduler that hosts the controller.
    controller: str
    security: Security
    #: Interface that peers reach this process at.
    host: str
    is_driver: bool
    #: The store of this node; None until known, or where there is none on this machine.
    store: Store | None = None


class Owner:
    """See the module's description."""

    def __init__(
        self,
        config: OwnerConfig,
        *,
        on_output: Callable[[m.Output], None] | None = None,
        on_message: Callable[[Stream, m.Message], None] | None = None,
        on_peer_lost: Callable[[str], None] | None = None,
    ) -> None:
        """Make the owner on its event loop; :meth:`start` brings it up.

        Parameters
        ----------
        on_output
            Gets what tasks print, on the loop: a driver shows it, an executor passes it on.
        on_message, on_peer_lost
            Get what is not the owner's business: work sent to this process, and the end of who sent it; for executors.
        """
        self.config = config
        self.loop = asyncio.get_running_loop()
        self.inbox = Inbox(self.loop, self._flush_if_due)
        self.table = objects.ObjectTable()
        self.store = config.store
        #: Called on a thread that is about to wait for a value, and when it goes on; for executors.
        self.waiting_hook: Callable[[bool], None] | None = None
        self.cluster_id = ""
        self.nodes: tuple[tuple[str, str, str, str, dict[str, str]], ...] = ()
        self._scope = Scope(f"owner {config.owner_id}")
        self._peers = Peers(config.security, self._scope, self._peer_message, self._peer_lost, self._flush_if_due)
        self._segments = SegmentReader(self._peers)
        self._controller: Stream | None = None
        self._connecting: asyncio.Future[None] | None = None
        self._machine = tasks.TaskMachine()
        #: Leases granted whose executors are being connected to, and the word that they are wanted back.
        self._grants: dict[str, m.Reclaim | None] = {}
        #: What waits for the end of a stream.
        self._at_end: dict[str, list[Callable[[], None]]] = {}
        self._actors: dict[str, ActorCalls] = {}
        #: Actors owned here, by the object whose life is theirs.
        self._actor_lives: dict[str, str] = {}
        #: Actors owned here that nobody has a handle of; forgotten when they have ended.
        self._abandoned: set[str] = set()
        self._actor_tasks: dict[str, str] = {}
        #: Task id of each result that is not there yet.
        self._producers: dict[str, str] = {}
        self._stats = FunctionStats()
        self._on_output = on_output
        self._on_message = on_message
        self._on_peer_lost = on_peer_lost
        self._flush_due = False
        self._tick_due = False
        self._report_due = False
        self._closing = False
        self._lost = ""

    # -- on any thread -------------------------------------------------------------------------------------------

    @property
    def address(self) -> str:
        """Where peers reach this process."""
        return self._peers.address

    def submit(
        self, exported: Exported, args: tuple[Any, ...], kwargs: dict[str, Any], options: TaskOptions
    ) -> ObjectRef:
        """Submit a task; returns the ref of its result at once.

        Raises
        ------
        SerializationError
            An argument cannot travel.
        ClusterLostError, NotInitializedError
            There is no cluster any more.
        """
        work = self._work(exported, "", options.name or exported.name, args, kwargs, options.cell)
        task = tasks.Task(work.task_id, exported.function_id, options.kind(), options.max_retries, work)
        ref = self._own(work.object_id)
        self.inbox.put(self._submit, task)
        return ref

    def create_actor(
        self, actor_id: str, exported: Exported, args: tuple[Any, ...], kwargs: dict[str, Any], options: ActorOptions
    ) -> ObjectRef:
        """Start an actor; the ref returned becomes ready when its ``__init__`` has run, and its life is the actor's."""
        name = f"{options.name or exported.name}.__init__"
        work = self._work(exported, "__init__", name, args, kwargs, options.cell)
        ref = self._own(work.object_id)
        self.inbox.put(self._create_actor, (actor_id, work, options))
        return ref

    def call_actor(
        self, actor_id: str, method: str, name: str, args: tuple[Any, ...], kwargs: dict[str, Any], life: ObjectRef
    ) -> ObjectRef:
        """Call a method of an actor; calls of one process run in the order made."""
        work = self._work(None, method, name, args, kwargs, None, life)
        ref = self._own(work.object_id)
        self.inbox.put(self._call_actor, (actor_id, work))
        return ref

    def kill_actor(self, actor_id: str) -> None:
        self.inbox.put(self._kill_actor, actor_id)

    def put(self, value: Any) -> ObjectRef:
        """Store *value* and return a ref to it; large values go to this node's shared memory once."""
        self._check_usable()
        frames, contained = dumps(value)
        object_id = new_object_id()
        payload = payloads.from_frames(frames, self.store, self._segment_name(object_id))
        self.table.add(object_id, payload, contained)
        return ObjectRef(object_id, self.address, self)

    def get(self, refs: Sequence[ObjectRef], timeout: float | None) -> list[Any]:
        """Wait for the values of *refs* and return them in order; the first error raises as soon as it is there.

        Raises
        ------
        TimeoutError
            Not all were ready within *timeout* seconds.
        """
        entries = [self._entry(ref) for ref in refs]
        missing = [entry for entry in entries if entry.payload is None]
        if missing:
            self._request(missing)
            waiter = Waiter(len(missing), self._wakes_early)
            for entry in missing:
                self.table.when_ready(entry, waiter)
            with self._telling_that_we_wait():
                try:
                    done = waiter.wait(timeout)
                finally:
                    if waiter.missing:
                        for entry in missing:
                            self.table.forget_waiter(entry, waiter)
            if waiter.failed is not None:
                return [payloads.load(waiter.failed)]
            if not done:
                raise TimeoutError
        return [self._load(entry) for entry in entries]

    def wait(self, refs: Sequence[ObjectRef], num_ready: int, timeout: float | None) -> list[bool]:
        """Wait until *num_ready* of *refs* are ready, or *timeout* seconds; returns which are."""
        entries = [self._entry(ref) for ref in refs]
        missing = [entry for entry in entries if entry.payload is None]
        needed = num_ready - (len(entries) - len(missing))
        if needed > 0:
            self._request(missing)
            waiter = Waiter(needed)
            for entry in missing:
                self.table.when_ready(entry, waiter)
            with self._telling_that_we_wait():
                try:
                    waiter.wait(timeout)
                finally:
                    for entry in missing:
                        if entry.payload is None:
                            self.table.forget_waiter(entry, waiter)
        return [entry.payload is not None for entry in entries]

    async def get_async(self, ref: ObjectRef) -> Any:
        """Wait for the value of *ref* on the caller's own event loop."""
        entry = self._entry(ref)
        if entry.payload is None:
            loop = asyncio.get_running_loop()
            ready = asyncio.Event()

            def wake(_: objects.Entry) -> None:
                with contextlib.suppress(RuntimeError):  # the caller's loop has ended
                    loop.call_soon_threadsafe(ready.set)

            self._request([entry])
            self.table.when_ready(entry, wake)
            with self._telling_that_we_wait():
                try:
                    await ready.wait()
                finally:
                    self.table.forget_waiter(entry, wake)
        if self._needs_fetch(entry.payload):
            return await asyncio.to_thread(self._load, entry)
        return self._load(entry)

    def cancel(self, ref: ObjectRef) -> None:
        """Stop the work that makes *ref*; harmless if it has ended."""
        self.inbox.put(self._cancel, ref.id)

    def hold(self, object_id: str, owner_address: str) -> ObjectRef:
        """Make a ref that has arrived inside a value."""
        if owner_address == self.address:
            self.table.retain(object_id, "", counted=True)
        else:
            in_task = get_current() is not None
            if self.table.retain(object_id, owner_address, counted=not in_task) and not in_task:
                self.inbox.put(self._tell_borrow, (object_id, owner_address, 1))
        return ObjectRef(object_id, owner_address, self)

    def drop_nowait(self, object_id: str) -> None:
        """Let one ref go; called by the garbage collector."""
        self.inbox.put(self._drop, object_id)

    def cancel_children(self, parent: str) -> None:
        """Stop everything that a task has submitted, wherever it is; on the loop. Its children do likewise."""
        calls = [call.spec for calls in self._actors.values() for call in (*calls.sent.values(), *calls.queue)]
        for work in (*(task.spec for task in self._machine.tasks.values()), *calls):
            if work.parent == parent and work.method != "__init__":
                self._cancel(work.object_id)

    def num_objects(self) -> int:
        """How many objects this process owns or borrows."""
        return len(self.table)

    # -- life ----------------------------------------------------------------------------------------------------

    async def start(self) -> None:
        """Listen for peers; a driver also greets the controller (an executor does so when it first has to)."""
        await self._peers.start(self.config.host, self.config.controller, self.config.owner_id, self.config.job_id)
        if self.config.is_driver:
            await self.connect_controller()

    async def connect_controller(self) -> None:
        """Greet the controller.

        Raises
        ------
        ConnectError
            It does not answer, or refuses us.
        """
        comm = await connect(self.config.controller, self.config.security, CONNECT_TIMEOUT, to_dask_server=True)
        welcome: asyncio.Future[m.Welcome] = self.loop.create_future()

        def greeted(message: m.Message) -> None:
            if isinstance(message, m.Welcome):
                welcome.set_result(message)
            else:
                reason = message.reason if isinstance(message, m.Refused) else "it did not greet us"
                welcome.set_exception(
                    ConnectError(f"The cluster refused us: {reason}.", address=self.config.controller)
                )

        def on_message(stream: Stream, message: m.Message) -> None:
            self._controller_message(message) if welcome.done() else greeted(message)

        stream = Stream(comm, on_message)
        stream.send_nowait(
            m.OwnerHello(
                m.PROTOCOL_VERSION,
                self.config.owner_id,
                self.config.job_id,
                self.address,
                self.config.is_driver,
                versions_here(),
            )
        )
        self._scope.start(self._run_controller(stream, welcome))
        answer = await asyncio.wait_for(welcome, CONNECT_TIMEOUT)
        self._controller = stream
        self.cluster_id, self.nodes = answer.cluster_id, answer.nodes
        if self.store is None:
            stores = (Store(store, worker) for _, worker, _, store, _ in answer.nodes)
            self.store = next((store for store in stores if store.reachable()), None)

    async def close(self, timeout: float = 2.0) -> None:
        """Let everything go: results still awaited fail, and the cluster forgets this owner."""
        if self._closing:
            return
        self._closing = True
        self._fail_everything(NotInitializedError("shoal was shut down."))
        for entry in self.table.entries():
            if not entry.owner and entry.payload is not None:
                payloads.free(entry.payload)
        if self._controller is not None:
            await self._controller.close(timeout)
        await self._peers.close(timeout)
        await self._scope.close()

    # -- user-thread parts ---------------------------------------------------------------------------------------

    def _check_usable(self) -> None:
        if self._closing:
            raise NotInitializedError("shoal was shut down in this process. Call `shoal.init()` first.")
        if self._lost:
            raise ClusterLostError(self._lost)

    def _own(self, object_id: str) -> ObjectRef:
        self.table.add(object_id)
        return ObjectRef(object_id, self.address, self)

    def _work(
        self,
        exported: Exported | None,
        method: str,
        name: str,
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        cell: str | None,
        *holds: ObjectRef,
    ) -> Work:
        self._check_usable()
        context = get_current()
        task_id = new_task_id()
        payload = payloads.EMPTY_ARGUMENTS
        dependencies: tuple[ObjectRef, ...] = ()
        contained: list[ObjectRef] = []
        if args or kwargs:
            plain_args, plain_kwargs, dependencies = take_dependencies(args, kwargs)
            frames, contained = dumps((plain_args, plain_kwargs), f"arguments of {name}")
            payload = payloads.from_frames(frames, self.store, self._segment_name(task_id))
        return Work(
            task_id=task_id,
            object_id="obj" + task_id[4:],
            exported=exported,
            method=method,
            name=name,
            args=payload,
            dependencies=dependencies,
            holds=(*contained, *holds),
            cell=cell if cell is not None else context.cell if context is not None else session.current_cell(),
            driver=self.address if context is None else context.driver,
            parent="" if context is None else context.task_id,
        )

    def _segment_name(self, what: str) -> str:
        return f"{self.config.owner_id}.{what}"

    def _entry(self, ref: ObjectRef) -> objects.Entry:
        if ref._owner is not self:
            raise NotInitializedError(f"`{ref!r}` belongs to a cluster session that has ended.")
        entry = self.table.get(ref.id)
        assert entry is not None, "a live ref always has an entry"
        if entry.payload is None or self._closing:
            self._check_usable()
        return entry

    def _request(self, missing: list[objects.Entry]) -> None:
        for entry in missing:
            if entry.owner:
                self.inbox.put(self._locate, entry)

    @staticmethod
    def _wakes_early(entry: objects.Entry) -> m.Payload | None:
        payload = entry.payload
        return payload if payload is not None and payloads.is_error(payload) else None

    @contextlib.contextmanager
    def _telling_that_we_wait(self) -> Any:
        hook = self.waiting_hook
        if hook is None:
            yield
            return
        try:
            hook(True)
            yield
        finally:
            hook(False)

    @staticmethod
    def _needs_fetch(payload: m.Payload | None) -> bool:
        return payload is not None and payload[0] == payloads.SEGMENT and not os.path.exists(payload[2])

    def _load(self, entry: objects.Entry) -> Any:
        assert entry.payload is not None
        return self.load(entry.payload)

    def load(self, payload: m.Payload) -> Any:
        """Return the value of *payload* or raise its error; fetches it first if it lies on another machine.

        Not for the event loop's own thread.
        """
        if not self._needs_fetch(payload):
            return payloads.load(payload)
        fetch = asyncio.run_coroutine_threadsafe(self._segments.fetch(payload), self.loop)
        return payloads.load(payload, fetch.result())

    def send_to(self, address: str, message: m.Message) -> None:
        """Send *message* to a peer; on the loop."""
        self._peers.send(address, message)

    # -- tasks ---------------------------------------------------------------------------------------------------

    def _submit(self, task: tasks.Task) -> None:
        work: Work = task.spec
        self._producers[work.object_id] = work.task_id
        self._stats.queued(work.name)
        if self._dead_on_arrival(work):
            return

        def go_on() -> None:
            self._machine.submit(task)
            self._schedule_flush()

        if work.dependencies:
            self._when_ready(work, go_on)
        else:
            go_on()

    def _when_ready(self, work: Work, go_on: Callable[[], None]) -> None:
        """Call *go_on* once every dependency is ready, or fail the work with the first error among them."""
        left = len(work.dependencies)

        def arrived(entry: objects.Entry) -> None:
            nonlocal left
            payload = entry.payload
            assert payload is not None
            if work.object_id not in self._producers:
                return
            if payloads.is_error(payload):
                self._give_up(work)
                self._complete(work, payload, failed=True)
                return
            left -= 1
            if not left:
                go_on()

        for ref in work.dependencies:
            entry = self._entry(ref)
            if entry.payload is None and entry.owner:
                self._locate(entry)
            # The value may come on a user's thread (`put`), so the rest is always done from the inbox.
            self.table.when_ready(entry, lambda entry: self.inbox.put(arrived, entry))

    def _give_up(self, work: Work) -> None:
        """A call will never be sent: those behind it need not wait for it."""
        actor_id = self._actor_tasks.pop(work.task_id, None)
        if actor_id is not None:
            calls = self._actors[actor_id]
            calls.cancel(work.task_id)
            self._send_calls(calls, calls.sendable())

    def _dependencies(self, work: Work) -> tuple[m.Payload, ...]:
        return tuple(self._entry(ref).payload or () for ref in work.dependencies)

    def _schedule_flush(self) -> None:
        """Have the task machine's actions carried out after the present burst of events."""
        if not self._flush_due:
            self._flush_due = True
            self.loop.call_soon(self._flush_if_due)

    def _flush_if_due(self) -> None:
        if self._flush_due:
            self._flush()

    def _flush(self) -> None:
        self._flush_due = False
        for action in self._machine.flush(time.monotonic()):
            match action:
                case tasks.Send(lease, batch):
                    self._send(lease, batch)
                case tasks.SetDemand(kind, wanted):
                    self._tell_controller(m.Demand(kind, wanted))
                case tasks.SendRecall(lease):
                    self._peers.send(lease.address, m.Recall(lease.lease_id))
                case tasks.SendCancel(lease, task):
                    self._peers.send(lease.address, m.CancelTask(task.task_id))
                case tasks.GiveBack(lease):
                    self._tell_controller(m.ReturnLease(lease.lease_id))
                case tasks.Fail(task, reason, detail):
                    self._complete_failed(task, reason, detail)
        if self._machine.needs_tick and not self._tick_due:
            self._tick_due = True
            self.loop.call_later(TICK, self._tick)

    def _tick(self) -> None:
        self._tick_due = False
        if not self._closing:
            self._machine.tick(time.monotonic())
            self._flush()

    def _send(self, lease: tasks.Lease, batch: list[tasks.Task]) -> None:
        stream = self._peers.stream(lease.address)
        if stream is None:  # the news of its end is on the way, and covers what was sent
            self._suspect_lease(lease)
            return
        for task in batch:
            work: Work = task.spec
            self._define(stream, work)
            stream.send_nowait(work.message(lease.lease_id, self._dependencies(work), task.attempt))
            self._sent(work)
        self._schedule_report()

    def _sent(self, work: Work) -> None:
        if not work.sent:
            work.sent = True
            self._stats.started(work.name)

    @staticmethod
    def _define(stream: Stream, work: Work) -> None:
        exported = work.exported
        if exported is not None and exported.function_id not in stream.defined:
            stream.defined.add(exported.function_id)
            stream.send_nowait(m.Define(exported.function_id, exported.pickled))

    def _complete_failed(self, task: tasks.Task, reason: str, detail: Any) -> None:
        work: Work = task.spec
        error: ShoalError
        if reason == "crashed":
            cause, stderr = detail
            error = ExecutorCrashedError(
                f"The executor running `{work.name}` died: {cause} (attempt {task.attempt + 1}, no retries left)."
                + (f"\nIts last words:\n{stderr}" if stderr else ""),
                cause=cause,
                stderr=stderr,
            )
        elif reason == "cancelled":
            error = _cancelled(work)
        else:
            error = detail
        self._complete(work, payloads.from_error(error), failed=True)

    def _complete(
        self, work: Work, payload: m.Payload, contained: Sequence[ObjectRef] = (), *, failed: bool, seconds: float = 0.0
    ) -> None:
        """A task or call has ended: hand its value to whoever waits and let go what it needed."""
        if self._producers.pop(work.object_id, None) is None:
            return
        self._stats.ended(work.name, begun=work.sent, failed=failed, seconds=seconds)
        self._schedule_report()
        if work.args[0] == payloads.SEGMENT:
            self._free_payload(work.args)
        if not self.table.ready(work.object_id, payload, contained):
            self._free_payload(payload)

    # -- actors --------------------------------------------------------------------------------------------------

    def _create_actor(self, request: tuple[str, Work, ActorOptions]) -> None:
        actor_id, work, options = request
        self._producers[work.object_id] = work.task_id
        self._actor_lives[work.object_id] = actor_id
        self._stats.queued(work.name)
        calls = self._actors[actor_id] = ActorCalls(actor_id)
        if self._dead_on_arrival(work):
            return
        self._add_call(calls, work)
        class_name = work.exported.name if work.exported else ""
        self._tell_controller(m.CreateActor(actor_id, options.kind(), class_name, options.name))

    def _call_actor(self, request: tuple[str, Work]) -> None:
        actor_id, work = request
        self._producers[work.object_id] = work.task_id
        self._stats.queued(work.name)
        calls = self._actors.get(actor_id)
        if calls is None:
            calls = self._actors[actor_id] = ActorCalls(actor_id)
            self._tell_controller(m.WatchActor(actor_id))
        if not self._dead_on_arrival(work):
            self._add_call(calls, work)

    def _add_call(self, calls: ActorCalls, work: Work) -> None:
        if calls.dead:
            self._complete(work, calls.verdict or payloads.from_error(_actor_died(calls, work)), failed=True)
            return
        self._actor_tasks[work.task_id] = calls.actor_id
        call = Call(work.task_id, work)
        calls.add(call)

        def go_on() -> None:
            call.ready = True
            self._send_calls(calls, calls.sendable())

        if work.dependencies:
            self._when_ready(work, go_on)
        else:
            go_on()

    def _send_calls(self, calls: ActorCalls, batch: list[Call]) -> None:
        for call in batch:
            work: Work = call.spec
            stream = self._peers.stream(calls.address)
            if stream is None:  # the news of its end is on the way, and covers what was sent
                self._suspect_actor(calls)
                return
            self._define(stream, work)
            stream.send_nowait(work.message("", self._dependencies(work)))
            self._sent(work)
        if batch:
            self._schedule_report()

    async def _actor_alive(self, message: m.ActorAlive) -> None:
        calls = self._actors.get(message.actor_id)
        if calls is not None and not calls.dead and await self._peers.reach(message.address):
            self._send_calls(calls, calls.alive(message.address, message.executor_id))

    def _actor_dead(self, actor_id: str, cause: str, stderr: str) -> None:
        calls = self._actors.get(actor_id)
        if calls is None:
            return
        for call in calls.died(cause, stderr) if not calls.dead else ():
            self._actor_tasks.pop(call.task_id, None)
            self._complete(call.spec, payloads.from_error(_actor_died(calls, call.spec)), failed=True)
        if actor_id in self._abandoned:
            self._abandoned.remove(actor_id)
            del self._actors[actor_id]

    def _abandon(self, actor_id: str) -> None:
        """Its last handle is gone."""
        if self._actors[actor_id].dead:
            del self._actors[actor_id]
        else:
            self._abandoned.add(actor_id)
            self._kill_actor(actor_id, "its last handle is gone")

    def _kill_actor(self, actor_id: str, cause: str = "it was killed") -> None:
        self._tell_controller(m.KillActor(actor_id, cause))

    # -- messages ------------------------------------------------------------------------------------------------

    def _controller_message(self, message: m.Message) -> None:
        match message:
            case m.LeaseGranted():
                self._scope.start(self._lease_granted(message))
            case m.Reclaim(lease_id, idle_only):
                if lease_id in self._grants:
                    self._grants[lease_id] = message
                self._machine.reclaim(lease_id, idle_only)
                self._schedule_flush()
            case m.LeaseLost():
                self._lease_lost(message)
            case m.Infeasible():
                self._infeasible(message)
            case m.ActorAlive():
                self._scope.start(self._actor_alive(message))
            case m.ActorDead(actor_id, cause, stderr):
                calls = self._actors.get(actor_id)
                if calls is not None:
                    self._after_stream(calls.address, lambda: self._actor_dead(actor_id, cause, stderr))

    async def _lease_granted(self, message: m.LeaseGranted) -> None:
        lease = tasks.Lease(message.lease_id, class_from_wire(message.kind), message.address)
        self._grants[lease.lease_id] = None
        await self._peers.reach(message.address)
        if lease.lease_id not in self._grants:  # lost before we were there
            return
        reclaim = self._grants.pop(lease.lease_id)
        if self._peers.stream(message.address) is not None:
            self._machine.granted(lease, time.monotonic())
            if reclaim is not None:
                self._machine.reclaim(lease.lease_id, reclaim.idle_only)
        else:
            self._machine.unreachable(lease)
        self._schedule_flush()

    def _lease_lost(self, message: m.LeaseLost) -> None:
        self._grants.pop(message.lease_id, None)
        lease = self._machine.leases.get(message.lease_id)
        if lease is None:
            return

        def lost() -> None:
            self._machine.lost(message.lease_id, message.begun, (message.cause, message.stderr))
            self._schedule_flush()

        self._after_stream(lease.address, lost)

    def _after_stream(self, address: str, go_on: Callable[[], None]) -> None:
        """Call *go_on* when all that a dead peer has sent has been read: its last answers, overtaken by the news."""
        if self._peers.stream(address) is None:
            go_on()
            return
        waiting = self._at_end.setdefault(address, [])
        waiting.append(go_on)

        def too_late() -> None:
            if go_on in waiting:
                waiting.remove(go_on)
                go_on()

        self.loop.call_later(LAST_ANSWERS, too_late)

    def _infeasible(self, message: m.Infeasible) -> None:
        kind, largest = class_from_wire(message.kind), from_wire(message.largest)
        error = InfeasibleError(
            f"No node can ever satisfy {kind.describe()}: the most any node has is {describe(largest)}. Ask for less, "
            "or add a node that has it.",
            asked=dict(kind.resources),
            largest=dict(largest),
        )
        if message.actor_id:
            calls = self._actors.get(message.actor_id)
            if calls is not None and not calls.dead:
                calls.verdict = payloads.from_error(error)
                for call in calls.died(str(error), ""):
                    self._actor_tasks.pop(call.task_id, None)
                    self._complete(call.spec, calls.verdict, failed=True)
        else:
            self._machine.infeasible(kind, error)
            self._schedule_flush()

    def _peer_message(self, stream: Stream, message: m.Message) -> None:
        match message:
            case m.Done():
                self._done(stream, message)
            case m.Output():
                if self._on_output is not None:
                    self._on_output(message)
            case m.Returned(lease_id, task_ids, waiting):
                for task_id in task_ids:
                    task = self._machine.tasks.get(task_id)
                    if task is not None and task.spec.sent:
                        task.spec.sent = False
                        self._stats.unstarted(task.spec.name)
                self._machine.returned(lease_id, task_ids, waiting, time.monotonic())
                self._schedule_flush()
            case m.Resumed(lease_id):
                self._machine.resumed(lease_id, time.monotonic())
                self._schedule_flush()
            case m.Locate(object_id):
                self._answer_locate(stream, object_id)
            case m.Located(object_id, payload, contained):
                self._located(object_id, payload, contained)
            case m.Borrow(object_id, borrower, change):
                if borrower != self.config.owner_id:
                    self._carry_out(self.table.borrow(object_id, borrower, change))
            case m.SegmentData(request, data):
                self._segments.arrived(request, data)
            case _:
                if self._on_message is not None:
                    self._on_message(stream, message)

    def _done(self, stream: Stream, message: m.Done) -> None:
        actor_id = self._actor_tasks.pop(message.task_id, None)
        work: Work | None = None
        if actor_id is not None:
            calls = self._actors[actor_id]
            call = calls.finished(message.task_id)
            work = call.spec if call else None
        else:
            task = self._machine.finished(message.task_id, message.seconds, time.monotonic())
            work = task.spec if task else None
            self._schedule_flush()
        contained = [self._hold_counted(object_id, owner) for object_id, owner in message.contained]
        for object_id, owner in message.retained:
            if owner == self.address:
                self._carry_out(self.table.borrow(object_id, stream.peer_id, 1))
            else:
                self._peers.send(owner, m.Borrow(object_id, stream.peer_id, 1))
        if work is None:  # cancelled or lost meanwhile
            self._free_payload(message.payload)
            return
        failed = payloads.is_error(message.payload)
        self._complete(work, message.payload, contained, failed=failed, seconds=message.seconds)
        if failed and work.method == "__init__" and actor_id is not None:
            try:
                payloads.load(message.payload)
            except BaseException as error:  # whatever `__init__` raised
                self._kill_actor(actor_id, f"its `__init__` raised {type(error).__name__}: {error}")

    def _peer_lost(self, address: str, owner_id: str) -> None:
        if self._closing:
            return
        for go_on in self._at_end.pop(address, ()):
            go_on()
        for lease in [lease for lease in self._machine.leases.values() if lease.address == address]:
            self._suspect_lease(lease)
        for calls in [calls for calls in self._actors.values() if calls.address == address]:
            self._suspect_actor(calls)
        for entry in self.table.entries():
            if entry.owner == address and entry.payload is None:
                object_id = entry.object_id
                error = OwnerDiedError(f"The process that owned `{object_id}` is gone.", object_id=object_id)
                self.table.ready(object_id, payloads.from_error(error))
        if owner_id:
            self._carry_out(self.table.borrower_gone(owner_id))
        if self._on_peer_lost is not None:
            self._on_peer_lost(address)
        self._segments.holder_lost(address)

    # The controller knows why an executor ended and says so. If it does not, the end of the stream has to do.

    def _suspect_lease(self, lease: tasks.Lease) -> None:
        self.loop.call_later(LOST_GRACE, self._lease_surely_lost, lease)

    def _lease_surely_lost(self, lease: tasks.Lease) -> None:
        if self._machine.leases.get(lease.lease_id) is lease:
            self._machine.cut_off(lease.lease_id, ("the connection to it was lost", ""))
            self._flush()

    def _suspect_actor(self, calls: ActorCalls) -> None:
        self.loop.call_later(LOST_GRACE, self._actor_dead, calls.actor_id, "the connection to it was lost", "")

    # -- objects -------------------------------------------------------------------------------------------------

    def _drop(self, object_id: str) -> None:
        self._carry_out(self.table.release(object_id))

    def _carry_out(self, actions: list[objects.Action]) -> None:
        for action in actions:
            if isinstance(action, objects.LetGo):
                self._tell_borrow((action.object_id, action.owner, -1))
                continue
            actor_id = self._actor_lives.pop(action.object_id, None)
            if actor_id is not None:
                self._abandon(actor_id)
            if action.payload is not None:
                self._free_payload(action.payload)

    def _free_payload(self, payload: m.Payload) -> None:
        holder = payloads.free(payload)
        if holder is not None and (self.store is None or holder != self.store.holder):
            self._peers.send(holder, m.FreeSegment(payload[2]), agent=True)

    def _tell_borrow(self, change: tuple[str, str, int]) -> None:
        object_id, owner, amount = change
        if not self._closing:
            self._peers.send(owner, m.Borrow(object_id, self.config.owner_id, amount))

    def _hold_counted(self, object_id: str, owner: str) -> ObjectRef:
        """Hold an object for which its owner already counts us once more."""
        if owner == self.address:
            self.table.retain(object_id, "", counted=True)
        elif not self.table.retain(object_id, owner, counted=True):
            self._peers.send(owner, m.Borrow(object_id, self.config.owner_id, -1))
        return ObjectRef(object_id, owner, self)

    def hand_over(self, contained: Sequence[ObjectRef], receiver: str, address: str) -> tuple[tuple[str, str], ...]:
        """Have the owners of refs in a value that is about to be sent count *receiver* as a borrower."""
        for ref in contained:
            if ref._owner_address == self.address:
                self._carry_out(self.table.borrow(ref.id, receiver, 1))
            elif ref._owner_address != address:
                self._peers.send(ref._owner_address, m.Borrow(ref.id, receiver, 1))
        return tuple((ref.id, ref._owner_address) for ref in contained)

    def retained(self) -> tuple[tuple[str, str], ...]:
        """Return the borrowed objects that a task brought and that are still held now that it ends."""
        return tuple((entry.object_id, entry.owner) for entry in self.table.count_uncounted())

    def _locate(self, entry: objects.Entry) -> None:
        if entry.payload is None:
            self._peers.send(entry.owner, m.Locate(entry.object_id))

    def _answer_locate(self, stream: Stream, object_id: str) -> None:
        entry = self.table.get(object_id)
        if entry is None:
            error = ObjectLostError(f"`{object_id}` was released by its owner.", object_id=object_id)
            stream.send_nowait(m.Located(object_id, payloads.from_error(error), ()))
            return

        def answer(entry: objects.Entry) -> None:
            assert entry.payload is not None
            refs = [ref for ref in entry.contained if isinstance(ref, ObjectRef)]
            stream.send_nowait(m.Located(object_id, entry.payload, self.hand_over(refs, stream.peer_id, "")))

        self.table.when_ready(entry, lambda entry: self.inbox.put(answer, entry))

    def _located(self, object_id: str, payload: m.Payload, contained: tuple[tuple[str, str], ...]) -> None:
        refs = [self._hold_counted(inner, owner) for inner, owner in contained]
        self.table.ready(object_id, payload, refs)

    def _cancel(self, object_id: str) -> None:
        task_id = self._producers.get(object_id)
        if task_id is None:
            return
        actor_id = self._actor_tasks.get(task_id)
        if actor_id is None:
            self._machine.cancel(task_id)
            self._schedule_flush()
            return
        calls = self._actors[actor_id]
        call = next((call for call in calls.queue if call.task_id == task_id), None)
        if call is not None:
            self._give_up(call.spec)
            self._complete(call.spec, payloads.from_error(_cancelled(call.spec)), failed=True)
        elif calls.address:
            self._peers.send(calls.address, m.CancelTask(task_id))

    # -- the controller ------------------------------------------------------------------------------------------

    def _tell_controller(self, message: m.Message) -> None:
        if self._closing or self._lost:
            return
        if self._controller is not None:
            self._controller.send_nowait(message)
        else:
            self._scope.start(self._connect_and_tell(message))

    async def _connect_and_tell(self, message: m.Message) -> None:
        """An executor's first nested work: greet the controller, once, then say it."""
        if self._connecting is None:
            self._connecting = asyncio.ensure_future(self.connect_controller())
        try:
            await asyncio.shield(self._connecting)
        except (ConnectError, TimeoutError) as error:
            self._cluster_lost(f"The cluster did not answer: {error}")
            return
        self._tell_controller(message)

    async def _run_controller(self, stream: Stream, welcome: asyncio.Future[m.Welcome]) -> None:
        await stream.run()
        if not welcome.done():
            welcome.set_exception(ConnectError("The cluster hung up.", address=self.config.controller))
        elif not self._closing:
            self._cluster_lost(
                f"The connection to the cluster at `{self.config.controller}` was lost. Call `shoal.shutdown()` and "
                "`shoal.init()` to start again."
            )

    def _cluster_lost(self, reason: str) -> None:
        self._lost = reason
        self._controller = None
        self._fail_everything(ClusterLostError(reason))

    def _fail_everything(self, error: ShoalError) -> None:
        """Nothing pending can be finished: give every waiting ref this error."""
        payload = payloads.from_error(error)
        self._producers.clear()
        for entry in self.table.entries():
            if entry.payload is None:
                self.table.ready(entry.object_id, payload)

    def _dead_on_arrival(self, work: Work) -> bool:
        if not self._lost and not self._closing:
            return False
        error = ClusterLostError(self._lost) if self._lost else NotInitializedError("shoal was shut down.")
        self._complete(work, payloads.from_error(error), failed=True)
        return True

    def _schedule_report(self) -> None:
        if not self._report_due and self._controller is not None:
            self._report_due = True
            self.loop.call_later(REPORT_INTERVAL, self._report)

    def _report(self) -> None:
        self._report_due = False
        self.report()

    def report(self) -> None:
        """Tell the controller the news now; on the loop."""
        if self._controller is not None and not self._closing and self._stats.changed:
            self._controller.send_nowait(m.OwnerStats(*self._stats.take_changes()))


def _cancelled(work: Work) -> TaskCancelledError:
    return TaskCancelledError(f"`{work.name}` was cancelled.", task_id=work.task_id)


def _actor_died(calls: ActorCalls, work: Work) -> ActorDiedError:
    return ActorDiedError(
        f"`{work.name}` was not answered: the actor is dead, because {calls.cause}."
        + (f"\nIts last words:\n{calls.stderr}" if calls.stderr else ""),
        actor_id=calls.actor_id,
        cause=calls.cause,
    )


__all__ = ["Owner", "OwnerConfig"]
