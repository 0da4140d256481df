"""The owner runtime: submits work, owns its results, and gets their values.

One per process that runs user code: each driver has one, and each executor (for nested work). It lives on the process's
event loop; the methods in the first part may be called on any thread and reach the loop through an inbox. The decisions
are those of the state machines; the owner's parts carry them out: :class:`TaskRunner`, :class:`ActorCaller`,
:class:`Ownership`, :class:`Results` and the :class:`ControllerLink`.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import contextlib
import dataclasses
import itertools
import os
import time
from collections.abc import Callable, Coroutine, Sequence
from typing import Any

from shoal.model import messages as m
from shoal.model.errors import (
    ClusterLostError,
    InfeasibleError,
    NestingError,
    NotInitializedError,
    PlacementGroupError,
    ShoalError,
    TaskTimeoutError,
)
from shoal.model.explanation import Explanation
from shoal.model.ids import new_object_id, new_task_id
from shoal.model.options import ActorOptions
from shoal.model.placement import class_from_wire
from shoal.model.resources import Resources, describe, from_wire
from shoal.runtime import payload as payloads
from shoal.runtime import session
from shoal.runtime.actor_caller import ActorCaller
from shoal.runtime.context import get_current
from shoal.runtime.controller_link import ANSWER_TIMEOUT, ControllerLink
from shoal.runtime.explainer import Explainer
from shoal.runtime.inbox import Inbox
from shoal.runtime.ownership import Ownership
from shoal.runtime.peers import Peers
from shoal.runtime.refs import ObjectRef
from shoal.runtime.results import Results
from shoal.runtime.scope import Scope
from shoal.runtime.segments import SegmentReader
from shoal.runtime.serialization import dumps
from shoal.runtime.store import Store
from shoal.runtime.task_runner import TIMEOUT_GRACE, TaskRunner
from shoal.runtime.versions import versions_here
from shoal.runtime.waiting import Waiter
from shoal.runtime.work import STOP, Target, Work, take_dependencies
from shoal.runtime.yields import ObjectRefGenerator, Yields
from shoal.state import objects
from shoal.transport.comms import Security
from shoal.transport.stream import Stream

#: Seconds between two reports to the controller, while there is news.
REPORT_INTERVAL = 0.25
#: Seconds after news of an executor's death within which its stream should have ended.
LAST_ANSWERS = 1.0
#: Tasks that may wait for one another in a row. Each holds a process while it waits.
MAX_DEPTH = 128

#: What ``.remote()`` returns: as many refs as the task has results, or their stream.
Returned = ObjectRef | list[ObjectRef] | ObjectRefGenerator | None


@dataclasses.dataclass(frozen=True)
class OwnerConfig:
    """Who an owner is and where its cluster is."""

    owner_id: str
    #: The driver's; an executor learns it with its first lease.
    job_id: str
    #: Address of the Dask scheduler that hosts the controller.
    controller: str
    security: Security
    #: Interface that peers reach this process at.
    host: str
    is_driver: bool
    #: Where a driver's named actors are; executors use their job's.
    namespace: str = ""
    #: The node of an executor.
    node_id: str = ""
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
        self.job_id = config.job_id
        self.loop = asyncio.get_running_loop()
        self.inbox = Inbox(self.loop, self._after_batch)
        self.store = config.store
        #: Called on a thread that is about to wait for a value, and when it goes on; for executors.
        self.waiting_hook: Callable[[bool], None] | None = None
        self.cluster_id = ""
        self.nodes: tuple[tuple[str, str, str, str, dict[str, str]], ...] = ()
        self.num_nodes = 0
        self.closing = False
        self._lost = ""
        self._scope = Scope(f"owner {config.owner_id}")
        self.peers = Peers(config.security, self._scope, self._peer_message, self._peer_lost, self._after_batch)
        self.controller = ControllerLink(
            config.controller, config.security, self._scope, self._hello, self._controller_message, self._cluster_lost
        )
        self._segments = SegmentReader(self.peers)
        self.ownership = Ownership(self, self.peers, lambda object_id: self.actors.freed(object_id))
        self.table = self.ownership.table
        self.results = Results(self.table, self.ownership.free, self._schedule_report)
        self.tasks = TaskRunner(self)
        self.actors = ActorCaller(self)
        self.explainer = Explainer(self)
        #: What waits for the end of a stream.
        self._at_end: dict[str, list[Callable[[], None]]] = {}
        #: Placement groups asked for here, by id: the object that becomes ready with them.
        self._groups: dict[str, str] = {}
        #: What threads and coroutines here wait for, and since when: the task each belongs to comes first.
        self._waits: dict[int, tuple[str, Sequence[objects.Entry], float]] = {}
        self._on_output = on_output
        self._on_message = on_message
        self._on_peer_lost = on_peer_lost
        self._report_due = False

    # -- on any thread -------------------------------------------------------------------------------------------

    @property
    def address(self) -> str:
        """Where peers reach this process."""
        return self.peers.address

    def submit(self, target: Target, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Returned:
        """Submit a task; returns what refers to its results at once.

        Raises
        ------
        SerializationError
            An argument cannot travel.
        NestingError
            Tasks wait for one another too deep.
        ClusterLostError, NotInitializedError
            There is no cluster any more.
        """
        work = self._work(target, args, kwargs)
        returned = self._own(work)
        self.inbox.put(self.tasks.submit, work)
        return returned

    def create_actor(
        self, actor_id: str, target: Target, args: tuple[Any, ...], kwargs: dict[str, Any], options: ActorOptions
    ) -> ObjectRef:
        """Start an actor; the ref returned becomes ready when its ``__init__`` has run, and its life is the actor's.

        A detached actor lives on when the ref goes.
        """
        work, life = self.prepare_actor(target, args, kwargs, options)
        self.create_prepared_actor(actor_id, work, options)
        return life

    def prepare_actor(
        self, target: Target, args: tuple[Any, ...], kwargs: dict[str, Any], options: ActorOptions
    ) -> tuple[Work, ObjectRef]:
        """Do what can fail of :meth:`create_actor`."""
        work = self._work(target, args, kwargs, inline=options.lifetime == "detached")
        self.table.add(work.object_id)
        return work, ObjectRef(work.object_id, self.address, self)

    def create_prepared_actor(self, actor_id: str, work: Work, options: ActorOptions) -> None:
        self.inbox.put(self.actors.create, (actor_id, work, options))

    def call_actor(
        self, actor_id: str, target: Target, args: tuple[Any, ...], kwargs: dict[str, Any], life: ObjectRef | None
    ) -> Returned:
        """Call a method of an actor; calls of one process begin in the order made.

        Raises
        ------
        PendingCallsLimitExceeded
            As many calls as the actor allows wait for answers.
        """
        work = self._work(target, args, kwargs, *(() if life is None else (life,)))
        if target.max_pending_calls and target.method != STOP:
            self.actors.count_call(actor_id, target.name, target.max_pending_calls)
        returned = self._own(work)
        self.inbox.put(self.actors.call, (actor_id, work))
        return returned

    def kill_actor(self, actor_id: str, *, restart: bool = False) -> None:
        self.inbox.put(lambda _: self.actors.kill(actor_id, restart=restart), None)

    def ask(self, make: Callable[[int], m.Message]) -> Any:
        """Ask the controller and wait for its answer; not on the event loop's own thread.

        Raises
        ------
        ClusterLostError
            There is no controller any more, or it gave no answer.
        """
        self._check_usable()
        future = asyncio.run_coroutine_threadsafe(self.controller.ask(make), self.loop)
        return future.result(2 * ANSWER_TIMEOUT)

    def create_group(
        self, group_id: str, bundles: tuple[Resources, ...], strategy: str, *, detached: bool
    ) -> ObjectRef:
        """Ask for a placement group; the ref returned becomes ready when its bundles are reserved."""
        self._check_usable()
        object_id = new_object_id()
        self.table.add(object_id)
        request = m.CreateGroup(group_id, bundles, strategy, detached)
        self.inbox.put(self._create_group, (object_id, request))
        return ObjectRef(object_id, self.address, self)

    def remove_group(self, group_id: str) -> None:
        """End what runs in a placement group and free its bundles."""
        self.inbox.put(self._remove_group, group_id)

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
            self.table.watch(missing, waiter)
            with self.telling_that_we_wait(missing):
                try:
                    done = waiter.wait(timeout)
                finally:
                    waiter.over = True
            if waiter.failed is not None:
                return [payloads.load(waiter.failed)]
            if not done:
                raise TimeoutError
        return [self._load(entry) for entry in entries]

    def wait(self, refs: Sequence[ObjectRef], num_ready: int, timeout: float | None) -> list[int]:
        """Wait until *num_ready* of *refs* are ready, or *timeout* seconds; returns the positions of the first."""
        missing = [entry for entry in map(self._entry, refs) if entry.payload is None]
        needed = num_ready - (len(refs) - len(missing))
        if needed > 0:
            self._request(missing)
            waiter = Waiter(needed)
            self.table.watch(missing, waiter)
            with self.telling_that_we_wait(missing):
                try:
                    waiter.wait(timeout)
                finally:
                    waiter.over = True
        ready = (position for position, ref in enumerate(refs) if self._entry(ref).payload is not None)
        return list(itertools.islice(ready, num_ready))

    def find_ready(self, refs: Sequence[object]) -> int | None:
        """Return the position of the first ref that is ready; stops at whatever is no ref of ours."""
        find = self.table.get
        for position, ref in enumerate(refs):
            if type(ref) is not ObjectRef:
                return None
            entry = find(ref._id)
            if entry is None or ref._owner is not self:
                return None
            if entry.payload is not None:
                return position
        return None

    def watch(self, refs: Sequence[ObjectRef], watcher: objects.Watcher) -> Sequence[objects.Entry]:
        """Have *watcher* called with each ref's entry when it is ready, on whatever thread; at once if it is.

        Returns the entries.
        """
        entries = [self._entry(ref) for ref in refs]
        self._request([entry for entry in entries if entry.payload is None])
        self.table.watch(entries, watcher)
        return entries

    def explain(self, topic: str, subject: str, seconds: float) -> Explanation:
        """Say why an ``object`` is not ready, or what an ``actor`` does; not on the event loop's own thread."""
        self._check_usable()

        async def explain() -> Explanation:
            await asyncio.sleep(0)  # behind what this thread has submitted
            return await self.explainer.explain(topic, subject, (), seconds)

        return asyncio.run_coroutine_threadsafe(explain(), self.loop).result(2 * seconds + ANSWER_TIMEOUT)

    async def wait_async(self, ref: ObjectRef) -> objects.Entry:
        """Wait until *ref* is ready, on the caller's own event loop."""
        entry = self._entry(ref)
        if entry.payload is None:
            loop = asyncio.get_running_loop()
            ready = asyncio.Event()

            def wake(_: objects.Entry) -> None:
                with contextlib.suppress(RuntimeError):  # the caller's loop has ended
                    loop.call_soon_threadsafe(ready.set)

            self._request([entry])
            self.table.when_ready(entry, wake)
            with self.telling_that_we_wait([entry]):
                try:
                    await ready.wait()
                finally:
                    self.table.forget_waiter(entry, wake)
        return entry

    async def get_async(self, ref: ObjectRef) -> Any:
        """Wait for the value of *ref* on the caller's own event loop."""
        entry = await self.wait_async(ref)
        if self.needs_fetch(entry.payload):
            return await asyncio.to_thread(self._load, entry)
        return self._load(entry)

    def cancel(self, object_id: str, *, force: bool = False, recursive: bool = True) -> None:
        """Stop the work that makes an object; harmless if it has ended."""
        self.inbox.put(lambda _: self._cancel(object_id, force, recursive), None)

    def is_actor_call(self, object_id: str) -> bool:
        """Whether an object that is not ready is to be made by a call of an actor."""
        answer: concurrent.futures.Future[bool] = concurrent.futures.Future()

        def look(_: None) -> None:
            work = self.results.maker(object_id)
            answer.set_result(work is not None and bool(work.target.method))

        self.inbox.put(look, None)  # behind its submission
        return answer.result(ANSWER_TIMEOUT)

    def hold(self, object_id: str, owner_address: str) -> ObjectRef:
        """Make a ref that has arrived inside a value."""
        return self.ownership.hold_from_any_thread(object_id, owner_address)

    def drop_nowait(self, object_id: str) -> None:
        """Let one ref go; called by the garbage collector."""
        self.inbox.put(self.ownership.drop, object_id)

    def drop_generator_nowait(self, yields: Yields) -> None:
        """Nobody will take more values of a generator; called by the garbage collector."""
        self.inbox.put(self._drop_generator, yields)

    def tell_consumed(self, yields: Yields) -> None:
        """A value of a generator that waits for its consumer was taken."""
        self.inbox.put(self._tell_consumed, yields)

    def is_end(self, ref: ObjectRef) -> bool:
        """Whether a generator ends where *ref* would be its next value."""
        return self._entry(ref).payload == payloads.NO_MORE

    def num_objects(self) -> int:
        """How many objects this process owns or borrows."""
        return len(self.table)

    # -- life ----------------------------------------------------------------------------------------------------

    async def start(self) -> None:
        """Listen for peers; a driver also greets the controller (an executor does so when it first has to)."""
        await self.peers.start(self.config.host, self.config.controller, self.config.owner_id, self.config.job_id)
        if self.config.is_driver:
            welcome = await self.controller.connect()
            self.cluster_id, self.nodes = welcome.cluster_id, welcome.nodes
            self.num_nodes = len(welcome.nodes)
            if self.store is None:
                stores = (Store(store, worker) for _, worker, _, store, _ in welcome.nodes)
                self.store = next((store for store in stores if store.reachable()), None)

    async def close(self, timeout: float = 2.0) -> None:
        """Let everything go: results still awaited fail, and the cluster forgets this owner."""
        if self.closing:
            return
        self.closing = True
        self._fail_everything(NotInitializedError("shoal was shut down."))
        self.ownership.free_all()
        await self.controller.close(timeout)
        await self.peers.close(timeout)
        await self._scope.close()

    # -- user-thread parts ---------------------------------------------------------------------------------------

    def _check_usable(self) -> None:
        if self.closing:
            raise NotInitializedError("shoal was shut down in this process. Call `shoal.init()` first.")
        if self._lost:
            raise ClusterLostError(self._lost)

    def _work(
        self, target: Target, args: tuple[Any, ...], kwargs: dict[str, Any], *holds: ObjectRef, inline: bool = False
    ) -> Work:
        """Make the record of a submission; *inline* keeps large arguments out of the store."""
        self._check_usable()
        context = get_current()
        if context is None:
            cell = target.cell if target.cell is not None else session.current_cell()
            recipe = target.recipe_for(cell, self.address, 0)
        else:
            if context.depth >= MAX_DEPTH:
                raise NestingError(
                    f"`{target.name}` was not submitted: {MAX_DEPTH} tasks wait for one another already. Is there a "
                    "recursion without end?",
                    limit=MAX_DEPTH,
                )
            cell = target.cell if target.cell is not None else context.cell
            recipe = target.recipe_for(cell, context.driver, context.depth + 1)
        task_id = new_task_id()
        payload = payloads.EMPTY_ARGUMENTS
        dependencies: tuple[ObjectRef, ...] = ()
        if args or kwargs:
            args, kwargs, dependencies = take_dependencies(args, kwargs)
            frames, contained = dumps((args, kwargs), f"arguments of {target.name}")
            store = None if inline else self.store
            payload = payloads.from_frames(frames, store, self._segment_name(task_id))
            holds = (*contained, *holds)
        return Work(
            task_id=task_id,
            object_id="obj" + task_id[4:],
            target=target,
            recipe=recipe,
            args=payload,
            dependencies=dependencies,
            holds=holds,
            parent="" if context is None else context.task_id,
        )

    def _own(self, work: Work) -> Returned:
        """Make the refs of a submission's results."""
        count = work.recipe.num_returns
        if count == 1:
            self.table.add(work.object_id)
            return ObjectRef(work.object_id, self.address, self)
        if work.target.streams:
            yields = work.yields = Yields(self, work.task_id, work.object_id)
            return ObjectRefGenerator(self, yields, bounded=bool(work.target.max_pending))
        refs = []
        for index in range(count):
            object_id = f"{work.object_id}.{index}"
            self.table.add(object_id)
            refs.append(ObjectRef(object_id, self.address, self))
        return refs or None

    def _segment_name(self, what: str) -> str:
        return f"{self.config.owner_id}.{what}"

    def _entry(self, ref: ObjectRef) -> objects.Entry:
        if ref._owner is not self:
            raise NotInitializedError(f"`{ref!r}` belongs to a cluster session that has ended.")
        entry = self.table.get(ref.id)
        assert entry is not None, "a live ref always has an entry"
        if entry.payload is None or self.closing:
            self._check_usable()
        return entry

    def _request(self, missing: list[objects.Entry]) -> None:
        for entry in missing:
            if entry.owner:
                self.inbox.put(self.ownership.locate, entry)

    @staticmethod
    def _wakes_early(entry: objects.Entry) -> m.Payload | None:
        payload = entry.payload
        return payload if payload is not None and payloads.is_error(payload) else None

    @contextlib.contextmanager
    def telling_that_we_wait(self, entries: Sequence[objects.Entry]) -> Any:
        """Let it be known what the caller waits for, and that its CPU is free meanwhile."""
        hook, context = self.waiting_hook, get_current()
        wait = (context.task_id if context is not None else "", entries, time.monotonic())
        self._waits[id(wait)] = wait
        try:
            if hook is not None:
                hook(True)
            yield
        finally:
            if hook is not None:
                hook(False)
            del self._waits[id(wait)]

    @staticmethod
    def needs_fetch(payload: m.Payload | None) -> bool:
        return payload is not None and payload[0] == payloads.SEGMENT and not os.path.exists(payload[2])

    def _load(self, entry: objects.Entry) -> Any:
        assert entry.payload is not None
        return self.load(entry.payload)

    def load(self, payload: m.Payload) -> Any:
        """Return the value of *payload* or raise its error; fetches it first if it lies on another machine.

        Not for the event loop's own thread.
        """
        if not self.needs_fetch(payload):
            return payloads.load(payload)
        fetch = asyncio.run_coroutine_threadsafe(self._segments.fetch(payload), self.loop)
        return payloads.load(payload, fetch.result())

    # -- for the owner's parts, on the loop ----------------------------------------------------------------------

    def start_soon(self, coroutine: Coroutine[Any, Any, None]) -> None:
        """Run *coroutine* in the background, to the owner's end at most."""
        self._scope.start(coroutine)

    def send_to(self, address: str, message: m.Message) -> None:
        """Send *message* to a peer."""
        self.peers.send(address, message)

    def when_ready(self, work: Work, go_on: Callable[[], None]) -> None:
        """Call *go_on* once every dependency is ready, or fail the work with the first error among them."""
        left = len(work.dependencies)

        def arrived(entry: objects.Entry) -> None:
            nonlocal left
            payload = entry.payload
            assert payload is not None
            if not self.results.awaited(work):
                return
            if payloads.is_error(payload):
                self.actors.give_up(work)
                self.results.complete(work, payload, failed=True)
                return
            left -= 1
            if not left:
                go_on()

        for ref in work.dependencies:
            entry = self._entry(ref)
            if entry.payload is None and entry.owner:
                self.ownership.locate(entry)
            # The value may come on a user's thread (`put`), so the rest is always done from the inbox.
            self.table.when_ready(entry, lambda entry: self.inbox.put(arrived, entry))

    def is_ready(self, ref: ObjectRef) -> bool:
        return self._entry(ref).payload is not None

    def waits_of(self, task_id: str) -> tuple[list[str], float] | None:
        """Return the objects that a task waits for here and when that began; None if it does not wait."""
        waits = [wait for wait in list(self._waits.values()) if wait[0] == task_id]
        object_ids = [entry.object_id for _, entries, _ in waits for entry in entries if entry.payload is None]
        return (object_ids, min(since for _, _, since in waits)) if object_ids else None

    def group_of(self, object_id: str) -> str:
        """Return the placement group that an object becomes ready with; "" if it is none's."""
        return next((group_id for group_id, ready in self._groups.items() if ready == object_id), "")

    def dependency_payloads(self, work: Work) -> tuple[m.Payload, ...]:
        return tuple(self._entry(ref).payload or () for ref in work.dependencies)

    def after_stream(self, address: str, go_on: Callable[[], None]) -> None:
        """Call *go_on* when all that a dead peer has sent has been read: its last answers, overtaken by the news."""
        if self.peers.stream(address) is None:
            go_on()
            return
        waiting = self._at_end.setdefault(address, [])
        waiting.append(go_on)

        def too_late() -> None:
            if go_on in waiting:
                waiting.remove(go_on)
                go_on()

        self.loop.call_later(LAST_ANSWERS, too_late)

    def is_retried(self, work: Work, payload: m.Payload) -> bool:
        """Whether work has ended with an error after which it is to be run again, if it has retries left."""
        retried = work.target.retry_exceptions
        if retried is False or not payloads.is_error(payload) or not self.results.awaited(work):
            return False
        if retried is True:
            return True
        try:
            payloads.load(payload)
        except BaseException as error:  # whatever user code raised
            return isinstance(error, retried)
        return False

    def timed_out(self, work: Work) -> None:
        """The time that work was given is over."""
        if not self.results.awaited(work):
            return
        timeout = work.target.timeout or 0.0
        where = "while it ran" if work.sent else "before it could begin"
        error = TaskTimeoutError(
            f"`{work.target.name}` was not done within {timeout:g} s and was cancelled {where}.",
            task_id=work.task_id,
            timeout=timeout,
        )
        is_call = self.actors.is_call(work.task_id)
        self.results.complete(work, payloads.from_error(error), failed=True)
        if is_call:
            self.actors.cancel(work, recursive=True)
        else:
            self.tasks.cancel(work.task_id)
            # Code that does not heed an interrupt goes with its process.
            self.loop.call_later(TIMEOUT_GRACE, lambda: self.tasks.cancel(work.task_id, force=True))

    def dead_on_arrival(self, work: Work) -> bool:
        """Fail work that was submitted in the moment when the cluster went."""
        if not self._lost and not self.closing:
            return False
        error = ClusterLostError(self._lost) if self._lost else NotInitializedError("shoal was shut down.")
        self.results.complete(work, payloads.from_error(error), failed=True)
        return True

    def cancel_children(self, parent: str) -> None:
        """Stop everything that a task has submitted, wherever it is. Its children do likewise."""
        for work in (*self.tasks.works(), *self.actors.works()):
            if work.parent == parent:
                self._cancel(work.object_id, force=False, recursive=True)

    def report(self) -> None:
        """Tell the controller the news now."""
        if self.controller.connected and not self.closing and self.results.stats.changed:
            self.controller.tell(m.OwnerStats(*self.results.stats.take_changes()))

    # -- messages ------------------------------------------------------------------------------------------------

    def _hello(self) -> m.OwnerHello:
        c = self.config
        return m.OwnerHello(
            m.PROTOCOL_VERSION, c.owner_id, self.job_id, self.address, c.namespace, c.is_driver, versions_here()
        )

    def _controller_message(self, message: m.Message) -> None:
        match message:
            case m.LeaseGranted():
                self._scope.start(self.tasks.granted(message))
            case m.Reclaim():
                self.tasks.reclaim(message)
            case m.LeaseLost():
                self.tasks.lease_lost(message)
            case m.Infeasible():
                self._infeasible(message)
            case m.ActorAlive():
                self.actors.alive(message)
            case m.ActorRestarting():
                self.actors.restarting(message)
            case m.ActorDead():
                self.actors.dead(message)
            case m.GroupReady(group_id):
                self._group_settled(group_id, payloads.NONE)
            case m.GroupFailed(group_id, reason):
                text = f"`{group_id}` can never be reserved: {reason}."
                self._group_settled(group_id, payloads.from_error(InfeasibleError(text, asked={}, largest={})))
            case m.ClusterSize(num_nodes):
                self.num_nodes = num_nodes

    def _infeasible(self, message: m.Infeasible) -> None:
        kind, largest = class_from_wire(message.kind), from_wire(message.largest)
        reason = message.reason or f"the most any node has is {describe(largest)}"
        error = InfeasibleError(
            f"No node can ever satisfy {kind.describe()}: {reason}. Ask for less, or add a node that has it.",
            asked=dict(kind.resources),
            largest=dict(largest),
        )
        if message.actor_id:
            self.actors.infeasible(message.actor_id, error)
        else:
            self.tasks.infeasible(kind, error)

    def _peer_message(self, stream: Stream, message: m.Message) -> None:
        match message:
            case m.Done():
                self._done(stream, message)
            case m.Yielded():
                self._yielded(message)
            case m.Output():
                if self._on_output is not None:
                    self._on_output(message)
            case m.Returned():
                self.tasks.returned(message)
            case m.Resumed(lease_id):
                self.tasks.resumed(lease_id)
            case m.Locate(object_id):
                self.ownership.answer_locate(stream, object_id)
            case m.Located():
                self.ownership.located(message)
            case m.Borrow():
                self.ownership.borrowed(message)
            case m.SegmentData(request, data):
                self._segments.arrived(request, data)
            case m.Explain():
                self.explainer.asked(stream, message)
            case m.Explained():
                self.explainer.answered(message)
            case _:
                if self._on_message is not None:
                    self._on_message(stream, message)

    def _done(self, stream: Stream, message: m.Done) -> None:
        part: TaskRunner | ActorCaller = self.actors if self.actors.is_call(message.task_id) else self.tasks
        work = part.finished(message)
        payload = message.payload
        contained: list[Any] = []
        if message.contained:
            hold = self.ownership.hold_counted
            if payload[0] == payloads.MANY:
                contained = [[hold(*ref) for ref in refs] for refs in message.contained]
            else:
                contained = [hold(*ref) for ref in message.contained]
        if message.retained:
            self.ownership.count_retained_by(stream.peer_id, message.retained)
        if work is None:  # cancelled or lost meanwhile, or to be run again
            self.ownership.free(payload)
        else:
            self.results.complete(work, payload, contained, failed=payloads.is_error(payload), seconds=message.seconds)

    def _yielded(self, message: m.Yielded) -> None:
        work = self.tasks.spec_of(message.task_id) or self.actors.spec_of(message.task_id)
        contained = [self.ownership.hold_counted(*ref) for ref in message.contained]
        yields = work.yields if work is not None else None
        if yields is None or not yields.arrived(message.number, message.payload, contained):
            self.ownership.free(message.payload)

    def _drop_generator(self, yields: Yields) -> None:
        yields.drop()
        if not yields.complete:
            self._cancel(yields.object_id, force=False, recursive=True)

    def _tell_consumed(self, yields: Yields) -> None:
        lease = self.tasks.lease_of(yields.task_id)
        address = lease.address if lease is not None else self.actors.address_of(yields.task_id)
        if address:
            self.peers.send(address, m.Consumed(yields.task_id, yields.taken))

    def _create_group(self, request: tuple[str, m.CreateGroup]) -> None:
        object_id, message = request
        self._groups[message.group_id] = object_id
        self.controller.tell(message)

    def _remove_group(self, group_id: str) -> None:
        self.controller.tell(m.RemoveGroup(group_id))
        error = PlacementGroupError(f"`{group_id}` was removed before it was ready.", group_id=group_id)
        self._group_settled(group_id, payloads.from_error(error))

    def _group_settled(self, group_id: str, payload: m.Payload) -> None:
        """A placement group is ready, or never will be; what comes later changes nothing."""
        object_id = self._groups.pop(group_id, None)
        if object_id is not None:
            self.table.ready(object_id, payload)

    def _cancel(self, object_id: str, force: bool, recursive: bool) -> None:
        work = self.results.maker(object_id)
        if work is not None and not self.actors.cancel(work, recursive=recursive):
            self.tasks.cancel(work.task_id, force=force, recursive=recursive)

    def _peer_lost(self, address: str, owner_id: str) -> None:
        if self.closing:
            return
        for go_on in self._at_end.pop(address, ()):
            go_on()
        self.tasks.peer_lost(address)
        self.actors.peer_lost(address)
        self.ownership.peer_lost(address, owner_id)
        if self._on_peer_lost is not None:
            self._on_peer_lost(address)
        self._segments.holder_lost(address)

    def _cluster_lost(self, reason: str) -> None:
        if not self.closing:
            self._lost = reason
            self._fail_everything(ClusterLostError(reason))

    def _fail_everything(self, error: ShoalError) -> None:
        """Nothing pending can be finished: give every waiting ref this error."""
        self.results.forget()
        self.ownership.fail_all(payloads.from_error(error))

    def _after_batch(self) -> None:
        self.tasks.flush_if_due()

    def _schedule_report(self) -> None:
        if not self._report_due and self.controller.connected:
            self._report_due = True
            self.loop.call_later(REPORT_INTERVAL, self._report)

    def _report(self) -> None:
        self._report_due = False
        self.report()


__all__ = ["Owner", "OwnerConfig"]
