"""The executor: a process that runs tasks, or hosts one actor.

Its main thread runs user code, one piece of work at a time; its event loop, on thread ``shoal-io``, talks to owners and
to the node agent and stays responsive whatever user code does. Work that has not begun can be taken back; work that has
can be interrupted.
"""

from __future__ import annotations

import asyncio
import dataclasses
import inspect
import os
import queue
import signal
import sys
import threading
import time
from types import FrameType
from typing import Any

from shoal.model import messages as m
from shoal.model.errors import ActorDiedError, TaskCancelledError
from shoal.runtime import context as contexts
from shoal.runtime import payload as payloads
from shoal.runtime import refs, remote_errors, session
from shoal.runtime.begun import BegunMark
from shoal.runtime.owner import Owner, OwnerConfig
from shoal.runtime.serialization import dumps, loads
from shoal.runtime.stdio import INTERVAL, OutputBuffer, TaskWriter
from shoal.runtime.work import put_dependencies
from shoal.transport.comms import connect
from shoal.transport.stream import Stream

CONNECT_TIMEOUT = 10.0
#: Modules worth having in the template once some task has imported them: slow to import, safe to fork after.
WORTH_PRELOADING = ("torch", "sklearn", "pandas", "matplotlib")


@dataclasses.dataclass(slots=True)
class Item:
    """One piece of work that has arrived."""

    run: m.Run
    stream: Stream


class Executor:
    """See the module's description. Made on the loop; :meth:`work` is for the main thread."""

    def __init__(self, executor_id: str, config: OwnerConfig, agent_address: str, begun: BegunMark) -> None:
        self.executor_id = executor_id
        self._begun = begun
        self._agent_address = agent_address
        self._agent: Stream | None = None
        #: Ends the process with its agent; the loop alone would not keep the task alive.
        self._life: asyncio.Task[None] | None = None
        self.owner = Owner(config, on_output=self._relay_output, on_message=self._message, on_peer_lost=self._peer_lost)
        self.owner.waiting_hook = self._waits
        self._queue: queue.SimpleQueue[Item] = queue.SimpleQueue()
        #: Work that has not begun, by task id: whoever removes an entry decides what becomes of it.
        self._pending: dict[str, Item] = {}
        self._functions: dict[str, bytes] = {}
        self._loaded: dict[str, Any] = {}
        self._actor: Any = None
        self._creating = False
        #: Why there is no actor, once its creation has failed.
        self._init_failure = ""
        #: Calls of other callers that came before the actor's creation did.
        self._early: list[Item] = []
        self._running: Item | None = None
        self._interrupt = ""
        self._waits_under_way = 0
        self._output = OutputBuffer()
        self._preloaded: set[str] = set()
        self._main_thread = threading.main_thread().ident or 0

    # -- on the loop ---------------------------------------------------------------------------------------------

    async def start(self) -> None:
        """Listen for owners and report to the agent."""
        await self.owner.start()
        config = self.owner.config
        comm = await connect(self._agent_address, config.security, CONNECT_TIMEOUT, to_dask_server=True)
        self._agent = Stream(comm, lambda stream, message: None)
        self._agent.send_nowait(m.ExecutorHello(self.executor_id, self.owner.address, os.getpid()))
        self._life = asyncio.create_task(self._live_with_agent(self._agent))

    async def _live_with_agent(self, agent: Stream) -> None:
        """An executor never outlives its agent."""
        await agent.run()
        os._exit(0)

    def _message(self, stream: Stream, message: m.Message) -> None:
        match message:
            case m.Run():
                self._arrived(Item(message, stream))
            case m.Define(function_id, pickled):
                self._functions[function_id] = pickled
            case m.CancelTask(task_id):
                self._cancel(task_id)
            case m.Recall(lease_id):
                self._return_pending(lease_id, stream, waiting=False)

    def _arrived(self, item: Item) -> None:
        self._pending[item.run.task_id] = item
        if item.run.method == "__init__":
            self._creating = True
            self._queue.put(item)
            for early in self._early:
                self._queue.put(early)
            self._early.clear()
        elif item.run.method and not self._creating:
            self._early.append(item)
        else:
            self._queue.put(item)

    def _cancel(self, task_id: str) -> None:
        item = self._pending.pop(task_id, None)
        if item is not None:
            self._reply(item, payloads.from_error(_cancelled(item)), 0.0, [])
            return
        running = self._running
        if running is not None and running.run.task_id == task_id:
            self._interrupt = task_id
            signal.pthread_kill(self._main_thread, signal.SIGINT)

    def _return_pending(self, lease_id: str, stream: Stream, waiting: bool) -> None:
        """Send the tasks of a lease that have not begun back to the owner at the other end of *stream*."""
        queued = [task_id for task_id, item in list(self._pending.items()) if item.run.lease_id == lease_id]
        returned = tuple(task_id for task_id in queued if self._pending.pop(task_id, None) is not None)
        stream.send_nowait(m.Returned(lease_id, returned, waiting))

    def _peer_lost(self, address: str) -> None:
        """An owner is gone: what it had queued here is not worth running (the agent ends what runs)."""
        for task_id, item in list(self._pending.items()):
            if item.stream.address == address:
                self._pending.pop(task_id, None)

    def _tell_waiting(self, change: tuple[str, Item, bool]) -> None:
        lease_id, item, waiting = change
        if waiting:
            self._return_pending(lease_id, item.stream, waiting=True)
        else:
            item.stream.send_nowait(m.Resumed(lease_id))
        if self._agent is not None:
            self._agent.send_nowait(m.Waiting(lease_id, waiting))

    def _flush_later(self, _: object) -> None:
        self.owner.loop.call_later(INTERVAL, self._flush_output)

    def _flush_output(self) -> None:
        item = self._running
        if item is not None:
            self._send_output(item)

    def _send_output(self, item: Item) -> None:
        run = item.run
        for kind, data in self._output.take():
            item.stream.send_nowait(m.Output(run.driver, run.task_id, run.name, run.cell, self.executor_id, kind, data))

    def _relay_output(self, message: m.Output) -> None:
        """Pass on what nested work has printed: to the owner of the task that waits for it, else to the driver."""
        running = self._running
        if contexts.get_current() is not None and running is not None and running.run.driver == message.driver:
            self._send_output(running)  # what it printed before comes before
            running.stream.send_nowait(message)
        else:
            self.owner.send_to(message.driver, message)

    def _finish(self, result: tuple[Item, m.Payload, float, list[refs.ObjectRef]]) -> None:
        item, payload, seconds, contained = result
        if self._interrupt == item.run.task_id:
            self.owner.cancel_children(item.run.task_id)
        self._send_output(item)
        self._reply(item, payload, seconds, contained)
        self.owner.report()  # this process may be ended as soon as it is idle
        for name in WORTH_PRELOADING:
            if name in sys.modules and name not in self._preloaded and self._agent is not None:
                self._preloaded.add(name)
                self._agent.send_nowait(m.Preload(name))

    def _reply(self, item: Item, payload: m.Payload, seconds: float, contained: list[refs.ObjectRef]) -> None:
        stream = item.stream
        handed = self.owner.hand_over(contained, stream.peer_id, stream.address)
        stream.send_nowait(m.Done(item.run.task_id, payload, seconds, handed, self.owner.retained()))

    # -- on the main thread --------------------------------------------------------------------------------------

    def work(self) -> None:
        """Run what arrives, for ever; the process ends from outside."""
        signal.signal(signal.SIGINT, self._on_interrupt)
        sys.stdout = TaskWriter("stdout", self.emit, sys.__stdout__)
        sys.stderr = TaskWriter("stderr", self.emit, sys.__stderr__)
        while True:
            item = self._queue.get()
            self._running = item
            if self._pending.pop(item.run.task_id, None) is None:
                continue  # taken back, or cancelled
            try:
                result = self._run(item)
            except KeyboardInterrupt:  # a cancellation that came in the moment the task ended
                result = item, payloads.from_error(_cancelled(item)), 0.0, []
            contexts.set_current(None)
            self.owner.inbox.put(self._finish, result)
            del item, result

    def emit(self, kind: str, data: str) -> None:
        """Send output of the running task; on any thread."""
        if self._output.add(kind, data):
            self.owner.inbox.put(self._flush_later, None)

    def _run(self, item: Item) -> tuple[Item, m.Payload, float, list[refs.ObjectRef]]:
        run = item.run
        self._waits_under_way = 0
        self._begun.write(run.task_id)
        contexts.set_current(contexts.TaskContext(run.task_id, run.name, run.lease_id, run.cell, run.driver))
        begin = time.perf_counter()
        contained: list[refs.ObjectRef] = []
        try:
            payload, contained = self._call(run, item.stream.peer_id)
        except BaseException as error:  # boundary: user code; the error goes to its owner
            payload = payloads.from_error(self._blame(item, error))
            if run.method == "__init__":
                self._init_failure = f"its `__init__` raised {type(error).__name__}: {error}"
            # The traceback's frames hold the arguments.
            error.__traceback__ = None
            del error
        contexts.set_current(None)
        return item, payload, time.perf_counter() - begin, contained

    def _call(self, run: m.Run, caller: str) -> tuple[m.Payload, list[refs.ObjectRef]]:
        if self._interrupt == run.task_id:  # cancelled in the moment it began
            raise KeyboardInterrupt
        args, kwargs = self.owner.load(run.args)
        if run.dependencies:
            args, kwargs = put_dependencies(args, kwargs, [self.owner.load(part) for part in run.dependencies])
        value = call_user(self._target(run), args, kwargs)
        del args, kwargs
        if inspect.iscoroutine(value):
            value = run_coroutine(value)
        if run.method == "__init__":
            self._actor, value = value, None
        frames, contained = dumps(value, f"result of {run.name}")
        del value
        name = f"{caller}.{run.task_id}.{run.attempt}"
        return payloads.from_frames(frames, self.owner.store, name), contained

    def _target(self, run: m.Run) -> Any:
        if run.method and run.method != "__init__":
            if self._actor is None:
                raise ActorDiedError(f"The actor is dead, because {self._init_failure}.", cause=self._init_failure)
            return getattr(self._actor, run.method)
        target = self._loaded.get(run.function_id)
        if target is None:
            target = self._loaded[run.function_id] = loads([self._functions[run.function_id]])
        return target

    def _blame(self, item: Item, error: BaseException) -> BaseException:
        if isinstance(error, KeyboardInterrupt) and self._interrupt == item.run.task_id:
            return _cancelled(item)
        error.__traceback__ = remote_errors.strip_own_frames(error.__traceback__, __file__)
        error.add_note(f"in {item.run.name}, attempt {item.run.attempt + 1}, on {self.executor_id}")
        if isinstance(error, SystemExit):
            return RuntimeError(f"the task called `sys.exit({error.code!r})`").with_traceback(error.__traceback__)
        return error

    def _on_interrupt(self, number: int, frame: FrameType | None) -> None:
        running = self._running
        if running is not None and self._interrupt == running.run.task_id and contexts.get_current() is not None:
            raise KeyboardInterrupt

    def _waits(self, waiting: bool) -> None:
        """The main thread is about to wait for a value, or goes on; awaits of one task overlap."""
        item = self._running
        if item is None or threading.get_ident() != self._main_thread or not item.run.lease_id:
            return
        before = self._waits_under_way
        self._waits_under_way = max(0, before + (1 if waiting else -1))
        if not before or not self._waits_under_way:
            self.owner.inbox.put(self._tell_waiting, (item.run.lease_id, item, waiting))


def call_user(target: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """Call user code: the last of our own frames."""
    return target(*args, **kwargs)


def run_coroutine(coroutine: Any) -> Any:
    """Run an ``async def`` task to its end."""
    return asyncio.run(coroutine)


def _cancelled(item: Item) -> TaskCancelledError:
    return TaskCancelledError(f"`{item.run.name}` was cancelled.", task_id=item.run.task_id)


def run_executor(executor_id: str, config: OwnerConfig, agent_address: str, begun: BegunMark) -> None:
    """Be an executor until the process ends; called in a freshly forked child."""
    started: queue.SimpleQueue[Executor | BaseException] = queue.SimpleQueue()

    async def main() -> None:
        try:
            executor = Executor(executor_id, config, agent_address, begun)
            session.set_owner(executor.owner, emit=executor.emit)
            await executor.start()
        except BaseException as error:
            started.put(error)
            raise
        started.put(executor)
        await asyncio.Event().wait()

    threading.Thread(target=lambda: asyncio.run(main()), name="shoal-io", daemon=True).start()
    executor = started.get(timeout=30.0)
    if isinstance(executor, BaseException):
        raise executor
    executor.work()
