"""Running one piece of work: its arguments, the user's code, its results."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import inspect
import threading
import time
from collections.abc import AsyncGenerator, Callable, Coroutine, Generator, Sequence
from typing import Any

from shoal.model import messages as m
from shoal.model.errors import ActorDiedError, ObjectLostError, TaskCancelledError
from shoal.model.options import STREAMING
from shoal.runtime import forked, remote_errors
from shoal.runtime import payload as payloads
from shoal.runtime.base_owner import BaseOwner
from shoal.runtime.context import TaskContext, get_place
from shoal.runtime.refs import ObjectRef
from shoal.runtime.serialization import dumps, loads
from shoal.runtime.work import CREATE, put_dependencies
from shoal.transport.stream import Stream


class DependencyLost(Exception):
    """The work cannot begin, because the value that ref number *index* of its arguments stands for cannot be read."""

    def __init__(self, index: int, path: str) -> None:
        super().__init__(index, path)
        self.payload: m.Payload = (payloads.LOST, index, path)


class ExitActor(BaseException):
    """Raised by ``exit_actor()``: the call returns None, and the actor ends."""


@dataclasses.dataclass(slots=True, eq=False)
class Item:
    """One piece of work that has arrived."""

    run: m.Run
    recipe: m.Recipe
    #: Who sent it; None for the creation of an actor, which comes from the agent.
    stream: Stream | None
    context: TaskContext
    #: Values of a generator that its consumer has taken, and the door at which the generator waits for that.
    consumed: int = 0
    door: threading.Lock = dataclasses.field(default_factory=threading.Lock)
    #: Thread or asyncio task that runs it, for a lane that runs several.
    runner: Any = None
    #: When it began, on the monotonic clock; 0 before.
    begun: float = 0.0
    #: It is a generator that is ``max_pending`` values ahead.
    waits_for_consumer: bool = False
    #: The actor ends with this call.
    exits: bool = False

    @property
    def caller(self) -> str:
        """Id of the owner of its results."""
        return self.stream.peer_id if self.stream is not None else ""


@dataclasses.dataclass(slots=True)
class Outcome:
    """How a piece of work has ended. ``contained`` are the refs in its value: one list for each of several values."""

    item: Item
    payload: m.Payload
    seconds: float = 0.0
    contained: Sequence[Any] = ()


class Caller:
    """Runs work on whatever thread or loop calls it; one per executor."""

    def __init__(
        self,
        owner: BaseOwner,
        emit_value: Callable[[Item, int, m.Payload, list[ObjectRef]], None],
        waits: Callable[[bool], None],
    ) -> None:
        """``emit_value`` sends a generator's value; ``waits`` is told that this thread waits, and goes on."""
        self._owner = owner
        self._emit_value = emit_value
        self._waits = waits
        #: Functions and classes by id, pickled and loaded.
        self.functions: dict[str, m.Define] = {}
        self._loaded: dict[str, Any] = {}
        self.actor: Any = None
        #: What the creation of the actor depends on, each as ``(object_id, owner's address)``.
        self.creation_arguments: tuple[tuple[str, str], ...] = ()

    def run(self, item: Item) -> Outcome:
        """Run *item* on this thread. Whatever user code raises becomes the outcome."""
        begin = time.perf_counter()
        contained: Sequence[Any] = ()
        try:
            value = self.start(item)
            forked.leave_if_forked()
            payload, contained = self._finish(item, value)
        except BaseException as error:  # boundary: user code; the error goes to its owner
            forked.leave_if_forked(error)
            payload = self.blame(item, error)
            # The traceback's frames hold the arguments.
            error.__traceback__ = None
            del error
        return Outcome(item, payload, time.perf_counter() - begin, contained)

    async def run_async(self, item: Item) -> Outcome:
        """Run *item* on this event loop; ``async def`` methods wait without holding up others."""
        begin = time.perf_counter()
        contained: Sequence[Any] = ()
        try:
            await self._fetch(item.run)
            value = self.start(item)
            if inspect.iscoroutine(value):
                value = await value
            if inspect.isasyncgen(value) and item.recipe.num_returns == STREAMING:
                payload = await self._stream_async(item, value)
            else:
                payload, contained = self._finish(item, value)
        except BaseException as error:  # boundary: user code; the error goes to its owner
            payload = self.blame(item, error)
            error.__traceback__ = None
            del error
        return Outcome(item, payload, time.perf_counter() - begin, contained)

    @staticmethod
    def interrupted(item: Item) -> Outcome:
        """Return the outcome of work whose cancellation came in the moment it ended."""
        return Outcome(item, payloads.from_error(cancelled(item)))

    def has_async_methods(self) -> bool:
        """Whether the actor here is one whose calls run on an event loop."""
        return any(
            inspect.iscoroutinefunction(member) or inspect.isasyncgenfunction(member)
            for member in (inspect.getattr_static(self.actor, name, None) for name in dir(type(self.actor)))
        )

    def start(self, item: Item) -> Any:
        """Call the user's code; what it returns may be a coroutine or a generator."""
        if item.context.cancelled:  # in the moment it began
            raise KeyboardInterrupt
        run = item.run
        args, kwargs = self._owner.load(run.args)
        if run.dependencies:
            values = [self._load_dependency(item, index, part) for index, part in enumerate(run.dependencies)]
            args, kwargs = put_dependencies(args, kwargs, values)
        return call_user(self._target(item.recipe), args, kwargs)

    def _load_dependency(self, item: Item, index: int, payload: m.Payload) -> Any:
        path = ""
        if payload[0] != payloads.LOST:
            try:
                return self._owner.load(payload)
            except ObjectLostError:
                if payload[0] != payloads.SEGMENT:
                    raise
                path = payload[2]
        if item.recipe.method != CREATE:
            raise DependencyLost(index, path)
        # Nobody sends the creation of an actor anew: ask for the value, which may be made again, as a borrower would.
        return self._owner.get([self._owner.hold(*self.creation_arguments[index])], None)[0]

    def run_coroutine(self, coroutine: Coroutine[Any, Any, Any]) -> Any:
        """Run an ``async def`` task to its end."""
        return asyncio.run(coroutine)

    def _finish(self, item: Item, value: Any) -> tuple[m.Payload, Sequence[Any]]:
        """Turn what the call returned into its results."""
        recipe = item.recipe
        if inspect.iscoroutine(value):
            value = self.run_coroutine(value)
        if recipe.method == CREATE:
            self.actor, value = value, None
        if recipe.num_returns == 1:
            if isinstance(value, Generator | AsyncGenerator):
                raise TypeError(
                    f"`{recipe.name}` has `num_returns=1` and returned a generator, which cannot travel: return a "
                    'list, or have its values streamed with `num_returns="streaming"`.'
                )
            return self.store(item, value)
        if recipe.num_returns == STREAMING:
            if inspect.isasyncgen(value):
                value = _iterate(value)
            return self._stream(item, value), []
        return self._store_many(item, value)

    def store(self, item: Item, value: Any, suffix: str = "") -> tuple[m.Payload, list[ObjectRef]]:
        """Make the payload of one value; returns it and the refs inside."""
        name = f"{item.caller}.{item.run.task_id}.{item.run.attempt}{suffix}"
        frames, contained = dumps(value, f"result of {item.recipe.name}")
        return payloads.from_frames(frames, self._owner.store, name), contained

    def _store_many(self, item: Item, value: Any) -> tuple[m.Payload, list[list[ObjectRef]]]:
        recipe = item.recipe
        if recipe.num_returns == 0:
            return payloads.NONE, []
        if isinstance(value, AsyncGenerator):
            value = _iterate(value)
        if isinstance(value, Generator):
            value = tuple(value)
        if not isinstance(value, tuple | list) or len(value) != recipe.num_returns:
            found = f"{len(value)} values" if isinstance(value, tuple | list) else f"a {type(value).__name__}"
            raise ValueError(f"`{recipe.name}` has `num_returns={recipe.num_returns}` and returned {found}.")
        stored = [self.store(item, part, f".{index}") for index, part in enumerate(value)]
        return (payloads.MANY, *(payload for payload, _ in stored)), [contained for _, contained in stored]

    def _stream(self, item: Item, values: Any) -> m.Payload:
        self.check_streams(item, values)
        try:
            for index, value in enumerate(values):
                self._send_value(item, index, value)
                del value
                self._wait_for_consumer(item, index + 1)
        finally:
            values.close()
        return payloads.NONE

    async def _stream_async(self, item: Item, values: Any) -> m.Payload:
        index = 0
        try:
            async for value in values:
                self._send_value(item, index, value)
                index += 1
                if self._is_ahead(item, index):
                    await asyncio.to_thread(self._wait_for_consumer, item, index)
        finally:
            await values.aclose()
        return payloads.NONE

    @staticmethod
    def check_streams(item: Item, values: Any) -> None:
        """Refuse to take from what is no generator."""
        if not isinstance(values, Generator):
            raise TypeError(
                f'`{item.recipe.name}` has `num_returns="streaming"` and returned a {type(values).__name__}, '
                "not a generator."
            )

    def _send_value(self, item: Item, index: int, value: Any) -> None:
        payload, contained = self.store(item, value, f".{index}")
        self._emit_value(item, index, payload, contained)

    @staticmethod
    def _is_ahead(item: Item, sent: int) -> bool:
        limit = item.recipe.max_pending
        return bool(limit) and sent - item.consumed >= limit

    def _wait_for_consumer(self, item: Item, sent: int) -> None:
        """Wait until the consumer is less than ``max_pending`` values behind; the loop opens the door."""
        if not self._is_ahead(item, sent):
            return
        self._waits(True)
        item.waits_for_consumer = True
        try:
            while self._is_ahead(item, sent) and not item.context.cancelled:
                item.door.acquire(timeout=1.0)
        finally:
            item.waits_for_consumer = False
            self._waits(False)

    async def _fetch(self, run: m.Run) -> None:
        """See to it that loading the arguments will not block the loop."""
        for payload in (run.args, *run.dependencies):
            if self._owner.needs_fetch(payload):
                with contextlib.suppress(ObjectLostError):  # loading it will say so
                    await asyncio.to_thread(self._owner.load, payload)

    def _target(self, recipe: m.Recipe) -> Any:
        if recipe.method and recipe.method != CREATE:
            if self.actor is None:
                raise ActorDiedError("The actor is dead: it has stopped.", cause="it has stopped")
            return getattr(self.actor, recipe.method)
        target = self._loaded.get(recipe.function_id)
        if target is None:
            define = self.functions[recipe.function_id]
            target = loads([define.pickled])
            if not define.has_refs:
                self._loaded[recipe.function_id] = target
        return target

    def blame(self, item: Item, error: BaseException) -> m.Payload:
        """Return the payload of what a piece of work has ended with."""
        if isinstance(error, KeyboardInterrupt | asyncio.CancelledError) and item.context.cancelled:
            return payloads.from_error(cancelled(item))
        if isinstance(error, DependencyLost):
            return error.payload
        if isinstance(error, ExitActor):
            item.exits = True
            return payloads.NONE
        error.__traceback__ = remote_errors.strip_own_frames(error.__traceback__, __file__)
        place = get_place()
        where = f"{self._owner.owner_id} ({place.node_id})" if place is not None else self._owner.owner_id
        error.add_note(f"in {item.recipe.name}, attempt {item.run.attempt + 1}, on {where}")
        if isinstance(error, SystemExit):
            text = f"the task called `sys.exit({error.code!r})`"
            return payloads.from_error(RuntimeError(text).with_traceback(error.__traceback__))
        return payloads.from_error(error)


def call_user(target: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """Call user code: the last of our own frames."""
    return target(*args, **kwargs)


def _iterate(values: Any) -> Generator[Any, None, None]:
    """Give the values of an async generator one by one where no loop runs."""
    with asyncio.Runner() as runner:
        try:
            while True:
                try:
                    yield runner.run(anext(values))
                except StopAsyncIteration:
                    return
        finally:
            runner.run(values.aclose())


def cancelled(item: Item) -> TaskCancelledError:
    return TaskCancelledError(f"`{item.recipe.name}` was cancelled.", task_id=item.run.task_id)
