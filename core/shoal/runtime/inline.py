"""The owner of ``shoal.init(inline=True)``: work runs in the calling process and thread, as soon as it is submitted.

For looking closely: breakpoints stop, profilers see everything, and errors keep their frames for a post-mortem look.
What travels to a cluster is pickled and copied here too, so that what works here works there. There is no
parallelism: a call has ended when ``.remote()`` returns. Only generators wait for their consumer.
"""

from __future__ import annotations

import asyncio
import bdb
import contextlib
import dataclasses
import inspect
import threading
from collections import deque
from collections.abc import Callable, Coroutine, Iterator
from types import TracebackType
from typing import Any

from shoal.machines import objects
from shoal.machines.actors import Key, Name, as_claimed
from shoal.model import messages as m
from shoal.model.errors import ActorDiedError, NotInitializedError
from shoal.model.explanation import Explanation
from shoal.model.ids import new_object_id, random_id
from shoal.model.options import ENDLESS, ActorOptions
from shoal.model.resources import Resources
from shoal.observe.duration_metric import DURATIONS, duration_changes
from shoal.observe.metric_book import MetricBook
from shoal.observe.metrics import REGISTRY
from shoal.runtime import context as contexts
from shoal.runtime import payload as payloads
from shoal.runtime.base_owner import BaseOwner
from shoal.runtime.calling import Caller, Item, Outcome
from shoal.runtime.refs import ObjectRef
from shoal.runtime.results import Results
from shoal.runtime.work import STOP, Target, Work
from shoal.runtime.yields import Yields

#: What stands for addresses, nodes and executors.
INLINE = "inline"
#: Errors whose frames are kept for the debugger.
MAX_ERRORS = 16
#: What ends the cell, not the task that it came in.
_NOT_THE_TASKS = (KeyboardInterrupt, bdb.BdbQuit)


class InlineOwner(BaseOwner):
    """See the module's description."""

    def __init__(self, namespace: str, total: dict[str, float], labels: dict[str, str]) -> None:
        super().__init__(random_id("driver"), None)
        self.job_id = random_id("job")
        self._namespace = namespace
        self._total = total
        self._labels = labels
        self.results = Results(self.table, lambda payload: None, lambda: None)
        self.metric_book = MetricBook()
        REGISTRY.attach(None)
        self._tasks = _InlineCaller(self)
        self._actors: dict[str, _Actor] = {}
        #: Actors by the object whose life is theirs.
        self._lives: dict[str, str] = {}
        self._names: dict[Key, Name] = {}
        #: Generators that have not ended, by the object that their values belong to.
        self._producers: dict[str, _Producer] = {}
        #: Refs that the garbage collector has let go; it may come at any moment, so they are dropped at the next call.
        self._dropped: deque[str] = deque()
        #: The last errors as they were raised, by payload.
        self._errors: deque[tuple[m.Payload, BaseException, TracebackType | None]] = deque(maxlen=MAX_ERRORS)
        #: Answers what this process knows and its owner does not: ``(topic, details)``.
        self.answer: Callable[[str, tuple[Any, ...]], Any] = lambda topic, details: None

    @property
    def address(self) -> str:
        return INLINE

    def list_actors(self) -> list[tuple[str, str, str, str]]:
        """Return id, name, class and state of every actor that somebody has a handle of."""
        self._settle()
        rows = []
        for actor in self._actors.values():
            exported = actor.work.target.exported
            class_name = exported.name if exported is not None else ""
            rows.append((actor.actor_id, actor.options.name, class_name, "dead" if actor.cause else "alive"))
        return rows

    # -- tasks and generators ------------------------------------------------------------------------------------

    def _start_task(self, work: Work) -> None:
        self.results.expect(work)
        self._run(self._tasks, work)

    def _run(self, caller: _InlineCaller, work: Work, actor_id: str = "") -> Item | None:
        """Run *work* to its end, again after errors that it is retried for; returns its last run."""
        self.results.sent(work)
        failed = [payload for payload in self._payloads_of(work) if payloads.is_error(payload)]
        if failed:
            self.results.complete(work, failed[0], failed=True)
            return None
        retries, attempt = work.target.retries, 0
        while True:
            item = self._item(work, attempt, actor_id)
            with _running(item, self._place(work, actor_id)):
                if work.yields is not None:
                    self._producers[work.object_id] = _Producer(caller, item, work)
                    return item
                outcome = caller.run(item)
            if retries == 0 or not self.is_retried(work, outcome.payload):
                break
            retries, attempt = retries - (retries != ENDLESS), attempt + 1
        self._complete(work, outcome)
        return item

    def _complete(self, work: Work, outcome: Outcome) -> None:
        failed = payloads.is_error(outcome.payload)
        self.results.complete(
            work, outcome.payload, outcome.contained, failed=failed, seconds=outcome.seconds, executor=INLINE
        )

    def _item(self, work: Work, attempt: int, actor_id: str) -> Item:
        recipe = work.recipe
        if work.target.exported is not None:
            exported = work.target.exported
            define = m.Define(exported.function_id, exported.pickled, bool(exported.contained))
            self._tasks.functions.setdefault(exported.function_id, define)
        lease_id = "" if actor_id else INLINE
        context = contexts.TaskContext(
            work.task_id,
            recipe.name,
            lease_id,
            recipe.cell,
            recipe.driver,
            recipe.depth,
            attempt,
            recipe.is_last(attempt),
        )
        return Item(work.message(lease_id, self._payloads_of(work), attempt), recipe, None, context)

    def _payloads_of(self, work: Work) -> tuple[m.Payload, ...]:
        """Return the values that *work* depends on; a generator's are made now."""
        entries = [self._entry(ref) for ref in work.dependencies]
        self._request([entry for entry in entries if entry.payload is None])
        return tuple(entry.payload or () for entry in entries)

    def _request(self, missing: list[objects.Entry]) -> None:
        """Make the next value of each generator that somebody waits for."""
        for entry in missing:
            producer = self._producers.get(entry.object_id.partition(".")[0])
            if producer is not None and entry.payload is None and not producer.advance(self):
                del self._producers[producer.work.object_id]

    def _place(self, work: Work, actor_id: str) -> contexts.Place:
        kind = work.target.kind
        return contexts.Place(INLINE, INLINE, actor_id, self.job_id, dict(kind.resources) if kind else {}, ())

    # -- actors --------------------------------------------------------------------------------------------------

    def create_prepared_actor(self, actor_id: str, work: Work, options: ActorOptions) -> None:
        actor = self._actors[actor_id] = _Actor(actor_id, work, options)
        if options.lifetime != "detached":
            self._lives[work.object_id] = actor_id
        self.results.expect(work)
        self._create(actor)

    def _create(self, actor: _Actor) -> None:
        """Run ``__init__``, at the start and at each restart."""
        actor.caller = _InlineCaller(self, actor_loop=True)
        actor.caller.functions = self._tasks.functions
        work = actor.work
        if self.results.awaited(work):
            self._run(actor.caller, work, actor.actor_id)
            entry = self.table.get(work.object_id)
            payload: m.Payload = (entry.payload if entry is not None else None) or ()
        else:
            item = self._item(work, actor.num_restarts, actor.actor_id)
            with _running(item, self._place(work, actor.actor_id)):
                payload = actor.caller.run(item).payload
        if payload and payloads.is_error(payload):
            actor.creation_error = payload
            self._end(actor, "its `__init__` raised an exception")

    def _start_call(self, actor_id: str, work: Work) -> None:
        self.results.expect(work)
        actor = self._actors.get(actor_id)
        cause = actor.cause if actor is not None else "this process knows no such actor"
        if cause or actor is None or actor.caller is None:
            error = ActorDiedError(
                f"`{work.target.name}` was not answered: the actor is dead, because {cause}.",
                actor_id=actor_id,
                cause=cause,
            )
            answer = (actor.creation_error if actor is not None else ()) or payloads.from_error(error)
            self.results.complete(work, answer, failed=True)
        elif work.target.method == STOP:
            self.results.complete(work, payloads.NONE, failed=False)
            self._end(actor, "it was stopped")
        else:
            item = self._run(actor.caller, work, actor_id)
            if item is not None and item.exits:
                self._end(actor, "it called `shoal.exit_actor()`")

    def _count_call(self, actor_id: str, target: Target) -> None:
        """No calls are under way."""

    def kill_actor(self, actor_id: str, *, restart: bool = False) -> None:
        actor = self._actors.get(actor_id)
        if actor is None or actor.cause:
            return
        limit = actor.options.max_restarts
        if restart and (limit == ENDLESS or actor.num_restarts < limit):
            actor.num_restarts += 1
            actor.forget()
            self._create(actor)
        else:
            self._end(actor, "it was killed")

    def _end(self, actor: _Actor, cause: str) -> None:
        actor.cause = cause
        actor.forget()
        self._names = {key: name for key, name in self._names.items() if name.actor_id != actor.actor_id}

    # -- questions that a controller answers ---------------------------------------------------------------------

    def ask(self, make: Callable[[int], m.Message]) -> Any:
        self.check_usable()
        match make(0):
            case m.ClaimName() as claim:
                return self._claim_name(claim)
            case m.FindActor(request, namespace, name):
                return as_claimed(request, self._names.get((namespace or self._namespace, name)))
            case m.Ask(_, "nodes", _):
                total = tuple(self._total.items())
                return ((INLINE, INLINE, tuple(self._labels.items()), total, total),)
            case m.Ask(_, "names", _):
                return tuple((*key, name.actor_id) for key, name in self._names.items())
            case m.Ask(_, "metrics", _):
                self.tell_metrics()
                return self.metric_book.rows()
            case m.Ask(_, topic, details):
                return self.answer(topic, details)
        return None

    def tell_metrics(self) -> None:
        self.metric_book.add(self.owner_id, self.job_id, *REGISTRY.take())
        durations = duration_changes(self.results.stats.take_durations())
        self.metric_book.add(self.owner_id, self.job_id, (DURATIONS,), durations)

    def _claim_name(self, claim: m.ClaimName) -> m.NameClaimed:
        key = (claim.namespace or self._namespace, claim.name)
        holder = self._names.get(key)
        if holder is None or claim.policy == "replace":
            if holder is not None:
                self._end(self._actors[holder.actor_id], "another took its place")
            holder = self._names[key] = Name(claim.actor_id, self.owner_id, claim.handle, claim.life)
        return as_claimed(claim.request, holder)

    def create_group(
        self, group_id: str, bundles: tuple[Resources, ...], strategy: str, *, detached: bool
    ) -> ObjectRef:
        self.check_usable()
        object_id = new_object_id()
        self.table.add(object_id, payloads.NONE)
        return ObjectRef(object_id, self.address, self)

    def remove_group(self, group_id: str) -> None:
        """Nothing is reserved."""

    def explain(self, topic: str, subject: str, seconds: float) -> Explanation:
        self.check_usable()
        if topic == "actor":
            actor = self._actors[subject]
            return Explanation(f"actor `{subject}`", "dead" if actor.cause else "idle", actor.cause or "inline")
        entry = self.table.get(subject)
        payload = entry.payload if entry is not None else None
        if payload is None:
            return Explanation(f"`{subject}`", "waits", "it is made when somebody waits for it")
        return Explanation(f"`{subject}`", "failed" if payloads.is_error(payload) else "ready", "inline")

    # -- refs ----------------------------------------------------------------------------------------------------

    def cancel(self, object_id: str, *, force: bool = False, recursive: bool = True) -> None:
        """Stop a generator; everything else has ended."""
        producer = self._producers.pop(object_id.partition(".")[0], None)
        if producer is not None:
            producer.cancel(self)

    def catch_up(self, seconds: float = 0.0) -> None:
        """Work is counted when it is submitted."""

    def cancel_cell(self, tag: str, *, force: bool = False) -> None:
        for producer in list(self._producers.values()):
            if producer.work.recipe.cell == tag:
                self.cancel(producer.work.object_id)

    def is_actor_call(self, object_id: str) -> bool:
        producer = self._producers.get(object_id.partition(".")[0])
        return producer is not None and bool(producer.work.target.method)

    def hold(self, object_id: str, owner_address: str, location: m.Payload | None = None) -> ObjectRef:
        self.table.retain(object_id, "")
        return ObjectRef(object_id, owner_address, self)

    def drop_nowait(self, object_id: str) -> None:
        self._dropped.append(object_id)

    def drop_generator_nowait(self, yields: Yields) -> None:
        yields.drop()
        self._dropped.append(yields.object_id)

    def tell_consumed(self, yields: Yields) -> None:
        """The generator makes a value when it is asked for one."""

    def num_objects(self) -> int:
        self._settle()
        return super().num_objects()

    def load(self, payload: m.Payload) -> Any:
        for known, error, traceback in self._errors:
            if known is payload:
                raise error.with_traceback(traceback)
        return payloads.load(payload)

    def keep_error(self, payload: m.Payload, error: BaseException) -> None:
        """Remember *error* with its frames, for whoever gets *payload*."""
        self._errors.append((payload, error, error.__traceback__))

    def check_usable(self) -> None:
        self._settle()
        super().check_usable()

    def _settle(self) -> None:
        """Let go what nobody refers to any more."""
        while self._dropped:
            object_id = self._dropped.popleft()
            if object_id in self._producers:
                self.cancel(object_id)
            for freed in self.table.release(object_id):
                actor = self._actors.pop(self._lives.pop(freed.object_id, ""), None)
                if actor is not None and not actor.cause:
                    self._end(actor, "its last handle is gone")

    async def close(self, timeout: float = 2.0) -> None:
        self.end()

    def end(self) -> None:
        """Let everything go; generators that have not ended are closed."""
        self.closing = True
        for object_id in list(self._producers):
            self.cancel(object_id)
        for actor in list(self._actors.values()):
            self._end(actor, "shoal was shut down")
        gone = payloads.from_error(NotInitializedError("shoal was shut down."))
        for entry in self.table.entries():
            if entry.payload is None:
                self.table.ready(entry.object_id, gone)
        self._errors.clear()


@dataclasses.dataclass(slots=True, eq=False)
class _Actor:
    actor_id: str
    work: Work
    options: ActorOptions
    caller: _InlineCaller | None = None
    num_restarts: int = 0
    #: Why it is dead; "" while it is not.
    cause: str = ""
    creation_error: m.Payload = ()

    def forget(self) -> None:
        """Let the instance go, and the loop that its coroutines ran on."""
        if self.caller is not None:
            self.caller.close()
            self.caller = None


class _InlineCaller(Caller):
    """Runs work on the calling thread, and coroutines there too unless an event loop runs on it already."""

    def __init__(self, owner: InlineOwner, *, actor_loop: bool = False) -> None:
        """With *actor_loop* all coroutines share one loop, as those of an actor do."""
        super().__init__(owner, emit_value=lambda *_: None, waits=lambda _: None)
        self._inline_owner = owner
        self._runner = asyncio.Runner() if actor_loop else None

    def run_coroutine(self, coroutine: Coroutine[Any, Any, Any]) -> Any:
        runner = self._runner
        if runner is None or runner.get_loop().is_running():
            return _off_the_loop(lambda: asyncio.run(coroutine))
        return _off_the_loop(lambda: runner.run(coroutine))

    def blame(self, item: Item, error: BaseException) -> m.Payload:
        if isinstance(error, _NOT_THE_TASKS) and not item.context.cancelled:
            raise error
        payload = super().blame(item, error)
        replaced = item.context.cancelled or isinstance(error, SystemExit)
        if payloads.is_error(payload) and not replaced:
            self._inline_owner.keep_error(payload, error)
        return payload

    def close(self) -> None:
        self.actor = None
        if self._runner is not None and not self._runner.get_loop().is_running():
            _off_the_loop(self._runner.close)


class _Producer:
    """A generator whose values are made one by one, when they are waited for."""

    def __init__(self, caller: _InlineCaller, item: Item, work: Work) -> None:
        self.work = work
        self._caller = caller
        self._item = item
        self._values: Any = None
        self._index = 0

    def advance(self, owner: InlineOwner) -> bool:
        """Make one more value; returns whether there may be another."""
        yields = self.work.yields
        assert yields is not None
        try:
            with _running(self._item, owner._place(self.work, "")):
                payload, contained = self._next()
        except (StopIteration, StopAsyncIteration):
            owner.results.complete(self.work, payloads.NONE, failed=False)
            return False
        except BaseException as error:  # boundary: user code
            owner.results.complete(self.work, self._caller.blame(self._item, error), failed=True)
            return False
        yields.arrived(self._index, payload, contained)
        self._index += 1
        return True

    def _next(self) -> tuple[m.Payload, list[ObjectRef]]:
        if self._values is None:
            values = self._caller.start(self._item)
            if not (inspect.isgenerator(values) or inspect.isasyncgen(values)):
                self._caller.check_streams(self._item, values)
            self._values = values
        if inspect.isasyncgen(self._values):
            value = self._caller.run_coroutine(_anext(self._values))
        else:
            value = next(self._values)
        return self._caller.store(self._item, value, f".{self._index}")

    def cancel(self, owner: InlineOwner) -> None:
        """Close the generator where it is."""
        if inspect.isasyncgen(self._values):
            self._caller.run_coroutine(self._values.aclose())
        elif self._values is not None:
            self._values.close()
        self._item.context.cancelled = self.work.cancelled = True
        owner.results.complete(self.work, self._caller.blame(self._item, KeyboardInterrupt()), failed=True)


@contextlib.contextmanager
def _running(item: Item, place: contexts.Place) -> Iterator[None]:
    """Have the calling thread run *item* at *place*, for whoever asks."""
    context_before, place_before = contexts.get_current(), contexts.get_place()
    contexts.set_current(item.context)
    contexts.set_place(place)
    try:
        yield
    finally:
        contexts.set_current(context_before)
        contexts.set_place(place_before)


def _off_the_loop(call: Callable[[], Any]) -> Any:
    """Call what runs an event loop; on a thread of its own if this one runs another (a notebook's does)."""
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return call()
    context = contexts.get_current()
    outcome: list[Any] = []
    errors: list[BaseException] = []

    def run() -> None:
        contexts.set_current(context)
        try:
            outcome.append(call())
        except BaseException as error:  # handed on to the calling thread
            errors.append(error)

    thread = threading.Thread(target=run, name="shoal-inline")
    thread.start()
    thread.join()
    if errors:
        raise errors[0]
    return outcome[0]


async def _anext(values: Any) -> Any:
    return await anext(values)
