"""An owner as user code sees it: work goes in, refs come out, and values are waited for.

What differs between a process of a cluster (:class:`shoal.runtime.owner.Owner`) and one that does all work itself
(:class:`shoal.runtime.inline.InlineOwner`) is in the methods at the end. All of it may be called on any thread.
"""

from __future__ import annotations

import abc
import asyncio
import contextlib
import itertools
import logging
import time
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from shoal.machines import objects
from shoal.model import messages as m
from shoal.model.errors import (
    ClusterLostError,
    NestingError,
    NotInitializedError,
    ObjectLostError,
    ObjectStoreFullError,
)
from shoal.model.explanation import Explanation
from shoal.model.ids import new_object_id, new_task_id
from shoal.model.options import ActorOptions
from shoal.model.resources import Resources
from shoal.observe.habits import Habits
from shoal.runtime import payload as payloads
from shoal.runtime import session
from shoal.runtime.context import get_current
from shoal.runtime.lineage import STORED, Origin
from shoal.runtime.memory_reporter import name_holders
from shoal.runtime.refs import ObjectRef
from shoal.runtime.results import Results
from shoal.runtime.serialization import Frame, dumps
from shoal.runtime.store import Store, is_here
from shoal.runtime.waiting import NotReadyError, Waiter
from shoal.runtime.work import STOP, Target, Work, take_dependencies
from shoal.runtime.yields import ObjectRefGenerator, Yields

logger = logging.getLogger("shoal")
#: Tasks that may wait for one another in a row. Each holds a process while it waits.
MAX_DEPTH = 128

#: Seconds between two looks at a lost value that is being made again.
RECOVERY_POLL = 0.5

#: Refs of a long list that are looked at first, and seconds that they are waited for.
HEAD, MOMENT = 50, 0.001

#: What ``.remote()`` returns: as many refs as the task has results, or their stream.
Returned = ObjectRef | list[ObjectRef] | ObjectRefGenerator | None


class BaseOwner(abc.ABC):
    """See the module's description."""

    results: Results

    def __init__(self, owner_id: str, store: Store | None) -> None:
        self.owner_id = owner_id
        self.store = store
        self.table = objects.ObjectTable()
        self.habits = Habits()
        self.closing = False
        self._lost = ""
        #: Whether the last long list's first ready refs were at its head.
        self._first_come_first = True
        #: Called on a thread that is about to wait for a value, and when it goes on; for executors.
        self.waiting_hook: Callable[[bool], None] | None = None
        #: What threads and coroutines here wait for, and since when: the task each belongs to comes first.
        self._waits: dict[int, tuple[str, Sequence[objects.Entry], float]] = {}

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
        self._start_task(work)
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
            self._count_call(actor_id, target)
        returned = self._own(work)
        self._start_call(actor_id, work)
        return returned

    def put(self, value: Any) -> ObjectRef:
        """Store *value* and return a ref to it; large values go to this node's shared memory once."""
        self.check_usable()
        frames, contained = dumps(value)
        if contained:
            self._check_own(contained)
        object_id = new_object_id()
        payload = self._stored(frames, self.store, object_id)
        entry = self.table.add(object_id, payload, contained)
        if payload[0] == payloads.SEGMENT:
            entry.lineage = Origin(STORED, "put", self._cell())
            self._has_put()
        return ObjectRef(object_id, self.address, self)

    def _has_put(self) -> None:  # noqa: B027 - not all have anybody to tell
        """A value went into the store; on the thread that put it."""

    @staticmethod
    def _cell() -> str | None:
        context = get_current()
        return context.cell if context is not None else session.current_cell()

    def get(self, refs: Sequence[ObjectRef], timeout: float | None, *, return_exceptions: bool = False) -> list[Any]:
        """Wait for the values of *refs* and return them in order.

        The first error raises as soon as it is there; with *return_exceptions* errors stand in their values' places.

        Raises
        ------
        NotReadyError
            Not all were ready within *timeout* seconds.
        """
        deadline = None if timeout is None else time.monotonic() + timeout
        entries = [self._entry(ref) for ref in refs]
        missing = [entry for entry in entries if entry.payload is None]
        if missing:
            self._request(missing)
            waiter = Waiter(len(missing), None if return_exceptions else self._wakes_early)
            self.table.watch(missing, waiter)
            begin = time.monotonic()
            with self.telling_that_we_wait(missing):
                try:
                    done = waiter.wait(timeout)
                finally:
                    waiter.over = True
            self.habits.waited(len(missing), time.monotonic() - begin, alone=self.results.is_idle)
            if waiter.failed is not None:
                return [payloads.load(waiter.failed)]
            if not done:
                raise NotReadyError
        load = self._load_or_return_error if return_exceptions else self._load
        return [load(entry, deadline) for entry in entries]

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

    def find_first(self, refs: Sequence[object], timeout: float | None) -> int | None:
        """Return the position of a ref that is ready, looking at as few of *refs* as will do; None if none is known.

        Work ends more or less in the order submitted. As long as that is so, the first refs are looked at, and waited
        for a moment, before all others: in a loop that takes one after the other that would make it quadratic.
        """
        if self._first_come_first:
            head = refs[:HEAD]
            position = self.find_ready(head)
            if position is None and self._wait_a_moment(head, timeout):
                position = self.find_ready(head)
            if position is not None:
                return position
        position = self.find_ready(refs)
        self._first_come_first = position is None or position < HEAD
        return position

    def _wait_a_moment(self, refs: Sequence[object], timeout: float | None) -> bool:
        """Wait for one of *refs*; returns whether one came."""
        entries = []
        for ref in refs:
            if type(ref) is not ObjectRef or ref._owner is not self:
                return False
            entry = self._entry(ref)
            if entry.owner:  # its owner has to be asked
                return False
            entries.append(entry)
        waiter = Waiter(1)
        self.table.watch(entries, waiter)
        try:
            return waiter.wait(MOMENT if timeout is None else min(timeout, MOMENT))
        finally:
            waiter.over = True

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

    def life(self) -> ObjectRef:
        """Return a ref that never becomes ready: where it is borrowed it fails, once this process has gone.

        So a process can wait for the end of another that it has nothing else to do with.
        """
        object_id = new_object_id()
        self.table.add(object_id)
        return ObjectRef(object_id, self.address, self)

    def when_done(self, ref: ObjectRef, callback: Callable[[ObjectRef], object]) -> None:
        """See :meth:`shoal.ObjectRef.add_done_callback`."""
        entry = self._entry(ref)

        def done(_: objects.Entry) -> None:
            try:
                callback(ref)
            except Exception:  # boundary: it is user code, and this thread goes on
                logger.exception("a callback of `%s` has failed", ref.id)

        if entry.payload is None:
            self._request([entry])
        self.table.when_ready(entry, done)

    async def get_async(self, ref: ObjectRef) -> Any:
        """Wait for the value of *ref* on the caller's own event loop."""
        entry = await self.wait_async(ref)
        payload = entry.payload
        if payload is not None and not self.needs_fetch(payload):
            try:
                return self.load(payload)
            except ObjectLostError:
                if payload[0] != payloads.SEGMENT:
                    raise
        return await asyncio.to_thread(self._load, entry)

    def is_end(self, ref: ObjectRef) -> bool:
        """Whether a generator ends where *ref* would be its next value."""
        return self._entry(ref).payload == payloads.NO_MORE

    def error_of(self, ref: ObjectRef) -> BaseException | None:
        """Return what the work that made *ref* has failed with; None while it has not."""
        payload = self._wakes_early(self._entry(ref))
        if payload is None:
            return None
        try:
            payloads.load(payload)
        except BaseException as error:  # whatever user code raised
            return error
        return None

    def is_ready(self, ref: ObjectRef) -> bool:
        return self._entry(ref).payload is not None

    def location_of(self, object_id: str) -> m.Payload | None:
        """Return where a large value lies, for who gets a ref to it: it need not ask then.

        One that contains refs has to be asked for, as its reader becomes a holder of those.
        """
        entry = self.table.get(object_id)
        payload = entry.payload if entry is not None and not entry.contained else None
        return payload if payload is not None and payload[0] == payloads.SEGMENT else None

    def num_objects(self) -> int:
        """How many objects this process owns or borrows."""
        return len(self.table)

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

    def waits_of(self, task_id: str) -> tuple[list[str], float] | None:
        """Return the objects that a task waits for here and when that began; None if it does not wait."""
        waits = [wait for wait in list(self._waits.values()) if wait[0] == task_id]
        object_ids = [entry.object_id for _, entries, _ in waits for entry in entries if entry.payload is None]
        return (object_ids, min(since for _, _, since in waits)) if object_ids else None

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

    @staticmethod
    def needs_fetch(payload: m.Payload | None) -> bool:
        return payload is not None and payload[0] == payloads.SEGMENT and not is_here(payload[2])

    @property
    def lost(self) -> str:
        """Why there is no cluster any more; "" while there is."""
        return self._lost

    def check_usable(self) -> None:
        """Refuse to do anything once the session has ended."""
        if self.closing:
            raise NotInitializedError(
                "The session that this belongs to has ended: shoal was shut down. `shoal.init()` begins another."
            )
        if self._lost:
            raise ClusterLostError(self._lost)

    def _work(
        self, target: Target, args: tuple[Any, ...], kwargs: dict[str, Any], *holds: ObjectRef, inline: bool = False
    ) -> Work:
        """Make the record of a submission; *inline* keeps large arguments out of the store."""
        self.check_usable()
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
            payload = self._stored(frames, store, task_id)
            if payload[0] == payloads.SEGMENT:
                self.habits.sent(target.name, frames[1:])
            holds = (*contained, *holds)
        if target.exported is not None and target.exported.contained:
            holds = (*target.exported.contained, *holds)
        if holds or dependencies:
            self._check_own((*dependencies, *holds))
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

    def _stored(self, frames: list[Frame], store: Store | None, what: str) -> m.Payload:
        """Make a payload of *frames*.

        Raises
        ------
        ObjectStoreFullError
            No room: the error says what takes it.
        """
        try:
            return payloads.from_frames(frames, store, self._segment_name(what))
        except ObjectStoreFullError as error:
            raise name_holders(self, error) from None

    def _segment_name(self, what: str) -> str:
        return f"{self.owner_id}.{what}"

    def _check_own(self, refs: Iterable[ObjectRef]) -> None:
        """Refuse refs of another session: nobody here could ever get their values."""
        for ref in refs:
            if ref._owner is not self:
                raise NotInitializedError(
                    f"`{ref!r}` belongs to a session that has ended: its value, or the actor it stands for, is gone. "
                    "Make it again in this one."
                )

    def _entry(self, ref: ObjectRef) -> objects.Entry:
        if ref._owner is not self:
            self._check_own([ref])
        entry = self.table.get(ref.id)
        assert entry is not None, "a live ref always has an entry"
        if entry.payload is None or self.closing:
            self.check_usable()
        return entry

    def _load(self, entry: objects.Entry, deadline: float | None = None) -> Any:
        """Return the value; one that is lost is waited for until *deadline* (monotonic), as it may be made again."""
        while True:
            payload = entry.payload
            if payload is not None:
                try:
                    return self.load(payload)
                except ObjectLostError:
                    if payload[0] != payloads.SEGMENT or not self.recover(entry, payload):
                        raise
            self._wait_again(entry, payload, deadline)

    def _wait_again(self, entry: objects.Entry, lost: m.Payload | None, deadline: float | None) -> None:
        """Wait until another payload than the *lost* one is known.

        Raises
        ------
        NotReadyError
            It was not by *deadline*.
        """
        with self.telling_that_we_wait([entry]):
            while entry.payload is None or entry.payload is lost:
                self.check_usable()
                if deadline is not None and time.monotonic() > deadline:
                    raise NotReadyError
                waiter = Waiter(1)
                self.table.watch([entry], waiter)
                waiter.wait(RECOVERY_POLL)
                waiter.over = True
                if entry.payload is lost:
                    time.sleep(0.001)  # the word that it is lost has not been heard

    def _load_or_return_error(self, entry: objects.Entry, deadline: float | None = None) -> Any:
        try:
            return self._load(entry, deadline)
        except BaseException as error:
            if entry.payload is None or not payloads.is_error(entry.payload):
                raise  # of this thread: it was interrupted, or the value could not be fetched
            return error

    @staticmethod
    def _wakes_early(entry: objects.Entry) -> m.Payload | None:
        payload = entry.payload
        return payload if payload is not None and payloads.is_error(payload) else None

    # -- what an owner does about it -----------------------------------------------------------------------------

    @property
    @abc.abstractmethod
    def address(self) -> str:
        """Where peers reach this process."""

    @abc.abstractmethod
    def _start_task(self, work: Work) -> None:
        """Have a task run."""

    @abc.abstractmethod
    def create_prepared_actor(self, actor_id: str, work: Work, options: ActorOptions) -> None:
        """Have an actor started, after :meth:`prepare_actor`."""

    @abc.abstractmethod
    def _start_call(self, actor_id: str, work: Work) -> None:
        """Have a method of an actor called."""

    @abc.abstractmethod
    def _count_call(self, actor_id: str, target: Target) -> None:
        """Refuse a call that would be one too many under way."""

    @abc.abstractmethod
    def _request(self, missing: list[objects.Entry]) -> None:
        """Somebody waits for these: see to it that they come."""

    @abc.abstractmethod
    def kill_actor(self, actor_id: str, *, restart: bool = False) -> None:
        """End an actor now; with *restart* as if it had crashed."""

    @abc.abstractmethod
    def ask(self, make: Callable[[int], m.Message]) -> Any:
        """Ask the controller and wait for its answer; not on the event loop's own thread.

        Raises
        ------
        ClusterLostError
            There is no controller any more, or it gave no answer.
        """

    @abc.abstractmethod
    def tell_metrics(self) -> None:
        """Have the controller told at once what this process has counted in its metrics, before anything else."""

    @abc.abstractmethod
    def create_group(
        self, group_id: str, bundles: tuple[Resources, ...], strategy: str, *, detached: bool
    ) -> ObjectRef:
        """Ask for a placement group; the ref returned becomes ready when its bundles are reserved."""

    @abc.abstractmethod
    def remove_group(self, group_id: str) -> None:
        """End what runs in a placement group and free its bundles."""

    @abc.abstractmethod
    def explain(self, topic: str, subject: str, seconds: float) -> Explanation:
        """Say why an ``object`` is not ready, or what an ``actor`` does; not on the event loop's own thread."""

    @abc.abstractmethod
    def cancel(self, object_id: str, *, force: bool = False, recursive: bool = True) -> None:
        """Stop the work that makes an object; harmless if it has ended."""

    @abc.abstractmethod
    def catch_up(self, seconds: float = ...) -> None:
        """Return when everything that this thread has submitted is counted; not on the event loop's own thread.

        Raises
        ------
        TimeoutError
            That took longer than *seconds*.
        """

    @abc.abstractmethod
    def cancel_cell(self, tag: str, *, force: bool = False) -> None:
        """Stop all work that a cell has submitted here, and what that has submitted; harmless if there is none.

        By *force* the processes of its tasks are ended; those of actors are not.
        """

    @abc.abstractmethod
    def is_actor_call(self, object_id: str) -> bool:
        """Whether an object that is not ready is to be made by a call of an actor."""

    @abc.abstractmethod
    def hold(self, object_id: str, owner_address: str, location: m.Payload | None = None) -> ObjectRef:
        """Make a ref that has arrived inside a value; *location* is where its own value was when it set out."""

    @abc.abstractmethod
    def drop_nowait(self, object_id: str) -> None:
        """Let one ref go; called by the garbage collector."""

    @abc.abstractmethod
    def drop_generator_nowait(self, yields: Yields) -> None:
        """Nobody will take more values of a generator; called by the garbage collector."""

    @abc.abstractmethod
    def tell_consumed(self, yields: Yields) -> None:
        """A value of a generator that waits for its consumer was taken."""

    def works(self) -> list[Work]:
        """Return the work of this process that has not ended, and actors' creations that are kept for restarts."""
        return self.results.pending()

    def ask_stores(self, seconds: float) -> tuple[dict[str, m.SegmentList | None], dict[str, str]]:
        """Return what each node's store has, by node, and what other processes are called, by id."""
        return {}, {}

    def has_left(self, node: str) -> bool:
        """Whether the node at this address is known to have left the cluster."""
        return False

    def recover(self, entry: objects.Entry, payload: m.Payload) -> bool:
        """Have a value made again that cannot be read where *payload* says; returns False if that cannot be."""
        return False

    @abc.abstractmethod
    def load(self, payload: m.Payload) -> Any:
        """Return the value of *payload* or raise its error; fetches it first if it lies on another machine.

        Not for the event loop's own thread.
        """

    @abc.abstractmethod
    async def close(self, timeout: float = 2.0) -> None:
        """Let everything go: results still awaited fail."""
