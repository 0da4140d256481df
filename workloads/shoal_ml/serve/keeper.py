"""The keeper of one deployment: starts, watches, configures and ends its replicas, as the reconciler says."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import Callable, Coroutine
from typing import Any

import shoal
from shoal.errors import ActorDiedError, ActorUnavailableError, ShoalError
from shoal.model.ids import random_id
from shoal_ml.serve.autoscaling import Autoscaler
from shoal_ml.serve.board import Board
from shoal_ml.serve.options import HTTPOptions
from shoal_ml.serve.reconciling import Action, Configure, Drain, ReplicaRow, Start, StartHistory, Wanted, plan
from shoal_ml.serve.replica import Load, Replica, Started
from shoal_ml.serve.routing import ReplicaPlace
from shoal_ml.serve.specs import DeploymentSpec
from shoal_ml.serve.status import DeploymentStatus, ReplicaStatus
from shoal_ml.serve.tables import NAMESPACE, DeploymentTable, key_of

logger = logging.getLogger("shoal.serve")
#: Health checks in a row that a replica may fail.
MAX_STRIKES = 3
#: Calls that a replica's actor has under way at most: its own limits are tighter.
CONCURRENCY = 100_000
#: Seconds between two looks at the load of a deployment that scales.
SCALE_PERIOD = 1.0
#: Seconds beyond its own limit that a replica may take to say that it has drained.
DRAIN_GRACE = 5.0
#: Seconds for which a controller that comes back waits for replicas that it finds.
ADOPT_TIMEOUT = 10.0


class Keeper:
    """See the module's description. For the controller's event loop."""

    def __init__(
        self,
        application: str,
        spec: DeploymentSpec,
        board: Board,
        on_change: Callable[[], None],
        on_hopeless: Callable[[Keeper, str], None],
    ) -> None:
        self.application = application
        self.name = spec.name
        self.key = key_of(application, spec.name)
        self._board = board
        self._on_change = on_change
        self._on_hopeless = on_hopeless
        self.spec = spec
        #: Options for the web side of its replicas; None for a deployment that HTTP does not reach directly.
        self.http: HTTPOptions | None = None
        self._configured = 0
        self.rows: dict[str, ReplicaRow] = {}
        self._handles: dict[str, Any] = {}
        self._started: dict[str, Started] = {}
        self._loads: dict[str, Load] = {}
        self._history = StartHistory()
        self._not_before = 0.0
        #: Replicas that are taking other options at the moment.
        self._configuring = 0
        self._tasks: set[asyncio.Task[None]] = set()
        self._adopting: list[asyncio.Task[None]] = []
        self._num_wanted = 0
        self._scaler: Autoscaler | None = None
        self._scaling: asyncio.Task[None] | None = None
        self._queued: dict[str, tuple[float, int]] = {}
        #: What went wrong last.
        self.message = ""
        self.is_closing = False

    # -- what is wanted ------------------------------------------------------------------------------------------

    def want(self, spec: DeploymentSpec, http: HTTPOptions | None) -> None:
        """Make the deployment as *spec* says."""
        if spec.options != self.spec.options or not self._configured:
            self._configured += 1
        self.spec, self.http = spec, http
        self._history.begin(spec.version)
        self._not_before = 0.0
        self.message = ""
        auto = spec.options.autoscaling_config
        if auto is None:
            self._scaler, self._num_wanted = None, spec.options.num_replicas
        elif self._scaler is None:
            self._scaler = Autoscaler(auto)
            self._num_wanted = self._num_wanted or self._scaler.initial()
        else:
            self._scaler.options = auto
        if self._scaler is not None and self._scaling is None:
            self._scaling = self._run(self._scale())
        self._post()
        self.reconcile()

    def adopt(self, rows: list[ReplicaRow], configured: int, num_wanted: int) -> None:
        """Go on with replicas that an earlier controller has started."""
        self._configured, self._num_wanted = configured, num_wanted
        for row in rows:
            row.state = "STARTING"
            self.rows[row.replica_id] = row
            self._adopting.append(self._run(self._start(row, adopted=True)))

    async def settled(self) -> None:
        """Wait until those that were adopted have answered, or will not soon."""
        if self._adopting:
            await asyncio.wait(self._adopting, timeout=ADOPT_TIMEOUT)

    def checkpoint(self) -> tuple[list[ReplicaRow], int, int]:
        """Return what :meth:`adopt` takes."""
        return [row for row in self.rows.values() if row.state != "DRAINING"], self._configured, self._num_wanted

    @property
    def is_steady(self) -> bool:
        """Whether all is as wanted."""
        live = [row for row in self.rows.values() if row.state != "DRAINING"]
        return (
            not self._configuring
            and len(live) == self._num_wanted
            and all(
                row.state == "RUNNING" and row.version == self.spec.version and row.configured == self._configured
                for row in live
            )
        )

    async def close(self) -> None:
        """End all replicas, after their requests."""
        self.is_closing = True
        self._num_wanted = 0
        self._board.post(self.key, None)
        drains = [self._run(self._drain(row)) for row in self.rows.values() if row.state != "DRAINING"]
        for row in self.rows.values():
            row.state = "DRAINING"
        if drains:
            await asyncio.wait(drains)
        for task in list(self._tasks):
            if task is not asyncio.current_task():
                task.cancel()

    # -- what there is -------------------------------------------------------------------------------------------

    def reconcile(self) -> None:
        """Do what has to be done."""
        if self.is_closing:
            return
        wanted = Wanted(self.spec.version, self._num_wanted, self._configured)
        may_start = time.monotonic() >= self._not_before and not self._gave_up
        while actions := plan(wanted, list(self.rows.values()), may_start=may_start):  # one may make room for another
            for action in actions:
                self._act(action)
        self._on_change()

    def _act(self, action: Action) -> None:
        match action:
            case Start(version):
                replica_id = f"{self.key}#{random_id('replica')}"
                row = self.rows[replica_id] = ReplicaRow(replica_id, version, "STARTING", self._configured)
                self._run(self._start(row))
            case Drain(replica_id):
                row = self.rows[replica_id]
                row.state = "DRAINING"
                self._run(self._drain(row))
            case Configure(replica_id):
                row = self.rows[replica_id]
                row.configured = self._configured
                self._configuring += 1
                self._run(self._configure(row))

    @property
    def _gave_up(self) -> bool:
        return self._history.is_hopeless and not self._history.proven

    async def _start(self, row: ReplicaRow, adopted: bool = False) -> None:
        spec = self.spec
        try:
            find = self._find if adopted else self._create
            handle = await asyncio.to_thread(find, row.replica_id, spec)
            if self.rows.get(row.replica_id) is not row or row.state != "STARTING":
                await asyncio.to_thread(_kill, handle)
                return
            self._handles[row.replica_id] = handle
            started: Started = await handle.start.remote(self.http)
        except Exception as error:  # boundary: whatever a replica's process ends with; it has not started
            started = Started("", "", f"{type(error).__name__}: {error}")
        if row.state != "STARTING":
            return
        if started.traceback:
            self._failed_to_start(row, started.traceback, adopted)
            return
        self._started[row.replica_id] = started
        row.state = "RUNNING"
        self._history.succeeded(row.version)
        self._post()
        self._run(self._watch(row))
        self.reconcile()

    @staticmethod
    def _find(replica_id: str, spec: DeploymentSpec) -> Any:
        return shoal.get_actor(replica_id, NAMESPACE)

    def _create(self, replica_id: str, spec: DeploymentSpec) -> Any:
        options = {
            **spec.options.actor_options,
            "name": replica_id,
            "namespace": NAMESPACE,
            "lifetime": "detached",
            "max_concurrency": CONCURRENCY,
        }
        actor = shoal.remote(Replica).options(**options)
        return actor.remote(self.application, spec.name, replica_id, spec.options, spec.code, *spec.large)

    def _failed_to_start(self, row: ReplicaRow, trouble: str, adopted: bool) -> None:
        handle = self._forget(row)
        if handle is not None:
            self._run(asyncio.to_thread(_kill, handle))
        if adopted:
            self.reconcile()
            return
        self.message = trouble
        logger.warning("a replica of %s did not start:\n%s", self.key, trouble)
        wait = self._history.failed(row.version)
        self._not_before = time.monotonic() + wait
        if self._history.is_hopeless:
            self._on_hopeless(self, trouble)
        asyncio.get_running_loop().call_later(wait, self.reconcile)
        self.reconcile()

    async def _configure(self, row: ReplicaRow) -> None:
        try:
            with contextlib.suppress(ActorDiedError, ActorUnavailableError):  # its watch knows as well
                trouble = await self._handles[row.replica_id].reconfigure.remote(self.spec.options)
                if trouble:
                    self.message = trouble
                    self._on_hopeless(self, trouble)
        finally:
            self._configuring -= 1
        self._on_change()

    async def _watch(self, row: ReplicaRow) -> None:
        """Look after a replica until it dies, or fails too many health checks, or is to leave."""
        handle = self._handles[row.replica_id]
        life = asyncio.ensure_future(handle.live.remote())
        strikes, cause = 0, "its process has ended"
        try:
            while row.state == "RUNNING":
                options = self.spec.options
                done, _ = await asyncio.wait([life], timeout=options.health_check_period_s)
                if done:
                    with contextlib.suppress(BaseException):
                        life.result()
                    break
                trouble = await self._check(row, handle, options.health_check_timeout_s)
                strikes = strikes + 1 if trouble else 0
                if strikes >= MAX_STRIKES:
                    cause = f"it failed {strikes} health checks in a row: {trouble}"
                    break
        finally:
            life.cancel()
        if row.state == "RUNNING":
            self._lost(row, cause)

    async def _check(self, row: ReplicaRow, handle: Any, timeout: float) -> str:
        try:
            async with asyncio.timeout(timeout):
                self._loads[row.replica_id] = await handle.check_health.remote()
        except TimeoutError:
            return f"no answer within {timeout:g} s"
        except (ActorDiedError, ActorUnavailableError):
            return ""  # its life has ended as well
        except Exception as error:  # boundary: user code
            return f"{type(error).__name__}: {error}"
        return ""

    def _lost(self, row: ReplicaRow, cause: str) -> None:
        logger.warning("replica %s is replaced: %s", row.replica_id, cause)
        self.message = f"replica {row.replica_id.rpartition('#')[2]} was replaced: {cause}"
        handle = self._forget(row)
        if handle is not None:
            self._run(asyncio.to_thread(_kill, handle))
        self._post()
        self.reconcile()

    async def _drain(self, row: ReplicaRow) -> None:
        """Have callers look elsewhere, then requests end, then the replica."""
        options = self.spec.options
        handle = self._handles.get(row.replica_id)
        version = self._post()
        if handle is not None:
            await self._board.seen(self.key, version, options.graceful_shutdown_wait_loop_s)
            limit = options.graceful_shutdown_timeout_s
            with contextlib.suppress(Exception):  # boundary: it ends in any case
                async with asyncio.timeout(limit + DRAIN_GRACE):
                    await handle.drain.remote(limit)
            await asyncio.to_thread(_kill, handle)
        self._forget(row)
        self._on_change()

    def _forget(self, row: ReplicaRow) -> Any:
        self.rows.pop(row.replica_id, None)
        self._started.pop(row.replica_id, None)
        self._loads.pop(row.replica_id, None)
        return self._handles.pop(row.replica_id, None)

    def _post(self) -> int:
        """Tell callers who answers now."""
        if self.is_closing:
            return self._board.post(self.key, None)
        options = self.spec.options
        running = [row.replica_id for row in self.rows.values() if row.state == "RUNNING"]
        table = DeploymentTable(
            tuple(ReplicaPlace(replica_id, self._started[replica_id].node_id) for replica_id in running),
            {replica_id: self._handles[replica_id] for replica_id in running},
            options.max_ongoing_requests,
            options.max_queued_requests,
            options.retry_after_s,
            options.request_retries,
            options.request_timeout_s,
            {replica_id: self._started[replica_id].front for replica_id in running},
        )
        return self._board.post(self.key, table)

    # -- scaling -------------------------------------------------------------------------------------------------

    @property
    def scales(self) -> bool:
        return self._scaler is not None

    def queue_reported(self, watcher: str, queued: int) -> None:
        """A process says how many of its requests wait."""
        if not queued:
            self._queued.pop(watcher, None)
            return
        self._queued[watcher] = time.monotonic() + 2 * SCALE_PERIOD, queued
        if self._scaler is not None and not self._num_wanted:
            self._decide(queued)

    async def _scale(self) -> None:
        while self._scaler is not None:
            await self.refresh_loads()
            now = time.monotonic()
            self._queued = {watcher: row for watcher, row in self._queued.items() if row[0] > now}
            waiting = sum(queued for _, queued in self._queued.values())
            self._decide(waiting + sum(load.ongoing + load.queued for load in self._loads.values()))
            await asyncio.sleep(SCALE_PERIOD)
        self._scaling = None

    def _decide(self, requests: float) -> None:
        if self._scaler is None or self.is_closing:
            return
        before = self._num_wanted
        self._num_wanted = self._scaler.decide(time.time(), before, requests)
        if self._num_wanted != before:
            logger.info("%s: %d -> %d replicas: %s", self.key, before, self._num_wanted, self._scaler.log[-1].reason)
            self.reconcile()

    async def refresh_loads(self, timeout: float = 1.0) -> None:
        """Ask the replicas how busy they are; one that does not answer keeps what it said."""

        async def ask(replica_id: str, handle: Any) -> None:
            with contextlib.suppress(TimeoutError, ShoalError):
                async with asyncio.timeout(timeout):
                    self._loads[replica_id] = await handle.load.remote()

        running = [(key, self._handles[key]) for key, row in self.rows.items() if row.state == "RUNNING"]
        await asyncio.gather(*(ask(*row) for row in running))

    # -- what is shown -------------------------------------------------------------------------------------------

    def status(self) -> DeploymentStatus:
        """Return the deployment as it is now."""
        replicas = tuple(
            ReplicaStatus(
                row.replica_id,
                row.state,
                row.version,
                self._started[row.replica_id].node_id if row.replica_id in self._started else "",
                *self._loads.get(row.replica_id, ()),
            )
            for row in self.rows.values()
        )
        decisions = tuple(decision._asdict() for decision in self._scaler.log) if self._scaler is not None else ()
        return DeploymentStatus(
            self.name, self._state(), self.spec.version, self._num_wanted, replicas, self.message, decisions
        )

    def _state(self) -> str:
        if self.is_steady:
            return "HEALTHY"
        live = [row for row in self.rows.values() if row.state != "DRAINING"]
        if any(row.version != self.spec.version for row in live):
            return "UPDATING"
        if self._gave_up or self._history.failures or (self.message and len(live) < self._num_wanted):
            return "UNHEALTHY"
        if len(live) > self._num_wanted:
            return "DOWNSCALING"
        return "UPSCALING" if self._history.proven else "UPDATING"

    def _run(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._done)
        return task

    def _done(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and task.exception() is not None:
            logger.error("the keeper of %s has failed", self.key, exc_info=task.exception())


def _kill(handle: Any) -> None:
    with contextlib.suppress(ShoalError):
        shoal.kill(handle)
