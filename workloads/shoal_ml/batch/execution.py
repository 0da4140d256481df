"""A run of a plan: the shell around the flow machine, with shoal's tasks and actors.

One thread, ``shoal-batch``, owns the run: it takes events (work that has ended, replicas that are ready, blocks that
were taken), tells the machine, and does what it says. Another reads the source, which may be user code that takes its
time. The consumer takes handles on its own thread; the data stays where it was made. However a run ends, its work is
cancelled and its replicas go, or back to who keeps them.
"""

from __future__ import annotations

import contextlib
import contextvars
import dataclasses
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import shoal
from shoal.api.arrivals import Arrivals
from shoal.errors import ActorDiedError, ActorUnavailableError, GetTimeoutError
from shoal.runtime import session
from shoal_ml.batch import flow as f
from shoal_ml.batch.feeder import Feeder, closers
from shoal_ml.batch.handles import Handle
from shoal_ml.batch.plan import Plan, PlannedStage, make_stages
from shoal_ml.batch.progress import RunProgress
from shoal_ml.batch.replicas import Replicas
from shoal_ml.batch.stage_work import Made, StageTask
from shoal_ml.batch.work_info import WorkInfo

#: Bytes that a run may hold, unless told otherwise.
DEFAULT_BUDGET = 512 << 20
#: Values that a streaming piece of work may be ahead of the run: two blocks and what is told of them.
MAX_PENDING = 4
#: Seconds between two looks at replicas that may be idle.
TICK_SECONDS = 1.0
#: Seconds in which a run that was closed lets go of everything.
CLOSE_SECONDS = 10.0


@dataclasses.dataclass(frozen=True, slots=True)
class RunOptions:
    """How a plan is run.

    Attributes
    ----------
    memory_budget
        Bytes of blocks that may be held at once: waiting, worked on, made and not taken.
    preserve_order
        Give blocks in the order of the source; otherwise as they are ready.
    watch
        Told of each run that begins with these options.
    """

    memory_budget: int = DEFAULT_BUDGET
    preserve_order: bool = True
    watch: Callable[[Run], None] | None = None


class Run:
    """One run of a plan; an iterator of handles. Close it: leaving it open keeps its replicas."""

    def __init__(self, plan: Plan, options: RunOptions = RunOptions()) -> None:
        total = shoal.cluster_resources()
        self._num_cpus = max(1, int(total.get("num_cpus", 1)))
        self.stages = make_stages(plan, self._num_cpus, total)
        self.flow = f.Flow(
            [stage.spec for stage in self.stages], budget=options.memory_budget, ordered=options.preserve_order
        )
        self._cell = shoal.get_runtime_context().cell or session.current_cell()
        self.progress = RunProgress(self.flow, self.stages, self._cell)
        self._events, self._output = Arrivals(), Arrivals()
        self._callers = [_Caller(stage, self._cell) for stage in self.stages]
        self._listeners = [stage.compute.listen and stage.compute.listen() for stage in self.stages]
        self._under_way: dict[int, shoal.ObjectRefGenerator] = {}
        self._replicas: dict[int, tuple[int, shoal.ActorHandle]] = {}
        self._error: BaseException | None = None
        self._begin = time.monotonic()
        self._feeder = Feeder(lambda: plan.source.handles(plan.wishes(self._num_cpus)), self._events)
        self._closed = threading.Event()
        context = contextvars.copy_context()
        self._thread = threading.Thread(target=lambda: context.run(self._serve), name="shoal-batch", daemon=True)
        self._ended = False
        if options.watch is not None:
            options.watch(self)

    def start(self) -> Run:
        """Begin; returns at once."""
        outer = closers.get()
        if outer is not None:
            outer.append(self.close)
        self._thread.start()
        return self

    def __iter__(self) -> Iterator[Handle]:
        return self

    def __next__(self) -> Handle:
        if self._ended:
            raise StopIteration
        kind, value = self._output.get()
        if kind == "block":
            self._events.put(lambda: self.flow.taken(value))
            return value  # type: ignore[no-any-return]
        self._ended = True
        self.close()
        if kind == "error":
            raise value
        raise StopIteration

    def close(self) -> None:
        """Cancel what is under way, end the replicas, and wait until that is done. Harmless if repeated."""
        self._ended = True
        self._closed.set()
        self._events.put(None)
        if self._thread.ident is not None and self._thread is not threading.current_thread():
            self._thread.join(CLOSE_SECONDS)

    def __enter__(self) -> Run:
        return self.start()

    def __exit__(self, *exc_info: object) -> None:
        self.close()

    # -- on thread shoal-batch ---------------------------------------------------------------------------------

    def _serve(self) -> None:
        try:
            with self.progress:
                self._do(self.flow.begin())
                while not (self._closed.is_set() or self.flow.finished or self.flow.failed):
                    event = self._next_event()
                    if event is not None:
                        self._do(event())
        except BaseException as error:  # boundary: whatever goes wrong here is raised where results are taken
            self._error = error
        finally:
            self._let_go()
            self._output.put(("end", None) if self._error is None else ("error", self._error))

    def _next_event(self) -> Callable[[], Sequence[f.Action]] | None:
        try:
            event: Callable[[], Sequence[f.Action]] | None = self._events.get(TICK_SECONDS)
        except GetTimeoutError:
            now = time.monotonic() - self._begin
            return lambda: self.flow.tick(now)
        return event

    def _do(self, actions: Sequence[f.Action]) -> None:
        for action in actions:
            match action:
                case f.Begin(work):
                    self._begin_work(work)
                case f.Emit(handle):
                    self._output.put(("block", handle))
                case f.Pull():
                    self._feeder.pull(self._has_pulled, self._source_failed)
                case f.Abandon(work):
                    self._cancel(self._under_way.pop(work.work_id))
                case f.StartReplica(stage, replica):
                    self._start_replica(stage, replica)
                case f.StopReplica(stage, replica):
                    self._stop_replica(stage, replica)

    def _has_pulled(self, handle: Handle | None) -> Sequence[f.Action]:
        return self.flow.source_ended() if handle is None else self.flow.pulled(handle)

    def _source_failed(self, error: BaseException) -> Sequence[f.Action]:
        raise error

    def _begin_work(self, work: f.Work) -> None:
        caller = self._callers[work.stage]
        parts = [(handle.start, handle.stop) for handle in work.inputs]
        values = [handle.value for handle in work.inputs]
        replica = self._replicas[work.replica][1] if work.replica is not None else None
        info = WorkInfo(work.number, _keys_of(work), work.attempt)
        stream = caller.call(replica, work.received, info, parts, values)
        self._under_way[work.work_id] = stream
        self._events.watch(stream, lambda: self._has_yielded(work, stream, []))

    def _has_yielded(
        self, work: f.Work, stream: shoal.ObjectRefGenerator, got: list[shoal.ObjectRef]
    ) -> Sequence[f.Action]:
        """The next value of a stream is there: a block, what is told of it, or the end."""
        if work.work_id not in self._under_way:
            return ()
        actions: Sequence[f.Action] = ()
        try:
            got.append(stream.next(0))
            if len(got) == 2:
                block = got[0]
                try:
                    made = shoal.get(got[1])
                except BaseException as error:  # it has ended between the two
                    self._under_way.pop(work.work_id, None)
                    return self._has_failed(work, error)
                self._note(work.stage, made)
                got = []
                actions = self.flow.result(work, work.received, _handle_of(work, block, made))
        except StopIteration:
            self._under_way.pop(work.work_id, None)
            return self._stream_has_ended(work, got)
        self._events.watch(stream, lambda: self._has_yielded(work, stream, got))
        return actions

    def _stream_has_ended(self, work: f.Work, rest: list[shoal.ObjectRef]) -> Sequence[f.Action]:
        """A stream that fails has its error as the last value."""
        try:
            shoal.get(rest)
        except BaseException as error:  # whatever the user's function raised
            return self._has_failed(work, error)
        return self.flow.ended(work)

    def _note(self, stage: int, made: Made) -> None:
        self.progress.note(stage, made)
        listener = self._listeners[stage]
        if listener is not None:
            listener(made)

    def _has_failed(self, work: f.Work, error: BaseException) -> Sequence[f.Action]:
        if not isinstance(error, ActorDiedError | ActorUnavailableError) or work.replica is None:
            raise _explained(error, self.stages[work.stage], work)
        self._error = error  # if it is the last
        actions = self._replica_ended(work.stage, work.replica)
        actions = [*actions, *self.flow.lost(work)]
        if not self.flow.failed:
            self._error = None
        return actions

    def _start_replica(self, stage: int, replica: int) -> None:
        handle = self._callers[stage].replicas.take()
        self._replicas[replica] = stage, handle
        planned = self.stages[stage]
        ready = handle.ready.options(cell=self._cell).remote(planned.transforms, planned.spec.min_rows > 0)
        self._events.watch(ready, lambda: self._replica_ready(stage, replica, ready))

    def _replica_ready(self, stage: int, replica: int, ready: shoal.ObjectRef) -> Sequence[f.Action]:
        if replica not in self._replicas:
            return ()
        try:
            shoal.get(ready)
        except (ActorDiedError, ActorUnavailableError) as error:
            self._error = error
            actions = self._replica_ended(stage, replica)
            if not self.flow.failed:
                self._error = None
            return actions
        return self.flow.replica_ready(stage, replica)

    def _replica_ended(self, stage: int, replica: int) -> Sequence[f.Action]:
        found = self._replicas.pop(replica, None)
        if found is not None:
            self._callers[stage].replicas.discard(found[1])
        return self.flow.replica_lost(stage, replica)

    def _stop_replica(self, stage: int, replica: int) -> None:
        found = self._replicas.pop(replica, None)
        if found is not None:
            self._callers[stage].replicas.give_back(found[1])

    def _cancel(self, stream: shoal.ObjectRefGenerator) -> None:
        with contextlib.suppress(Exception):  # boundary: the session may have ended
            shoal.cancel(stream)

    def _let_go(self) -> None:
        """Leave nothing behind, however far it came."""
        self._feeder.close()
        self._events.close()
        busy = {work.replica for stage in self.flow.stages for work in stage.running.values()}
        for stream in self._under_way.values():
            self._cancel(stream)
        for replica, (stage, handle) in self._replicas.items():
            pool = self._callers[stage].replicas
            with contextlib.suppress(Exception):  # boundary: the session may have ended
                pool.discard(handle) if replica in busy or self._error is not None else pool.give_back(handle)
        self._under_way.clear()
        self._replicas.clear()


class _Caller:
    """Submits the work of one stage."""

    def __init__(self, stage: PlannedStage, cell: str | None) -> None:
        self._options: dict[str, Any] = {
            "name": stage.spec.name,
            "cell": cell,
            "max_pending": MAX_PENDING,
            "num_returns": "streaming",
        }
        self._function: shoal.RemoteFunction | None = None
        self._methods: dict[shoal.ActorHandle, Any] = {}
        gathers = stage.spec.min_rows > 0
        if stage.compute.is_pool:
            options = dict(stage.compute.options) | {"cell": cell}
            self.replicas = stage.compute.replicas or Replicas(options, name=stage.spec.name)
        else:
            function = shoal.remote(StageTask(stage.transforms, gathers))
            self._function = function.options(**dict(stage.compute.options), **self._options)

    def call(
        self,
        replica: shoal.ActorHandle | None,
        skip: int,
        info: WorkInfo,
        parts: Sequence[Any],
        values: Sequence[Any],
    ) -> Any:
        """Submit one piece of work; returns the stream of its results."""
        if self._function is not None:
            return self._function.remote(info, parts, *values)
        assert replica is not None
        method = self._methods.get(replica)
        if method is None:
            method = self._methods[replica] = replica.run.options(**self._options)
        return method.remote(skip, info, parts, *values)


def _handle_of(work: f.Work, block: shoal.ObjectRef, made: Made) -> Handle:
    remarks = tuple(remark for handle in work.inputs for remark in handle.remarks)
    return Handle(block, made.num_rows, made.nbytes, _keys_of(work), remarks=(*remarks, *made.remarks))


def _keys_of(work: f.Work) -> tuple[str, ...]:
    return tuple(dict.fromkeys(key for handle in work.inputs for key in handle.keys))


def _explained(error: BaseException, stage: PlannedStage, work: f.Work) -> BaseException:
    """Say with an error where in the plan it was raised."""
    keys = _keys_of(work)
    where = f" on {', '.join(keys[:3])}" + (" …" if len(keys) > 3 else "") if keys else ""
    error.add_note(f"Raised in `{stage.spec.name}`{where}.")
    return error


__all__ = ["DEFAULT_BUDGET", "Run", "RunOptions"]
