"""What a node's agent answers when it is asked through the controller: logs, stacks and profiles of its executors."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import psutil

from shoal.model import messages as m
from shoal.model.errors import ShoalError
from shoal.observe.profiles import MAX_RATE, MAX_SECONDS, Samples
from shoal.runtime import py_spy
from shoal.runtime.begun import BegunMark
from shoal.runtime.executor_logs import ExecutorLogs
from shoal.runtime.relay import Relay
from shoal.runtime.stack_signal import ask_for_stacks
from shoal.runtime.stacks import around, is_ours, mark_users

if TYPE_CHECKING:
    from shoal.machines.pool import Executor, ExecutorPool
    from shoal.runtime.scope import Scope
    from shoal.transport.stream import Stream

#: Seconds that an executor has to describe itself before it counts as stuck.
STACK_SECONDS = 2.0
#: Seconds beyond those of a profile in which it has to be there.
PROFILE_GRACE = 5.0


class ExecutorRow(NamedTuple):
    """An executor of a node.

    ``state`` is ``starting``, ``spare`` (it has not served anybody), ``idle``, ``tasks``, ``actor`` or ``ended`` (its
    log is still there). ``task`` is the one that began last, ``since`` for how many seconds it has been running or, if
    it has ended, since it began; -1 if there is none. ``memory`` is in bytes, 0 if unknown.
    """

    id: str
    pid: int
    state: str
    job: str
    actor: str
    task: str
    since: float
    memory: int


class AgentAnswers:
    """See the module's description. Lives on the agent's event loop."""

    def __init__(
        self,
        pool: ExecutorPool,
        logs: ExecutorLogs,
        directory: Path,
        scope: Scope,
        streams: dict[str, Stream],
        reply: Callable[[m.Answer], None],
    ) -> None:
        """Answer for the executors of *pool*, whose files are in *directory*, over their *streams*."""
        self._pool = pool
        self._logs = logs
        self._directory = directory
        self._scope = scope
        self._streams = streams
        self._reply = reply
        self._relay = Relay(self._send)
        #: The actor of each executor that has one.
        self.actors: dict[str, str] = {}
        self._topics: dict[str, Callable[..., Awaitable[Any]]] = {
            "executors": self._executors,
            "log_sources": self._log_sources,
            "log": self._log,
            "stack": self._stack,
            "profile": self._profile,
        }

    def serve(self, question: m.Ask) -> None:
        """Answer a question that the controller has passed on, in the background."""
        if question.topic in self._topics:
            self._scope.start(self._answer(question))
        else:
            self._reply(m.Answer(question.request, None, f"a node knows nothing of `{question.topic}`"))

    def answered(self, executor_id: str, answer: m.Answer) -> None:
        """An executor has answered."""
        self._relay.answered(executor_id, answer)

    def gone(self, executor_id: str) -> None:
        """An executor will not answer any more."""
        self._relay.gone(executor_id)
        self.actors.pop(executor_id, None)

    async def _answer(self, question: m.Ask) -> None:
        try:
            value = await self._topics[question.topic](*question.details)
            answer = m.Answer(question.request, value)
        except (ShoalError, LookupError, ValueError) as error:
            answer = m.Answer(question.request, None, str(error.args[0] if error.args else error))
        except Exception as error:  # boundary: whoever asked is told
            answer = m.Answer(question.request, None, f"{type(error).__name__}: {error}")
        self._reply(answer)

    def _send(self, executor_id: str, message: m.Message) -> bool:
        stream = self._streams.get(executor_id)
        if stream is not None:
            stream.send_nowait(message)
        return stream is not None

    async def _ask(self, executor_id: str, topic: str, *details: Any, timeout: float) -> Any:
        """Ask an executor; raises what :meth:`_answer` tells on, and TimeoutError, which it does not know."""
        answer: asyncio.Future[Any] = asyncio.get_running_loop().create_future()

        def reply(value: Any, failed: str) -> None:
            if answer.done():
                return
            if failed:
                answer.set_exception(ShoalError(failed))
            else:
                answer.set_result(value)

        self._relay.ask(m.Ask(0, topic, details, executor_id), reply, time.monotonic())
        async with asyncio.timeout(timeout):
            return await answer

    def _executor(self, executor_id: str) -> Executor:
        executor = self._pool.executors.get(executor_id)
        if executor is None or not executor.pid:
            raise LookupError(f"this node has no executor `{executor_id}` (any more)")
        return executor

    # -- topics --------------------------------------------------------------------------------------------------

    async def _executors(self) -> tuple[ExecutorRow, ...]:
        running = [
            (executor.executor_id, executor.pid, executor.job_id, self._state(executor))
            for executor in self._pool.executors.values()
        ]
        actors = dict(self.actors)
        return await asyncio.to_thread(
            lambda: tuple(
                [
                    *(self._row(*row, actors.get(row[0], "")) for row in running),
                    *(ExecutorRow(id, 0, "ended", "", "", "", -1.0, 0) for id in self._logs.ended_ids()),
                ]
            )
        )

    def _state(self, executor: Executor) -> str:
        if not executor.address:
            return "starting"
        if not executor.job_id:
            return "spare"
        if not executor.lease_id:
            return "idle"
        return "actor" if executor.executor_id in self.actors else "tasks"

    def _row(self, executor_id: str, pid: int, job_id: str, state: str, actor_id: str) -> ExecutorRow:
        path = self._directory / f"{executor_id}.begun"
        try:
            task_id, memory = BegunMark.read(path), psutil.Process(pid).memory_info().rss if pid else 0
        except (OSError, psutil.Error):
            task_id, memory = "", 0
        since = time.monotonic() - BegunMark.read_time(path) if task_id else -1.0
        return ExecutorRow(executor_id, pid, state, job_id, actor_id, task_id, round(since, 3), memory)

    async def _log_sources(self, source: str) -> tuple[str, ...]:
        return tuple(await asyncio.to_thread(self._logs.sources, source))

    async def _log(
        self, source: str, offset: int = 0, limit: int = 1_000, filter: str = "", task_id: str = ""
    ) -> dict[str, Any]:
        """Answer with ``executor``, ``rows`` (:class:`~shoal.runtime.log_files.LogLine`), ``offset`` and ``ended``.

        *offset* and the one returned are as for :func:`~shoal.runtime.log_files.read_lines`.
        """
        executor_id, lines, following, ended = await asyncio.to_thread(
            self._logs.read, str(source), int(offset), int(limit), str(filter or ""), str(task_id or "")
        )
        return {"executor": executor_id, "rows": tuple(lines), "offset": following, "ended": ended}

    async def _stack(self, executor_id: str) -> str:
        executor = self._executor(executor_id)
        status = await asyncio.to_thread(_status, executor.pid)
        head = f"executor {executor_id}, process {executor.pid}"
        if status != psutil.STATUS_STOPPED:
            try:
                return f"{head}\n\n{await self._ask(executor_id, 'stack', timeout=STACK_SECONDS)}"
            except TimeoutError:
                status = await asyncio.to_thread(_status, executor.pid)
        is_stopped = status == psutil.STATUS_STOPPED
        if is_stopped:
            head = f"{head}: it is stopped (SIGSTOP, or a debugger), and goes on with `kill -CONT {executor.pid}`"
        else:
            head = f"{head}: its interpreter answers nothing: C code holds its lock (state: {status})"
        try:
            found = mark_users(await py_spy.dump(executor.pid))
            return f"{head}\nby py-spy, the innermost frame first:\n\n{found}"
        except py_spy.NotPossibleError as error:
            why = str(error)
        if not is_stopped:
            text = await asyncio.to_thread(ask_for_stacks, self._directory, executor_id, executor.pid, STACK_SECONDS)
            if text:
                return f"{head}\nby its fault handler, the innermost frame first:\n\n{mark_users(text)}"
        return f"{head}\n\nIts stacks cannot be shown: {why}."

    async def _profile(self, executor_id: str, seconds: float = 5.0, rate: float = 100.0) -> Samples:
        if not 0 < float(seconds) <= MAX_SECONDS or not 1 <= float(rate) <= MAX_RATE:
            raise ValueError(
                f"a profile takes more than 0 and up to {MAX_SECONDS:g} s, with a rate of 1 to {MAX_RATE:g} a second"
            )
        executor = self._executor(executor_id)
        try:
            return _trimmed(await py_spy.record(executor.pid, float(seconds), float(rate), self._directory))
        except py_spy.NotPossibleError as error:
            why = str(error)
        try:
            asked = self._ask(
                executor_id, "profile", float(seconds), float(rate), timeout=float(seconds) + PROFILE_GRACE
            )
            return Samples.from_wire(await asked)
        except TimeoutError:
            raise ShoalError(
                f"executor `{executor_id}` gave no profile: it is stopped, or C code holds its interpreter's lock, and "
                f"{why}"
            ) from None


def _trimmed(samples: Samples) -> Samples:
    """Leave out the frames of shoal around the user's, and the threads of shoal itself."""
    stacks = []
    for numbers, count in samples.stacks:
        skip = around(numbers, lambda number: samples.frames[number][1])
        rest = numbers[skip:]
        if not any(is_ours(samples.frames[number][1]) for number in rest[:1]):
            stacks.append((rest, count))
    return samples._replace(stacks=tuple(stacks))


def _status(pid: int) -> str:
    try:
        return str(psutil.Process(pid).status())
    except psutil.Error:
        return "gone"
