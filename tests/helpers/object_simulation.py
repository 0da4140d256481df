"""Who owns and borrows what, without processes: a deterministic simulation of object ownership.

The object table, ``Ownership``, ``Results``, ``Recovery``, the message handlers of ``Owner`` and ``Executor``, the
calling of user code and the pickling of refs are the real ones. What is simulated is what lies around them: a network
that keeps order on each connection and none between connections, threads that run user code step by step between the
turns of the event loop, a store, and processes, connections and stored values that go at random.

Whatever happens, no object is freed while somebody holds a ref to it, nobody waits for ever, and when the last ref is
dropped nothing is left: no entry in any table, no count, no segment, and none has been freed twice.
"""

from __future__ import annotations

import contextlib
import gc
import pickle
import re
from collections import Counter, deque
from collections.abc import Callable, Generator, Iterator, Sequence
from random import Random
from types import SimpleNamespace
from typing import Any

from shoal.model import messages as m
from shoal.model.errors import (
    ExecutorCrashedError,
    ObjectLostError,
    OwnerDiedError,
    TaskCancelledError,
    TaskTimeoutError,
)
from shoal.runtime import context as contexts
from shoal.runtime import payload as payloads
from shoal.runtime import refs as refs_module
from shoal.runtime.base_owner import BaseOwner
from shoal.runtime.calling import Caller, Item, Outcome
from shoal.runtime.cell_memory_reporter import CellMemoryReporter
from shoal.runtime.executor import Executor
from shoal.runtime.inbox import Inbox
from shoal.runtime.links import Links
from shoal.runtime.owner import Owner, OwnerConfig
from shoal.runtime.ownership import Ownership
from shoal.runtime.recovery import Recovery
from shoal.runtime.refs import ObjectRef
from shoal.runtime.results import Results
from shoal.runtime.task_runner import define
from shoal.runtime.work import Exported, Target, Work

#: More than travels inside a message.
FILLER = bytes(payloads.INLINE_LIMIT)
STORE = "/the store/"
NODE = "node"
END = object()
#: What user code may get when something was lost.
ERRORS = ExecutorCrashedError, ObjectLostError, OwnerDiedError, TaskCancelledError, TaskTimeoutError
MAX_STEPS = 100_000

#: What user code sees: a name, refs, and perhaps a filler that makes it large.
Value = tuple[str, list[ObjectRef], bytes]
#: User code, a step at a time; yields to let others do something, maybe with what it waits for.
Steps = Generator[Callable[[], bool] | None, None, Any]
#: What a task does with the refs in its arguments.
Body = Callable[["Process", list[ObjectRef]], Steps]


class World:
    """Processes, what is on its way between them, and what their values are; also what a store and its agent do."""

    def __init__(self, seed: int, num_drivers: int = 1, num_executors: int = 3, slots: int = 2) -> None:
        self.random = Random(seed)
        self.streams: list[Stream] = []
        self.segments: dict[str, list[bytes]] = {}
        self.freed: Counter[str] = Counter()
        #: What each object is called.
        self.names: dict[str, str] = {}
        #: What each object contains, and what the task that makes it waits for.
        self._needs: dict[str, set[str]] = {}
        self.bodies: dict[str, Body] = {"random": act_some_times}
        #: Objects that somebody may have held by leave of one that died, or by a message that was lost with a link:
        #: they may be freed too early (their holders then get an error), or be kept as long as such a holder lives.
        self.excused: set[str] = set()
        #: Whether user code may get an error: something was lost.
        self.troubled = False
        #: Two processes that connect to one another in the same moment get two connections.
        self.greetings = False
        #: Whether some tasks are given up while they run.
        self.timeouts = False
        #: Pairs of sender and receiver between which messages are held up.
        self.slow: set[tuple[str, str]] = set()
        #: What has happened, in words.
        self.trace: list[str] = []
        #: What user code was told instead of values.
        self.errors: Counter[str] = Counter()
        self.current: Process | None = None
        names = [*(f"driver{n}" for n in range(num_drivers)), *(f"exec{n}" for n in range(num_executors))]
        self.processes = [Process(self, name, slots) for name in names]
        self.at = {process.address: process for process in self.processes}

    def __getitem__(self, name: str) -> Process:
        return self.at["@" + name]

    # -- what happens ------------------------------------------------------------------------------------------------

    @contextlib.contextmanager
    def running(self) -> Iterator[None]:
        """Let refs that are unpickled belong to the process whose turn it is."""
        global WORLD
        before, WORLD = (refs_module._current_owner, WORLD), self
        collects = gc.isenabled()
        gc.disable()
        refs_module.set_current_owner(lambda: self.current)
        try:
            yield
        finally:
            refs_module._current_owner, WORLD = before
            contexts.set_main(None)
            if collects:
                gc.enable()

    def possible(self) -> list[tuple[Callable[..., None], Any]]:
        """Return everything that may happen next."""
        found: list[tuple[Callable[..., None], Any]] = []
        found += [(stream.deliver, None) for stream in self.streams if stream.coming and stream.can_deliver()]
        for process in self.processes:
            if process.alive:
                found += [(process.loop.turn, None)] if process.loop.due else []
                found += [(process.loop.timer, None)] if process.loop.later else []
                found += [(process.lane.start, None)] if process.lane.has_room() else []
                found += [(process.lane.step, thread) for thread in process.lane.threads if thread.can_go_on()]
        return found

    def step(self) -> bool:
        """Let one thing happen; returns whether there was any."""
        possible = self.possible()
        if not possible:
            return False
        function, argument = self.random.choice(possible)
        function() if argument is None else function(argument)
        self.streams = [stream for stream in self.streams if not stream.closed]
        return True

    def settle(self) -> None:
        """Go on until nothing happens any more."""
        for _ in range(MAX_STEPS):
            if not self.step():
                return
        raise AssertionError("it goes on for ever")

    def run(self, num_actions: int, faults: Sequence[Callable[[], None]] = ()) -> None:
        """Have every driver do *num_actions* things, with *faults* at random moments; then check and clear up."""
        with self.running():
            for process in self.processes:
                if process.is_driver:
                    process.begin(f"{process.owner_id}'s code", self._drive(process, num_actions))
            moments = sorted(self.random.randrange(20 * num_actions) for _ in faults)
            for number in range(20 * num_actions):
                while moments and moments[0] <= number:
                    del moments[0]
                    self.random.choice(faults)()
                self.step()
            self.settle()
            self.check_waits()
            self.let_go()

    def let_go(self) -> None:
        """Drop every ref and check that nothing is left."""
        self.settle()
        for process in self.processes:
            process.kept.clear()
        self.settle()
        if any(process.alive and len(process.table) for process in self.processes):
            gc.collect()
            self.settle()
        self.check_end()

    def _drive(self, process: Process, num_actions: int) -> Steps:
        mine: list[ObjectRef] = []
        for _ in range(num_actions):
            yield from act(process, mine)
        process.kept += mine

    # -- what breaks -------------------------------------------------------------------------------------------------

    def kill(self, process: Process) -> None:
        """End a process; what it has sent last may be lost with it."""
        if not process.alive:
            return
        self.note(f"{process.owner_id} dies")
        self.troubled = True
        self.excused.update(entry.object_id for entry in process.table.entries() if entry.owner)
        process.alive = False
        process.kept.clear()
        process.lane.clear()
        for stream in self.streams:
            if stream.process is process:
                self.excuse(stream.coming)
                stream.other.break_off()
        for path in [path for path in self.segments if path.startswith(f"{STORE}{process.owner_id}.")]:
            self.free(path)  # the agents do, when they hear of it

    def kill_some(self) -> None:
        victims = [process for process in self.processes if process.alive and process is not self.processes[0]]
        if victims:
            self.kill(self.random.choice(victims))

    def cut_some(self) -> None:
        """Break a connection while both ends live on."""
        open_ones = [stream for stream in self.streams if not stream.broken and stream.process.alive]
        if not open_ones:
            return
        stream = self.random.choice(open_ones)
        self.cut(stream.process, stream.other.process)

    def cut(self, one: Process, other: Process) -> None:
        self.note(f"{one.owner_id} and {other.owner_id} are cut off from one another")
        self.troubled = True
        for process, peer in ((one, other), (other, one)):
            self.excused.update(entry.object_id for entry in process.table.entries() if entry.owner == peer.address)
            for work in process.tasks.sent_to(peer.address):
                self.excused.update(ref.id for ref in (*work.holds, *work.dependencies))
                self.excused.update(mentioned(self, work.message("", process.dependency_payloads(work))))
        for stream in self.streams:
            self.excuse(stream.coming)  # others may have spoken for one of them to the other
        for stream in self.streams:
            if {stream.process, stream.other.process} == {one, other} and not stream.broken:
                stream.break_off()

    def lose_some(self) -> None:
        """What is stored somewhere is there no more."""
        held = [path for path, frames in self.segments.items() if frames]
        if held:
            self.troubled = True
            path = self.random.choice(held)
            self.note(f"{path} is lost")
            self.segments[path] = []

    def excuse(self, messages: Sequence[object]) -> None:
        """These messages are lost: what they say of refs is not heard."""
        for message in messages:
            self.excused.update(mentioned(self, message))

    # -- the store ---------------------------------------------------------------------------------------------------

    holder = NODE

    def write(self, name: str, frames: Sequence[Any]) -> tuple[str, tuple[int, ...]]:
        path = STORE + name
        assert path not in self.segments and path not in self.freed, "names are used once"
        self.segments[path] = [bytes(frame) for frame in frames]
        return path, tuple(len(frame) for frame in frames)

    def free(self, path: str) -> None:
        self.note(f"{path} is freed")
        self.freed[path] += 1
        assert self.freed[path] == 1, f"{path} is freed once more"
        del self.segments[path]

    # -- what must hold ----------------------------------------------------------------------------------------------

    def check_free(self, owner: Process, object_id: str) -> None:
        """The owner frees an object: nobody may have it, or be about to get it."""
        if object_id not in self.names:
            return  # stands for an argument of work that is done again
        self.note(f"{owner.owner_id} frees {self.names[object_id]}")
        if object_id in self.excused:
            entry_of = [process.table.get(object_id) for process in self.processes]
            for entry in filter(None, entry_of):
                self.excused.update(ref.id for ref in entry.contained)
            return
        for process in self.processes:
            if process.alive and process is not owner and object_id in process.table:
                raise AssertionError(f"{self.names[object_id]} is freed while {process.owner_id} holds it")
        for stream in self.streams:
            for message in stream.coming if stream.process.alive else ():
                if isinstance(message, m.Run) and not stream.other.process.alive:
                    continue
                if object_id in brought(self, message):
                    raise AssertionError(f"{self.names[object_id]} is freed while it travels in {show(self, message)}")

    def check_waits(self) -> None:
        """Nobody waits any more."""
        for process in self.processes:
            if process.alive:
                waiting = [thread.name for thread in process.lane.threads]
                assert not waiting, f"{process.owner_id} waits for ever: {waiting}"
                pending = [self.names.get(work.object_id, work.object_id) for work in process.results.pending()]
                assert not pending, f"{process.owner_id} expects for ever: {pending}"

    def check_end(self) -> None:
        """Nobody holds anything: nothing is left."""
        self.check_waits()
        rest = [(process, entry) for process in self.processes if process.alive for entry in process.table.entries()]
        inside, todo = set[str](), [entry for _, entry in rest if entry.object_id in self.excused]
        while todo:
            found = {ref.id for ref in todo.pop().contained} - inside
            inside |= found
            todo += [entry for _, entry in rest if entry.object_id in found]
        for process, entry in rest:
            what = f"{process.owner_id} has {self.names[entry.object_id]} left, {entry.local} {entry.borrowers}"
            assert entry.object_id in self.excused | inside, what
            assert not entry.local or entry.object_id in inside, what
        dead = {process.owner_id for process in self.processes if not process.alive}
        for _, entry in rest:
            assert not dead.intersection(entry.borrowers or ()), f"{self.names[entry.object_id]} is kept for the dead"
        for path in list(self.segments):
            owner = self["".join(path.removeprefix(STORE).split(".")[:1])]
            assert self.troubled, f"{path} is left"
            if not owner.alive or not owner._knows(path.removeprefix(STORE)):
                self.free(path)  # a stray, which its agent sees to
        kept = {
            entry.payload[2]
            for process in self.processes
            if process.alive
            for entry in process.table.entries()
            if entry.payload is not None and entry.payload[0] == payloads.SEGMENT
        }
        assert set(self.segments) <= kept, "segments are left"

    def note(self, text: str) -> None:
        self.trace.append(text)

    def new(self, name: str, refs: Sequence[ObjectRef], contained: Sequence[ObjectRef] = ()) -> None:
        """Call objects by names that tell something."""
        for index, ref in enumerate(refs):
            self.names[ref.id] = name if len(refs) == 1 else f"{name}.{index}"
            self._needs[whole(ref.id)] = {whole(part.id) for part in contained}

    def may_need(self, object_id: str, other_id: str) -> bool:
        """Whether an object may contain another, or its task wait for that: there are no cycles; if so, it does."""
        if not object_id:
            return True
        todo, seen = [whole(other_id)], set[str]()
        while todo:
            found = todo.pop()
            if found == whole(object_id):
                return False
            if found not in seen:
                seen.add(found)
                todo += self._needs.get(found, ())
        self._needs[whole(object_id)].add(whole(other_id))
        return True


#: The one that runs.
WORLD: World = None


class Stream:
    """One end of a connection: stands for :class:`shoal.transport.stream.Stream`."""

    def __init__(self, process: Process, other: Stream | None = None) -> None:
        self.process = process
        self.other: Stream = other or Stream(process, self)
        self.peer_id = self.address = ""
        self.closed = self.broken = False
        self._on_message: Callable[[Stream, Any], None] = process._peer_message
        self.defined: set[str | int] = set()
        #: What is on its way to this end.
        self.coming: deque[Any] = deque()

    def send_nowait(self, message: Any) -> None:
        if self.closed or not self.process.alive:
            return
        if self.broken:
            self.process.world.excuse([message])
        else:
            self.other.coming.append(message)

    def can_deliver(self) -> bool:
        link = self.other.process.owner_id, self.process.owner_id
        return self.process.alive and link not in self.process.world.slow

    def deliver(self) -> None:
        world, message = self.process.world, self.coming.popleft()
        world.note(f"{self.other.process.owner_id} → {self.process.owner_id}: {show(world, message)}")
        with self.process.acting(None):
            self._take(message)

    def _take(self, message: Any) -> None:
        if message is END:
            self.closed = True
            self.process.peers.links.ended(self)
        elif isinstance(message, m.PeerHello):
            self.process.peers.greeted(self, message)
        else:
            self._on_message(self, message)

    def hand_to(self, on_message: Callable[[Stream, Any], None]) -> None:
        self._on_message = on_message

    def abort(self) -> None:
        """Close this end; the other notices. What it had been sent is not read any more."""
        self.process.world.excuse(self.coming)
        self.coming.clear()
        self.break_off()
        self.closed = True

    def break_off(self) -> None:
        """The connection is no more: what was sent last, either way, is lost."""
        for end in (self, self.other):
            if not end.broken:
                end.broken = True
                lost = end.process.world.random.randrange(len(end.coming) + 1)
                end.process.world.excuse([end.coming.pop() for _ in range(lost)])
                end.coming.append(END)


class Network:
    """Stands for :class:`shoal.runtime.peers.Peers`, with its real choice between streams."""

    def __init__(self, process: Process) -> None:
        self.process = process
        self.address = "@" + process.owner_id
        self.links: Links[Stream] = Links(process._peer_message, process._peer_lost)

    def send(self, address: str, message: Any, *, agent: bool = False) -> None:
        if agent:
            assert isinstance(message, m.FreeSegment)
            self.process.world.free(message.path)
        else:
            self.to(address).send_nowait(message)

    def stream(self, address: str) -> Stream | None:
        return self.links.get(address)

    def watch(self, address: str) -> None:
        self.to(address)

    def to(self, address: str) -> Stream:
        stream = self.links.get(address)
        return stream if stream is not None else self._open(address)

    def _open(self, address: str) -> Stream:
        world = self.process.world
        assert address != self.address, "nobody connects to itself"
        stream = Stream(self.process)
        self.links.opened(address, stream)
        peer = stream.other.process = world.at[address]
        world.streams += [stream, stream.other]
        if not peer.alive:
            stream.broken = True
            stream.coming.append(END)
        else:
            self._greet(stream)
            if not world.greetings:  # it is heard at once, and answered
                stream.other.deliver()
                stream.deliver()
        return stream

    def _greet(self, stream: Stream) -> None:
        losses = self.links.losses(stream.address)
        stream.send_nowait(m.PeerHello(m.PROTOCOL_VERSION, self.process.owner_id, "job", self.address, losses))

    def greeted(self, stream: Stream, hello: m.PeerHello) -> None:
        opened = bool(stream.address)
        self.links.greeted(stream, hello)
        if not opened:
            self._greet(stream)


class Loop:
    """Stands for a process's event loop: what is due comes in order, timers go off at any time."""

    def __init__(self, process: Process) -> None:
        self._process = process
        self.due: deque[tuple[Callable[..., object], tuple[Any, ...]]] = deque()
        self.later: list[tuple[Callable[..., object], tuple[Any, ...]]] = []

    def call_soon_threadsafe(self, function: Callable[..., object], *args: Any) -> None:
        if not self._process.alive:
            raise RuntimeError
        self.due.append((function, args))

    call_soon = call_soon_threadsafe

    def call_later(self, delay: float, function: Callable[..., object], *args: Any) -> None:
        self.later.append((function, args))

    def turn(self) -> None:
        self._run(*self.due.popleft())

    def timer(self) -> None:
        self._run(*self.later.pop(self._process.world.random.randrange(len(self.later))))

    def _run(self, function: Callable[..., object], args: tuple[Any, ...]) -> None:
        with self._process.acting(None):
            function(*args)


class Process(Owner):
    """A driver or an executor: the real owner, with a network, a loop and threads that the world moves."""

    def __init__(self, world: World, name: str, slots: int) -> None:
        BaseOwner.__init__(self, name, world)
        self.world, self.alive = world, True
        self.is_driver = name.startswith("driver")
        self.config = OwnerConfig(name, "job", "", None, "", self.is_driver)
        self.job_id = "job"
        self.loop = Loop(self)
        self.inbox = Inbox(self.loop, self._after_batch)
        self.peers = Network(self)
        self.ownership = Ownership(self, self.peers, lambda object_id: world.check_free(self, object_id))
        self.results = Results(self.table, self.ownership.free, lambda: None)
        self.recovery = Recovery(self)
        self.tasks = Tasks(self)
        self.actors = NoActors()
        self.fetcher = self._last_answers = SimpleNamespace(peer_lost=nothing, ended=nothing)
        self.controller = SimpleNamespace(connected=False)
        self.metrics = SimpleNamespace(work_ended=nothing)
        self.cell_memory = CellMemoryReporter(self)
        self._submit_task, self._drop = self.tasks.submit, self.ownership.drop
        self.stoppers, self._groups, self.stores = {}, {}, {}
        self.host = Host(self)
        self.lane = Lane(self, slots)
        self._on_message, self._on_peer_lost = self.host._message, self.host._peer_lost
        #: What user code keeps: global variables, an actor's attributes.
        self.kept: list[ObjectRef] = []

    def load(self, payload: m.Payload) -> Any:
        if payload[0] != payloads.SEGMENT:
            return payloads.load(payload)
        frames = self.world.segments.get(payload[2])
        if not frames:
            raise ObjectLostError("It is gone.", object_id=payload[2])
        return pickle.loads(frames[0])

    @contextlib.contextmanager
    def acting(self, context: contexts.TaskContext | None) -> Iterator[None]:
        """Be who acts, on a thread that runs what *context* says."""
        self.world.current = self
        contexts.set_main(context)
        try:
            yield
        finally:
            contexts.set_main(None)
            self.world.current = None

    def task_object(self) -> str:
        """Return what the running task makes; "" outside of tasks."""
        context = contexts.get_current()
        return "obj" + context.task_id[4:] if context is not None else ""

    # -- what user code does -------------------------------------------------------------------------------------------

    def begin(self, name: str, steps: Steps) -> None:
        """Run *steps* as a thread that belongs to no task."""
        self.lane.threads.append(Thread(name, steps, None))

    def put_value(self, refs: Sequence[ObjectRef] = (), *, large: bool = False) -> ObjectRef:
        name = f"{self.owner_id}-v{len(self.world.names)}"
        ref = self.put((name, list(refs), FILLER if large else b""))
        self.world.new(name, [ref], refs)
        self.world.note(f"{self.owner_id} puts {name} {self.named(refs)}{' (large)' if large else ''}")
        return ref

    def submit_task(
        self,
        body: str,
        dependencies: Sequence[ObjectRef] = (),
        nested: Sequence[ObjectRef] = (),
        *,
        on: str = "",
        large: bool = False,
        large_result: bool = False,
        num_returns: int = 1,
        retries: int = 3,
        timeout: float | None = None,
    ) -> list[ObjectRef]:
        name = f"{self.owner_id}-t{len(self.world.names)}"
        self.world.troubled = self.world.troubled or timeout is not None
        exported = Exported("user_code", pickle.dumps(user_code), "user_code")
        target = Target(on or "anywhere", exported, num_returns=num_returns, retries=retries, timeout=timeout)
        args = (name, body, num_returns, large_result, list(nested), FILLER if large else b"", *dependencies)
        made = self.submit(target, args, {})
        found = made if isinstance(made, list) else [made]
        self.world.new(name, found, dependencies)
        passes = f"({self.named(dependencies)}, nested {self.named(nested)}{', large' if large else ''})"
        self.world.note(f"{self.owner_id} submits {name} {passes}")
        return found

    def get_value(self, ref: ObjectRef) -> Steps:
        """Wait for a value; returns the refs inside. As :meth:`get` does, with a step wherever others may act."""
        entry = self._entry(ref)
        name, lost = self.world.names[ref.id], None
        if entry.payload is None:
            self._request([entry])
        while True:
            yield lambda lost=lost: entry.payload is not None and entry.payload is not lost
            payload = entry.payload
            try:
                value: Value = self.load(payload)
            except ObjectLostError as error:
                if payload[0] != payloads.SEGMENT or not self.recover(entry, payload):
                    return self._failed(ref, name, type(error))
                lost = payload
                continue
            except Exception as error:
                return self._failed(ref, name, type(error))
            assert value[0] == name, "the value is another's"
            self.world.note(f"{self.owner_id} gets {name} {self.named(value[1])}")
            return value[1]

    def _failed(self, ref: ObjectRef, name: str, error: type[BaseException]) -> list[ObjectRef]:
        self.world.note(f"{self.owner_id} gets {error.__name__} for {name}")
        self.world.errors[error.__name__] += 1
        assert self.world.troubled, f"{self.owner_id} gets {error.__name__} for {name}"
        assert issubclass(error, ERRORS), error
        return []

    def named(self, refs: Sequence[ObjectRef]) -> list[str]:
        return [self.world.names[ref.id] for ref in refs]


class Tasks:
    """Stands for :class:`shoal.runtime.task_runner.TaskRunner`: sends each task to some executor, again if it dies."""

    def __init__(self, owner: Process) -> None:
        self._owner = owner
        #: Work under way, and where.
        self._sent: dict[str, tuple[Work, str]] = {}
        self._left: dict[str, int] = {}

    def sent_to(self, address: str) -> list[Work]:
        return [work for work, where in self._sent.values() if where == address]

    def submit(self, work: Work) -> None:
        self._owner.results.expect(work)
        if self._owner.dead_on_arrival(work):
            return
        if work.target.timeout is not None:
            self._owner.loop.call_later(work.target.timeout, self._owner.timed_out, work)
        self._left[work.task_id] = work.target.retries
        self._when_ready(work)

    def _when_ready(self, work: Work) -> None:
        if work.dependencies:
            self._owner.when_ready(work, lambda: self._send(work))
        else:
            self._send(work)

    def _send(self, work: Work) -> None:
        world = self._owner.world
        where = [process for process in world.processes if process is not self._owner and not process.is_driver]
        living = [process for process in where if process.alive] or where
        receiver = world[work.target.name] if work.target.name != "anywhere" else world.random.choice(living)
        stream = self._owner.peers.to(receiver.address)
        self._sent[work.task_id] = work, receiver.address
        define(stream, work)
        dependencies = self._owner.dependency_payloads(work) if work.dependencies else ()
        stream.send_nowait(work.message("", dependencies, work.attempt))
        self._owner.results.sent(work)

    def is_current(self, task_id: str, attempt: int) -> bool:
        return task_id in self._sent and self._sent[task_id][0].attempt == attempt

    def finished(self, message: m.Done) -> Work:
        return self._sent.pop(message.task_id)[0]

    def dependency_lost(self, message: m.Done) -> None:
        work, _ = self._sent.pop(message.task_id)
        self._owner.results.unsent(work)
        self._owner.recovery.dependency_lost(work, message.payload)
        work.attempt += 1
        self._when_ready(work)

    def peer_lost(self, address: str) -> None:
        for work in self.sent_to(address):
            self._owner.loop.call_later(0.0, self._surely_lost, work, work.attempt)

    def _surely_lost(self, work: Work, attempt: int) -> None:
        if not self.is_current(work.task_id, attempt):
            return
        del self._sent[work.task_id]
        if self._owner.results.awaited(work) and self._left[work.task_id]:
            self._left[work.task_id] -= 1
            work.attempt += 1
            self._send(work)
        else:
            error = ExecutorCrashedError("It died.", cause="it died", stderr="")
            self._owner.results.complete(work, payloads.from_error(error), failed=True)

    def cancel(self, task_id: str, **options: bool) -> None:
        if task_id in self._sent:
            self._owner.peers.send(self._sent[task_id][1], m.CancelTask(task_id, False, False))

    def spec_of(self, task_id: str) -> Work | None:
        return self._sent[task_id][0] if task_id in self._sent else None

    def works(self) -> list[Work]:
        return [work for work, _ in self._sent.values()]

    def flush_if_due(self) -> None: ...


class NoActors:
    """Stands for :class:`shoal.runtime.actor_caller.ActorCaller`: executors are told apart by what they keep alone."""

    def is_call(self, task_id: str) -> bool:
        return False

    def peer_lost(self, address: str) -> None: ...

    def give_up(self, work: Work) -> bool:
        return False

    def cancel(self, work: Work, *, recursive: bool) -> bool:
        return False

    def keeps_arguments(self, object_id: str) -> bool:
        return False

    def works(self) -> list[Work]:
        return []


class NoLog:
    """Stands for an executor's log: what a task prints is nowhere."""

    def printed(self, *_: object) -> None:
        pass

    def ended(self, *_: object, **__: object) -> None:
        pass


class Host(Executor):
    """The real executor's handling of work, without an agent."""

    def __init__(self, process: Process) -> None:
        self.owner = process
        self.executor_id = process.owner_id
        self._agent = None
        self._caller = Caller(process, self._emit_value, nothing)
        self._recipes = {}
        self._bound = m.Bind("", (), None, "", b"", "")
        self._early = []
        self._pending, self._active = {}, {}
        self._stop, self._leaving = None, False
        self._preloaded = set()
        self._log = NoLog()
        #: As if it were due: nobody looks.
        self._look_due = True

    @property
    def _lane(self) -> Any:
        return self.owner.lane


class Thread:
    """User code that runs: a task, or a driver's own."""

    def __init__(self, name: str, steps: Steps, item: Item | None) -> None:
        self.name, self.item = name, item
        self._steps = steps
        self._until: Callable[[], bool] | None = None

    def can_go_on(self) -> bool:
        return self._until is None or self._until() or self._interrupted()

    def go_on(self) -> None:
        """Do the next step; raises what the code does in the end, or ``StopIteration`` with what it returns."""
        if self._interrupted():
            self._steps.throw(KeyboardInterrupt())
        self._until = next(self._steps)

    def _interrupted(self) -> bool:
        return self.item is not None and self.item.context.cancelled


class Lane:
    """Stands for an executor's :mod:`shoal.runtime.lanes`: a few threads, each of which the world moves by steps."""

    def __init__(self, process: Process, slots: int) -> None:
        self._process, self.slots = process, slots
        self._queue: deque[Item] = deque()
        self.threads: list[Thread] = []

    def put(self, item: Item) -> None:
        self._queue.append(item)

    def interrupt(self, item: Item) -> None:
        """It notices with its next step."""

    def has_room(self) -> bool:
        return bool(self._queue) and sum(thread.can_go_on() for thread in self.threads) < self.slots

    def start(self) -> None:
        item, host = self._queue.popleft(), self._process.host
        if not host._begin(item):
            return
        with self._process.acting(item.context):
            try:
                steps = host._caller.start(item)
            except BaseException as error:  # what it depends on is lost
                host._ended(Outcome(item, host._caller.blame(item, error)))
            else:
                self.threads.append(Thread(item.run.task_id, steps, item))

    def step(self, thread: Thread) -> None:
        host, item = self._process.host, thread.item
        with self._process.acting(item.context if item is not None else None):
            try:
                thread.go_on()
                return
            except StopIteration as end:
                payload, contained = host._caller._finish(item, end.value) if item is not None else ((), ())
            except KeyboardInterrupt as error:
                payload, contained = host._caller.blame(item, error), ()
        self.threads.remove(thread)
        if item is not None:
            host._ended(Outcome(item, payload, 0.0, contained))

    def clear(self) -> None:
        self._queue.clear()
        self.threads.clear()


# -- user code -------------------------------------------------------------------------------------------------------


def user_code(name: str, body: str, num_returns: int, large: bool, nested: list[ObjectRef], _: bytes, *values: Value):
    """Be a task."""
    refs = [*nested, *(ref for value in values for ref in value[1])]
    return _run_body(WORLD.current, WORLD.bodies[body], name, num_returns, FILLER if large else b"", refs)


def _run_body(process: Process, body: Body, name: str, num_returns: int, filler: bytes, refs: list[ObjectRef]) -> Steps:
    returned = yield from body(process, refs)
    if num_returns == 1:
        return name, returned, filler
    return [(f"{name}.{index}", returned[index::num_returns], filler) for index in range(num_returns)]


def act_some_times(process: Process, mine: list[ObjectRef]) -> Steps:
    """Be a task that does this and that."""
    random = process.world.random
    for _ in range(random.randrange(6)):
        yield
        yield from act(process, mine)
    yield
    return [ref for ref in some(random, mine, 3) if process.world.may_need(process.task_object(), ref.id)]


def act(process: Process, mine: list[ObjectRef]) -> Steps:
    """Do something with the refs in *mine* and those that the process keeps."""
    world, kept = process.world, process.kept
    random = world.random
    match random.choice(["put", "submit", "submit", "drop", "drop", "get", "get", "keep", "take", "forget"]):
        case "put":
            mine.append(process.put_value(some(random, mine, 2), large=random.random() < 0.3))
        case "submit":
            mine += process.submit_task(
                "random",
                some(random, mine, 2),
                some(random, mine, 2),
                large=random.random() < 0.2,
                large_result=random.random() < 0.3,
                num_returns=random.choice([1, 1, 1, 2]),
                timeout=1.0 if world.timeouts and random.random() < 0.1 else None,
            )
        case "drop" if mine:
            del mine[random.randrange(len(mine))]
        case "get" if mine:
            ref = random.choice(mine)
            if world.may_need(process.task_object(), ref.id):
                mine += yield from process.get_value(ref)
        case "keep" if mine:
            kept.append(random.choice(mine))
        case "take" if kept:
            mine.append(random.choice(kept))
        case "forget" if kept:
            del kept[random.randrange(len(kept))]
    yield


def some(random: Random, refs: Sequence[ObjectRef], most: int) -> list[ObjectRef]:
    return [random.choice(refs) for _ in range(random.randrange(most + 1))] if refs else []


# -- looking into messages -------------------------------------------------------------------------------------------

_IDS = re.compile(rb"obj-[0-9a-f]+-[0-9]+(?:\.[0-9]+)?")


def ids_in(world: World, payload: m.Payload) -> list[str]:
    """Return the objects that refs inside a value refer to."""
    if payload and payload[0] == payloads.MANY:
        return [object_id for part in payload[1:] for object_id in ids_in(world, part)]
    if not payload or payload[0] not in (payloads.INLINE, payloads.SEGMENT):
        return []
    frames = world.segments.get(payload[2], []) if payload[0] == payloads.SEGMENT else payload[1:2]
    return [found.decode() for frame in frames for found in _IDS.findall(frame[:8192])]


def brought(world: World, message: Any) -> list[str]:
    """Return the objects whose refs a message brings."""
    match message:
        case m.Run():
            return [found for part in (message.args, *message.dependencies) for found in ids_in(world, part)]
        case m.Done() | m.Located():
            return ids_in(world, message.payload)
    return []


def mentioned(world: World, message: Any) -> list[str]:
    """Return the objects that a message is about, too."""
    match message:
        case m.Done():
            return [*brought(world, message), *(object_id for object_id, _ in message.retained)]
        case m.Borrow() | m.Locate() | m.Lost() | m.Located():
            return [message.object_id, *brought(world, message)]
    return brought(world, message)


def show(world: World, message: Any) -> str:
    if message is END:
        return "the end"
    if isinstance(message, m.Borrow):
        return f"Borrow {world.names[message.object_id]} {message.borrower} {message.change:+}"
    names = [world.names.get(object_id, object_id) for object_id in mentioned(world, message)]
    retained = [world.names[object_id] for object_id, _ in message.retained] if isinstance(message, m.Done) else ""
    return f"{type(message).__name__} {names}{f' retained {retained}' if retained else ''}"


def whole(object_id: str) -> str:
    """Return what stands for all results of a task."""
    return object_id.partition(".")[0]


def nothing(*_: object) -> None: ...
