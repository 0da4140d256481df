"""The node agent: executors, object store and resources of one Dask worker's share of a machine."""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from shoal.machines import pool
from shoal.machines.devices import DeviceShares
from shoal.model import messages as m
from shoal.model.amounts import format_nbytes
from shoal.model.errors import ConnectError
from shoal.model.ids import random_id
from shoal.model.resources import from_wire, make_resources
from shoal.runtime import leftovers
from shoal.runtime.agent_answers import AgentAnswers
from shoal.runtime.begun import BegunMark
from shoal.runtime.environment import silence_limit
from shoal.runtime.executor_logs import ExecutorLogs
from shoal.runtime.gpu_meter import GpuMeter
from shoal.runtime.gpus import visible_gpus
from shoal.runtime.heartbeat import Heartbeat
from shoal.runtime.memory_watch import Executors, MemorySettings, MemoryWatch
from shoal.runtime.node_meter import NodeMeter
from shoal.runtime.scope import Scope
from shoal.runtime.segment_service import SegmentService
from shoal.runtime.stopped import StoppedProcesses
from shoal.runtime.store import Limits, Store
from shoal.runtime.template_config import TemplateConfig
from shoal.runtime.template_process import Process, TemplateProcess, spawn_template
from shoal.runtime.versions import versions_here
from shoal.transport.comms import Security, address_host, connect
from shoal.transport.stream import Comm, Stream

logger = logging.getLogger("shoal")

CONNECT_TIMEOUT = 10.0
#: Seconds between two reports of the node's load.
USAGE_INTERVAL = 1.0
#: Seconds for which changes in Dask's own load gather before they are reported.
BUSY_INTERVAL = 0.05
#: Seconds in which a template cleans up.
TEMPLATE_GRACE = 5.0
#: How often a template that ended by itself is replaced.
MAX_TEMPLATE_ENDS = 3


class Agent:
    """See the module's description. Lives on the Dask worker's event loop."""

    def __init__(
        self,
        worker_address: str,
        controller: str,
        security: Security,
        resources: dict[str, float],
        labels: dict[str, str],
        cleanup: tuple[str, ...] = (),
        on_broken: Callable[[], None] = lambda: None,
        limits: Limits | None = None,
        on_lost: Callable[[], None] = lambda: None,
        memory: MemorySettings | None = None,
    ) -> None:
        """Make the agent; its store has these *limits*, and *memory* says how the node's memory is watched.

        *on_broken* is called if this node turns out to be unable to start executors, *on_lost* when the controller has
        hung up: this agent is of no use any more.
        """
        self.node_id = random_id("node")
        self._address = worker_address
        self._controller_address = controller
        self._security = security
        self._resources = resources
        self._labels = labels
        self._cleanup = cleanup
        self._on_broken = on_broken
        self._on_lost = on_lost
        self._scope = Scope(f"agent {self.node_id}")
        self._pool = pool.ExecutorPool(lambda: random_id("exec"), int(resources.get("num_cpus", 1)))
        self._devices = DeviceShares(visible_gpus(int(resources.get("num_gpus", 0))))
        #: Leases that wait for an executor.
        self._starting: dict[str, m.StartLease] = {}
        self.store = Store.create(self.node_id, worker_address, limits)
        self.segments = SegmentService(self.store, security, self._scope, self._show_owner)
        self._logs = Path(tempfile.mkdtemp(prefix=f"shoal-{os.getuid()}-logs-"))
        self._claims = [leftovers.claim(self.store.directory), leftovers.claim(self._logs)]
        self._controller: Stream | None = None
        self._streams: dict[str, Stream] = {}
        self._template: Process | None = None
        self._control: asyncio.StreamWriter | None = None
        self._template_ends = 0
        #: Tasks that Dask runs here, what the controller was last told, and whether it will be told soon.
        self._dask_tasks = self._dask_tasks_told = 0
        self._busy_due = False
        self._preloaded: set[str] = set()
        #: Why we have ended executors that have not been reaped yet.
        self._causes: dict[str, str] = {}
        #: The numbers of those that we have ended because memory was nearly full.
        self._memory_numbers: dict[str, tuple[int, ...]] = {}
        self._executors = Executors(self._pool, self._logs)
        self._executor_logs = ExecutorLogs(self._logs)
        self._answers = AgentAnswers(
            self._pool, self._executor_logs, self._logs, self._scope, self._streams, self._tell_controller
        )
        #: Calls that wait or run in each executor that has an actor.
        self._pending_calls: dict[str, int] = {}
        self._memory = MemoryWatch(
            memory or MemorySettings(),
            self._executors,
            self.store.used,
            self._end_for_memory,
            lambda full: self._tell_controller(m.NodeFull(full)),
        )
        self._closing = False

    async def start(self, template: TemplateProcess | None = None) -> None:
        """Start the first executors and join the cluster; returns when the controller knows us.

        *template* has been brought up already; by default one is started.
        """
        await self._start_template(template or spawn_template())
        self._carry_out()
        await self._join()
        self._scope.start(self._report_usage())
        self._scope.start(self._memory.run())
        self._scope.start(asyncio.to_thread(leftovers.sweep))
        beat = Heartbeat(silence_limit(), lambda peer: None)
        self._scope.start(beat.run(lambda: list(self._streams.values()), dict))

    async def close(self) -> None:
        """Leave: executors end, the store goes. Returns when the template has cleaned up, or after 5 s."""
        if self._closing:
            return
        self._closing = True
        await self._scope.close()
        await self.segments.close()
        for stream in (*self._streams.values(), *([self._controller] if self._controller else [])):
            stream.abort()
        if self._control is not None:
            self._control.close()
        await self._end_template()
        # The template does the same, however we end; these are for the moment in which there is none.
        self.store.remove()
        shutil.rmtree(self._logs, ignore_errors=True)
        for claim in self._claims:
            os.close(claim)

    # -- executors, and peers that read our store ----------------------------------------------------------------

    async def serve(self, comm: Comm) -> None:
        """Serve a stream that the Dask worker has accepted for us, to its end."""
        stream = Stream(comm, self._message)
        await stream.run()
        self.segments.stream_ended(stream)
        if self._streams.get(stream.peer_id) is stream:
            del self._streams[stream.peer_id]

    def _message(self, stream: Stream, message: m.Message) -> None:
        match message:
            case m.ExecutorHello(executor_id, address, pid):
                stream.peer_id = executor_id
                self._streams[executor_id] = stream
                self._pool.ready(executor_id, address, pid)
                self._carry_out()
            case m.Waiting() | m.ActorCreated() | m.ActorExited():
                self._tell_controller(message)
            case m.PendingCalls(num_calls):
                self._pending_calls[stream.peer_id] = num_calls
            case m.Answer():
                self._answers.answered(stream.peer_id, message)
            case m.Preload(module):
                if module not in self._preloaded:
                    self._preloaded.add(module)
                    self._command(op="preload", module=module)
            case m.PeerHello():
                pass
            case _:
                if not self.segments.handle(stream, message):
                    stream.abort()

    # -- the controller ------------------------------------------------------------------------------------------

    async def _join(self) -> None:
        comm = await connect(self._controller_address, self._security, CONNECT_TIMEOUT, to_dask_server=True)
        welcome: asyncio.Future[None] = asyncio.get_running_loop().create_future()

        def on_message(stream: Stream, message: m.Message) -> None:
            if welcome.cancelled():  # nobody waits any more: this node gave up
                return
            if isinstance(message, m.Welcome):
                welcome.set_result(None)
            elif isinstance(message, m.Refused):
                welcome.set_exception(ConnectError(message.reason))
            else:
                self._obey(message)

        self._controller = stream = Stream(comm, on_message)
        stream.send_nowait(
            m.AgentHello(
                m.PROTOCOL_VERSION,
                self.node_id,
                self._address,
                address_host(self._address),
                self.store.directory,
                make_resources(self._resources),
                tuple(sorted(self._labels.items())),
                versions_here(),
            )
        )
        self._scope.start(self._run_controller(stream))
        await asyncio.wait_for(welcome, CONNECT_TIMEOUT)

    async def _run_controller(self, stream: Stream) -> None:
        """Without a controller there is no work to come: every executor ends."""
        await stream.run()
        if not self._closing:
            for executor in list(self._pool.executors.values()):
                self._command(op="kill", executor_id=executor.executor_id)
            self._on_lost()

    def _obey(self, message: m.Message) -> None:
        match message:
            case m.StartLease(lease_id, job_id, resources, actor_id):
                # A process keeps the devices that it has once used.
                fresh = bool(actor_id) or bool(dict(resources).get("num_gpus"))
                self._starting[lease_id] = message
                self._pool.start_lease(lease_id, job_id, fresh)
            case m.EndLease(lease_id, kill):
                self._pool.end_lease(lease_id, kill or self._devices.give_back(lease_id))
                self._starting.pop(lease_id, None)
            case m.EndExecutor(lease_id, task_id):
                for executor in list(self._pool.executors.values()):
                    if executor.lease_id == lease_id and self._last_begun(executor.executor_id) == task_id:
                        self.end_executor(executor.executor_id, "it was cancelled by force")
            case m.OwnerGone(owner_id, job_id, job_ended):
                self.store.free_of(owner_id)
                if job_ended:
                    self._pool.job_ended(job_id)
            case m.NodesChanged():
                self.segments.nodes_changed(message)
            case m.Ask():
                self._answers.serve(message)
            case m.SegmentsUnowned():
                assert self._controller is not None
                self.segments.handle(self._controller, message)
        self._carry_out()

    def end_executor(self, executor_id: str, cause: str) -> None:
        """End the process of an executor, whatever it does; *cause* is what its users are told."""
        self._causes[executor_id] = cause
        self._command(op="kill", executor_id=executor_id)

    def _end_for_memory(self, executor_id: str, cause: str, numbers: tuple[int, ...]) -> None:
        logger.warning("executor %s ends (%s): %s", executor_id, self._last_begun(executor_id) or "no task", cause)
        self._memory_numbers[executor_id] = numbers
        self.end_executor(executor_id, cause)

    def _show_owner(self, seen: m.SegmentsSeen) -> None:
        """Our own executors are asked directly: the controller need not know them."""
        stream = self._streams.get(seen.owner_id)
        if stream is not None:
            stream.send_nowait(seen)
        else:
            self._tell_controller(seen)

    def dask_runs(self, num_tasks: int) -> None:
        """Dask itself runs this many tasks on this worker now: ours make room for them."""
        self._dask_tasks = num_tasks
        if not self._busy_due:
            self._busy_due = True
            asyncio.get_running_loop().call_later(BUSY_INTERVAL, self._report_busy)

    def _report_busy(self) -> None:
        self._busy_due = False
        if self._dask_tasks != self._dask_tasks_told:
            self._dask_tasks_told = self._dask_tasks
            self._tell_controller(m.NodeBusy(make_resources({"num_cpus": self._dask_tasks})))

    def _tell_controller(self, message: m.Message) -> None:
        if self._controller is not None:
            self._controller.send_nowait(message)

    def _carry_out(self) -> None:
        if self._pool.broken and self._controller is not None:
            # Nobody is served by staying: tasks go to other nodes, or fail at once where there is none.
            logger.error("node %s leaves: its executors cannot be started", self.node_id)
            self._controller.abort()
            self._on_broken()
            return
        if self._control is None:
            return  # between two templates: an order to start executors would be lost, and nobody would repeat it
        for action in self._pool.flush():
            match action:
                case pool.Spawn(executor_id):
                    self._command(op="spawn", executor_id=executor_id)
                case pool.Kill(executor_id):
                    self._command(op="kill", executor_id=executor_id)
                case pool.Bound(lease_id, executor):
                    self._bind(self._starting.pop(lease_id), executor)
                case pool.Died(lease_id, executor_id, cause):
                    self._devices.give_back(lease_id)
                    words, begun = self._executor_logs.last_words(executor_id), self._last_begun(executor_id)
                    numbers = self._memory_numbers.get(executor_id, ())
                    self._tell_controller(m.ExecutorDied(lease_id, cause, words, begun, numbers))

    def _bind(self, start: m.StartLease, executor: pool.Executor) -> None:
        """Tell an executor what it serves from now on, and the controller where it is."""
        gpus: tuple[str, ...] | None = None
        if len(self._devices):
            gpus = self._devices.take(start.lease_id, dict(from_wire(start.resources)).get("num_gpus", 0.0))
        self._executors.bound(executor.executor_id, start)
        if start.actor_id:
            self._answers.actors[executor.executor_id] = start.actor_id
            self._executor_logs.bound(executor.executor_id, start.actor_id)
        stream = self._streams.get(executor.executor_id)
        if stream is None:  # it has just died: that it was reaped, and the lease lost with it, is the next news
            return
        stream.send_nowait(m.Bind(start.lease_id, start.resources, gpus, start.actor_id, start.creation, start.job_id))
        self._tell_controller(m.LeaseStarted(start.lease_id, executor.executor_id, executor.address))

    async def _report_usage(self) -> None:
        gpus = GpuMeter(visible_gpus(int(self._resources.get("num_gpus", 0))))
        meter = NodeMeter(self.store, lambda: self.segments.num_received, self.segments.received, gpus)
        limit = silence_limit()
        stopped = StoppedProcesses(limit)
        while True:
            executors = {executor.pid: executor_id for executor_id, executor in self._pool.executors.items()}
            for pid in stopped.look(filter(None, executors), time.monotonic()):
                self.end_executor(executors[pid], f"its process had been stopped (SIGSTOP) for {limit:g} s")
            calls = {actor_id: self._pending_calls.get(known, 0) for known, actor_id in self._answers.actors.items()}
            self._tell_controller(await meter.look(len(self._pool.executors), calls))
            await asyncio.to_thread(self._executor_logs.look, list(self._pool.executors))
            await self.segments.tend()
            await asyncio.sleep(USAGE_INTERVAL)

    # -- the template --------------------------------------------------------------------------------------------

    async def _start_template(self, template: TemplateProcess) -> None:
        self._template = template.process
        try:
            reader, self._control = await asyncio.open_unix_connection(sock=template.control)
        except asyncio.CancelledError:  # we leave in this very moment: it ends when nobody holds its control
            template.control.close()
            raise
        config = TemplateConfig(
            node_id=self.node_id,
            agent=self._address,
            controller=self._controller_address,
            host=address_host(self._address),
            security=self._security,
            store=self.store,
            logs=str(self._logs),
            cleanup=self._cleanup,
            sys_path=tuple(sys.path),
        )
        self._control.write(config.to_line())
        self._scope.start(self._read_template(reader))

    async def _read_template(self, reader: asyncio.StreamReader) -> None:
        # It is reset, not just ended, if the template was killed before it had read all we sent.
        with contextlib.suppress(ConnectionError):
            while line := await reader.readline():
                report: dict[str, Any] = json.loads(line)
                if report["op"] == "exited":
                    cause = self._causes.pop(report["executor_id"], "") or describe_end(
                        report["status"], report["peak"]
                    )
                    # What it owned nobody can ask for any more; what it made for others bears their names.
                    self._scope.start(asyncio.to_thread(self.store.free_of, report["executor_id"]))
                    self._pool.exited(report["executor_id"], cause)
                    self._carry_out()
                    self._forget_executor(report["executor_id"])
                elif report["op"] == "preloaded":
                    self._pool.renew_spares()
                    self._carry_out()
        if self._closing:
            return
        # Killed from outside: the executors went with it. A new one takes over, unless that keeps happening.
        self._template_ends += 1
        if self._control is not None:
            self._control.close()
            self._control = None  # what is to be started waits for the next one
        for executor in self._pool.executors.values():
            if executor.pid:
                # The kernel has ended the executors, but not the children that tasks have started.
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(executor.pid, signal.SIGKILL)
        ended = list(self._pool.executors)
        self._pool.all_exited("the template process of its node ended")
        await self._end_template()
        if self._template_ends <= MAX_TEMPLATE_ENDS:
            await self._start_template(spawn_template())
            self._carry_out()
            for executor_id in ended:
                self._forget_executor(executor_id)
        elif self._controller is not None:
            self._carry_out()
            await self._controller.close()
            self._on_broken()

    async def _end_template(self) -> None:
        """Wait until the template, which has no control any more, has cleaned up and ended; kill it if it does not."""
        if self._template is not None:
            try:
                await asyncio.get_running_loop().run_in_executor(None, self._template.wait, TEMPLATE_GRACE)
            except subprocess.TimeoutExpired:
                self._template.kill()

    def _command(self, **command: Any) -> None:
        if self._control is not None and not self._control.is_closing():
            self._control.write(json.dumps(command).encode() + b"\n")

    def _last_begun(self, executor_id: str) -> str:
        try:
            return BegunMark.read(self._logs / f"{executor_id}.begun")
        except OSError:
            return "?"

    def _forget_executor(self, executor_id: str) -> None:
        """An executor is gone, and what was to be said of its end has been said; its log stays for a while."""
        self._memory_numbers.pop(executor_id, None)
        self._pending_calls.pop(executor_id, None)
        self._answers.gone(executor_id)
        self._executor_logs.ended(executor_id)


def describe_end(status: int, peak: int) -> str:
    """Say how a process ended, from its wait status and the most memory it had (bytes)."""
    code = os.waitstatus_to_exitcode(status)
    had = f", having used up to {format_nbytes(peak)} of memory"
    if code >= 0:
        return f"its process exited with status {code}{had}"
    try:
        name = signal.Signals(-code).name
    except ValueError:
        name = f"signal {-code}"
    hint = " (the system may have run out of memory)" if name == "SIGKILL" else ""
    return f"its process was ended by {name}{had}{hint}"
