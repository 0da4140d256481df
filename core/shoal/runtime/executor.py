"""The executor: a process that runs tasks, or hosts one actor.

User code runs in one of the :mod:`~shoal.runtime.lanes`; the event loop, on thread ``shoal-io``, talks to owners and to
the node agent and stays responsive whatever user code does. Work that has not begun can be taken back; work that has
can be interrupted.
"""

from __future__ import annotations

import asyncio
import atexit
import contextlib
import io
import logging
import os
import queue
import signal
import sys
import threading
import time
from collections.abc import Sequence

from shoal.model import messages as m
from shoal.runtime import context as contexts
from shoal.runtime import forked, session
from shoal.runtime import payload as payloads
from shoal.runtime.begun import BegunMark
from shoal.runtime.calling import Caller, Item, Outcome, cancelled
from shoal.runtime.environment import silence_limit
from shoal.runtime.executor_answers import ExecutorAnswers
from shoal.runtime.executor_log import ExecutorLog
from shoal.runtime.heartbeat import Heartbeat
from shoal.runtime.lanes import ASYNC_CONCURRENCY, AsyncLane, Lane, MainLane, ThreadLane, limits_of
from shoal.runtime.owner import Owner, OwnerConfig
from shoal.runtime.refs import ObjectRef
from shoal.runtime.stdio import INTERVAL, OutputBuffer, TaskWriter
from shoal.runtime.work import CREATE, STOP
from shoal.transport.comms import connect
from shoal.transport.stream import Stream

logger = logging.getLogger("shoal")
CONNECT_TIMEOUT = 10.0
#: Share of the time after which a silent node is given up.
END_FIRST = 0.8
#: Seconds that an actor's exit handlers may take when it stops.
EXIT_TIMEOUT = 5.0
#: Seconds between two looks, while there is work, at what the process has printed and how many calls there are.
LOOK_INTERVAL = 0.3
#: Modules worth having in the template once some task has imported them: slow to import, safe to fork after.
WORTH_PRELOADING = ("torch", "torch._dynamo", "sklearn", "pandas", "matplotlib")


class Executor:
    """See the module's description. Made on the loop; :meth:`work` is for the main thread."""

    def __init__(
        self, executor_id: str, config: OwnerConfig, agent_address: str, begun: BegunMark, log: ExecutorLog
    ) -> None:
        self.executor_id = executor_id
        self._begun = begun
        self._log = log
        self._agent_address = agent_address
        self._agent: Stream | None = None
        #: Ends the process with its agent; the loop alone would not keep the task alive.
        self._life: asyncio.Task[None] | None = None
        self.owner = Owner(config, on_output=self._relay_output, on_message=self._message, on_peer_lost=self._peer_lost)
        self.owner.waiting_hook = self._waits
        self._caller = Caller(self.owner, self._emit_value, self._waits)
        self._recipes: dict[tuple[Stream | None, int], m.Recipe] = {}
        #: ``sys.stdout`` and ``sys.stderr`` of tasks, once there are any.
        self._writers: tuple[TaskWriter, TaskWriter] | None = None
        self._bound = m.Bind("", (), None, "", b"", "")
        self._shape = m.ActorShape(0, (), ())
        #: Work of a lease that the agent has not told us of yet.
        self._early: list[Item] = []
        #: Work that has not begun, by task id: whoever removes an entry decides what becomes of it.
        self._pending: dict[str, Item] = {}
        #: Work that has begun and has not been answered.
        self._active: dict[str, Item] = {}
        #: The call that ends the actor when all others have ended.
        self._stop: Item | None = None
        #: The actor is about to end: calls that have not begun are left to the news of its death.
        self._leaving = False
        self.owner.explainer.running = lambda: list(self._active.values())
        self.owner.explainer.pending = lambda: list(self._pending.values())
        self._waits_under_way = 0
        #: How many calls the agent was told of last, and whether there will be a look at that soon.
        self._calls_told = 0
        self._look_due = False
        self._answers = ExecutorAnswers(self.owner, self._running_items)
        self._output_lock = threading.Lock()
        self._preloaded: set[str] = set()
        self._main_thread = threading.main_thread().ident or 0
        self._main_lane: MainLane | None = None
        self._lane: Lane | None = None
        self._ready = threading.Event()

    # -- on the loop ---------------------------------------------------------------------------------------------

    async def start(self) -> None:
        """Listen for owners and report to the agent."""
        self._log.start(self.owner.loop)
        await self.owner.start()
        config = self.owner.config
        comm = await connect(self._agent_address, config.security, CONNECT_TIMEOUT, to_dask_server=True)
        self._agent = Stream(comm, self._agent_message)
        await asyncio.to_thread(self._ready.wait)
        self._agent.send_nowait(m.ExecutorHello(self.executor_id, self.owner.address, os.getpid()))
        self._life = asyncio.create_task(self._live_with_agent(self._agent))

    async def _live_with_agent(self, agent: Stream) -> None:
        """An executor never outlives its agent.

        Of one that is silent the controller thinks that it is gone, and has our work done elsewhere: we end first.
        """

        def silent(_: str) -> None:
            print("shoal: the node's agent has said nothing for too long: this executor ends", file=sys.__stderr__)
            os._exit(1)

        watch = Heartbeat(silence_limit() * END_FIRST, silent)
        self.owner.start_soon(watch.run(list, lambda: {"agent": agent}))
        await agent.run()
        os._exit(0)

    def _agent_message(self, stream: Stream, message: m.Message) -> None:
        if isinstance(message, m.Bind):
            self._bind(message)
        elif isinstance(message, m.SegmentsSeen):
            self.owner.segments_seen(message)
        elif isinstance(message, m.Ask):
            self._answers.serve(stream, message)

    def _bind(self, bind: m.Bind) -> None:
        """The agent says which lease we serve from now on."""
        self._bound = bind
        self._log.actor_id = bind.actor_id
        self.owner.job_id = bind.job_id
        contexts.set_place(
            contexts.Place(
                self.owner.config.node_id,
                self.executor_id,
                bind.actor_id,
                bind.job_id,
                {name: amount for name, amount in bind.resources},
                bind.gpus or (),
            )
        )
        if bind.gpus is not None:
            os.environ["CUDA_VISIBLE_DEVICES"] = ",".join(bind.gpus)
        early, self._early = self._early, []
        for item in early:
            self._arrived(item)
        if not bind.creation:
            return
        for message in m.unpack(bind.creation):
            match message:
                case m.Define():
                    self._caller.functions[message.function_id] = message
                case m.Recipe():
                    self._recipes[None, message.recipe_id] = message
                case m.ActorShape():
                    self._shape = message
                    self._caller.creation_arguments = message.arguments
                case m.Run():
                    self._arrived(self._item(message, None))

    def _message(self, stream: Stream, message: m.Message) -> None:
        match message:
            case m.Run():
                self._arrived(self._item(message, stream))
            case m.Recipe():
                self._recipes[stream, message.recipe_id] = message
            case m.Define():
                self._caller.functions[message.function_id] = message
            case m.CancelTask(task_id, force, recursive):
                self._cancel(task_id, force, recursive)
            case m.Recall(lease_id):
                self._return_pending(lease_id, stream, waiting=False)
            case m.Consumed(task_id, taken):
                self._consumed(task_id, taken)

    def _item(self, run: m.Run, stream: Stream | None) -> Item:
        recipe = self._recipes[stream, run.recipe_id]
        context = contexts.TaskContext(
            run.task_id,
            recipe.name,
            run.lease_id,
            recipe.cell,
            recipe.driver,
            recipe.depth,
            run.attempt,
            recipe.is_last(run.attempt),
        )
        return Item(run, recipe, stream, context)

    def _arrived(self, item: Item) -> None:
        if item.run.lease_id and item.run.lease_id != self._bound.lease_id:
            self._early.append(item)
            return
        if self._leaving:
            return
        if item.recipe.method == STOP:
            self._stop = item
            self._stop_if_done()
            return
        assert self._lane is not None
        self._look_soon()
        pending = self._pending.get(item.run.task_id)
        if pending is not None and pending.run.attempt > item.run.attempt:
            return  # what a broken connection had brought is read after what the next one has
        self._pending[item.run.task_id] = item
        self._lane.put(item)

    def _cancel(self, task_id: str, force: bool, recursive: bool) -> None:
        item = self._pending.pop(task_id, None)
        if item is not None:
            self._reply(Outcome(item, payloads.from_error(cancelled(item))))
            return
        item = self._active.get(task_id)
        if item is None:
            return
        item.context.cancelled = True
        if force and item.run.lease_id:
            os.kill(os.getpid(), signal.SIGKILL)
        assert self._lane is not None
        self._lane.interrupt(item)
        if recursive:
            self.owner.cancel_children(task_id)

    def _return_pending(self, lease_id: str, stream: Stream, waiting: bool) -> None:
        """Send the tasks of a lease that have not begun back to the owner at the other end of *stream*."""
        queued = [task_id for task_id, item in list(self._pending.items()) if item.run.lease_id == lease_id]
        returned = tuple(task_id for task_id in queued if self._pending.pop(task_id, None) is not None)
        stream.send_nowait(m.Returned(lease_id, returned, waiting))

    def _consumed(self, task_id: str, taken: int) -> None:
        item = self._active.get(task_id) or self._pending.get(task_id)
        if item is not None:
            item.consumed = taken
            if item.door.locked():
                item.door.release()

    def _peer_lost(self, address: str) -> None:
        """An owner is gone, or cut off: what it had queued here is not worth running, nor what an actor does for it.

        The agent ends an executor whose tasks were its. One that was only cut off may have another stream already.
        """
        for task_id, item in list(self._pending.items()):
            if item.stream is not None and item.stream.closed:
                self._pending.pop(task_id, None)
        for task_id, item in list(self._active.items()):
            cut_off = item.stream is not None and item.stream.closed
            # The same call may wait here already, come once more over another stream.
            if cut_off and not item.run.lease_id and task_id not in self._pending:
                self._cancel(task_id, force=False, recursive=True)
        self._recipes = {
            (stream, number): recipe
            for (stream, number), recipe in self._recipes.items()
            if stream is None or not stream.closed
        }

    def _tell_waiting(self, change: tuple[str, Item, bool]) -> None:
        lease_id, item, waiting = change
        assert item.stream is not None
        if waiting:
            self._return_pending(lease_id, item.stream, waiting=True)
        else:
            item.stream.send_nowait(m.Resumed(lease_id))
        self._tell_agent(m.Waiting(lease_id, waiting))

    def _tell_agent(self, message: m.Message) -> None:
        if self._agent is not None:
            self._agent.send_nowait(message)

    def _look_soon(self) -> None:
        if not self._look_due:
            self._look_due = True
            self.owner.loop.call_later(LOOK_INTERVAL, self._look)

    def _look(self) -> None:
        """See what the process has printed, and how many calls there are; as long as there is work."""
        self._look_due = False
        active = list(self._active.values())
        self._log.take_raw(active[0].context if len(active) == 1 else None)
        calls = len(active) + len(self._pending)
        if self._bound.actor_id and calls != self._calls_told:
            self._calls_told = calls
            self._tell_agent(m.PendingCalls(calls))
        if calls:
            self._look_soon()

    def _running_items(self) -> list[Item]:
        return list(self._active.values())

    def _flush_later(self, context: contexts.TaskContext) -> None:
        self.owner.loop.call_later(INTERVAL, self._flush_output, context)

    def _flush_output(self, context: contexts.TaskContext) -> None:
        item = self._active.get(context.task_id)
        if item is not None:
            self._send_output(item)

    def _send_output(self, item: Item) -> None:
        output = item.context.output
        if output is None:
            return
        run, recipe = item.run, item.recipe
        for kind, data in output.take():
            self._log.printed(item.context, kind, data)
            message = m.Output(recipe.driver, run.task_id, recipe.name, recipe.cell, self.executor_id, kind, data)
            if item.stream is not None:
                item.stream.send_nowait(message)
            else:
                self.owner.send_to(recipe.driver, message)

    def _relay_output(self, message: m.Output) -> None:
        """Pass on what nested work has printed: to the owner of the task that waits for it, else to the driver."""
        listener = session.get_output_listener()
        if listener is not None:
            try:
                listener(message)
            except Exception:  # boundary: it is user code, and the output goes on
                logger.exception("a listener to the output of tasks has failed")
        running = self._main_lane.running if self._main_lane is self._lane and self._main_lane is not None else None
        if (
            running is not None
            and running.stream is not None
            and running.run.task_id in self._active
            and running.recipe.driver == message.driver
        ):
            self._send_output(running)  # what it printed before comes before
            running.stream.send_nowait(message)
        else:
            self.owner.send_to(message.driver, message)

    def _send_value(self, value: tuple[Item, int, m.Payload, list[ObjectRef]]) -> None:
        item, index, payload, contained = value
        stream = item.stream
        assert stream is not None
        if stream.closed:
            return
        handed = self.owner.ownership.hand_over(contained, stream.peer_id, stream.address)
        stream.send_nowait(m.Yielded(item.run.task_id, item.run.attempt, index, payload, handed))

    def _finish(self, outcome: Outcome) -> None:
        item = outcome.item
        self._send_output(item)
        self._log.ended(item.context, alone=len(self._active) == 1)
        if self._active.get(item.run.task_id) is item:  # or it has come again, on another stream
            del self._active[item.run.task_id]
        self._reply(outcome)
        if item.exits:
            self._exit("it called `shoal.exit_actor()`")
        elif self._stop is not None:
            self._stop_if_done()
        self.owner.report()  # this process may be ended as soon as it is idle
        if not self._pending and not self._active:
            self.owner.metrics.work_ended()
        for name in WORTH_PRELOADING:
            if name in sys.modules and name not in self._preloaded:
                self._preloaded.add(name)
                self._tell_agent(m.Preload(name))

    def _reply(self, outcome: Outcome) -> None:
        item, payload, contained = outcome.item, outcome.payload, outcome.contained
        stream = item.stream
        if stream is None:
            self.owner.ownership.borrow_retained(item.run.task_id)
            self._tell_agent(m.ActorCreated(self._bound.lease_id, payload if payloads.is_error(payload) else ()))
            return
        if stream.closed:  # nobody takes what would be handed over, or speaks for us
            self.owner.ownership.borrow_retained(item.run.task_id)
            return
        handed: Sequence[object] = ()
        if contained:
            hand_over = self.owner.ownership.hand_over
            if payload[0] == payloads.MANY:
                handed = tuple(hand_over(refs, stream.peer_id, stream.address) for refs in contained)
            else:
                handed = hand_over(contained, stream.peer_id, stream.address)
        retained = self.owner.ownership.retained(item.run.task_id)
        stream.send_nowait(
            m.Done(item.run.task_id, item.run.attempt, payload, outcome.seconds, tuple(handed), retained)
        )

    def _stop_if_done(self) -> None:
        if self._stop is not None and not self._pending and not self._active:
            stop, self._stop = self._stop, None
            self._leaving = True
            self.owner.start_soon(self._stop_gracefully(stop))

    async def _stop_gracefully(self, stop: Item) -> None:
        """Every call has ended: run what is to run at the end, answer, and go."""
        with contextlib.suppress(TimeoutError):  # it had its chance
            await asyncio.wait_for(asyncio.to_thread(self._run_exit_handlers), EXIT_TIMEOUT)
        self._reply(Outcome(stop, payloads.NONE))
        self._exit("it was stopped")

    def _run_exit_handlers(self) -> None:
        self._caller.actor = None  # its `__del__`, if nobody else holds it
        atexit._run_exitfuncs()

    def _exit(self, cause: str) -> None:
        self.owner.metrics.report()
        self._tell_agent(m.ActorExited(self._bound.lease_id, cause))

    # -- where user code runs ------------------------------------------------------------------------------------

    def work(self) -> None:
        """Run what arrives, for ever; the process ends from outside."""
        for stream in (sys.__stdout__, sys.__stderr__):  # they lead to a file, which somebody may be reading
            if isinstance(stream, io.TextIOWrapper):
                stream.reconfigure(line_buffering=True)
        forked.watch()
        self._writers = TaskWriter("stdout", self.emit, sys.__stdout__), TaskWriter("stderr", self.emit, sys.__stderr__)
        sys.stdout, sys.stderr = self._writers
        lane = self._lane = self._main_lane = MainLane(self._caller, self._begin, self._ended, self._hosts_concurrent)
        self._ready.set()
        lane.run()
        assert self._lane is not None
        self._lane.run()

    def emit(self, kind: str, data: str) -> bool:
        """Send output of the task or call that this thread runs; returns whether there is one."""
        context = contexts.get_current()
        if context is None:
            return False
        output = context.output
        if output is None:
            with self._output_lock:
                output = context.output = context.output or OutputBuffer(displays=context.displays)
        if output.add(kind, data):
            self.owner.inbox.put(self._flush_later, context)
        return True

    def _begin(self, item: Item) -> bool:
        """Take an item for running, unless somebody else has taken it."""
        task_id = item.run.task_id
        if self._leaving:
            return False
        self._active[task_id] = item
        pending = self._pending.pop(task_id, None)
        if pending is not item:
            del self._active[task_id]
            if pending is not None:  # the same work has come once more, as its sender was cut off: that one is run
                self._pending[task_id] = pending
            return False
        item.begun = time.monotonic()
        if item.run.lease_id:
            self._waits_under_way = 0
            self._begun.write(task_id, item.begun)
            if self._writers is not None:  # a task before this one may have put streams of its own there, and left
                sys.stdout, sys.stderr = self._writers
        return True

    def _ended(self, outcome: Outcome) -> None:
        if outcome.item.recipe.method == CREATE:
            self._choose_lane()
        self._leaving = self._leaving or outcome.item.exits
        self.owner.inbox.put_and_give_way(self._finish, outcome)

    def _choose_lane(self) -> None:
        """The actor is there: calls of one that allows it run at the same time from now on."""
        shape, caller = self._shape, self._caller
        is_async = caller.actor is not None and caller.has_async_methods()
        limits = limits_of(shape.max_concurrency or (ASYNC_CONCURRENCY if is_async else 1), dict(shape.groups))
        if is_async:
            # An actor class may bring an event loop of its own, such as uvloop's.
            make_loop = getattr(type(caller.actor), "__shoal_event_loop__", asyncio.new_event_loop)
            self._lane = AsyncLane(caller, self._begin, self._ended, limits, make_loop())
        elif limits != {"": 1}:
            self._lane = ThreadLane(caller, self._begin, self._ended, limits, self.owner.loop.call_later)

    def _hosts_concurrent(self) -> bool:
        return self._lane is not self._main_lane

    def _emit_value(self, item: Item, index: int, payload: m.Payload, contained: list[ObjectRef]) -> None:
        self.owner.inbox.put(self._send_value, (item, index, payload, contained))

    def _waits(self, waiting: bool) -> None:
        """The main thread is about to wait for a value, or goes on; awaits of one task overlap."""
        lane = self._main_lane
        item = lane.running if lane is not None else None
        if item is None or threading.get_ident() != self._main_thread or not item.run.lease_id:
            return
        before = self._waits_under_way
        self._waits_under_way = max(0, before + (1 if waiting else -1))
        if not before or not self._waits_under_way:
            self.owner.inbox.put(self._tell_waiting, (item.run.lease_id, item, waiting))


def run_executor(executor_id: str, config: OwnerConfig, agent_address: str, begun: BegunMark, log: ExecutorLog) -> None:
    """Be an executor until the process ends; called in a freshly forked child."""
    made: queue.SimpleQueue[Executor | BaseException] = queue.SimpleQueue()

    async def main() -> None:
        try:
            executor = Executor(executor_id, config, agent_address, begun, log)
            session.set_owner(executor.owner, emit=executor.emit)
        except BaseException as error:
            made.put(error)
            raise
        made.put(executor)
        try:
            await executor.start()
        except BaseException:
            os._exit(1)
        await asyncio.Event().wait()

    threading.Thread(target=lambda: asyncio.run(main()), name="shoal-io", daemon=True).start()
    executor = made.get(timeout=30.0)
    if isinstance(executor, BaseException):
        raise executor
    executor.work()
