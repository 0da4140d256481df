"""The memory watch of a node: looks at its memory, and has an executor ended before the kernel ends anybody.

The policy is :mod:`shoal.machines.memory_watch`; this reads the numbers and carries it out. Several limits count, and
the one that is nearest decides:

* the machine's memory, and that of each container around the node, with all that runs there;
* the node's *share*: ``SHOAL_MEMORY_LIMIT`` bytes (0 for none), or else the ``memory_limit`` of its Dask worker, if
  that has a nanny. The nanny ends the worker at that limit, so that is what its user expects of shoal; but it sees
  the worker's process alone, not the executors. Against the share count what executors use by themselves, with the
  processes they start, and what is in the node's store; not the worker's own process, which is the nanny's to watch
  and would not get smaller by ending executors. A limit without a nanny is not enforced by Dask either (as a rule it
  is then a part of the machine that nobody has asked for), and only says what the node offers to ``memory=``.

``SHOAL_MEMORY_THRESHOLD`` is the part of a limit that counts as nearly full, 0.95 by default; 0 or 1 turns the watch
off.

**Cost.** A look takes 80 us, and 15 us more for each container with a limit; there is one a second, up to 20 when the
memory could be full that soon: 0.01 % to 0.2 % of a CPU. With a share of which the rest of the machine uses so much
already that it might be full, it takes 15 us more for each executor, and once a second 15 us for each process of the
machine, on another thread. Only above the threshold are executors looked at one by one, which takes up to 20 ms for
each GiB that they use, also on another thread, and for a tenth of the time at most.
"""

from __future__ import annotations

import asyncio
import dataclasses
import logging
import time
from collections.abc import Callable, Mapping
from pathlib import Path

from shoal.machines.memory_watch import (
    ACTOR,
    COOL_DOWN,
    IDLE,
    LONGEST,
    SHORTEST,
    TASK,
    THRESHOLD,
    Gauge,
    Hold,
    Usage,
    Verdict,
    judge,
    next_look,
)
from shoal.machines.pool import ExecutorPool
from shoal.model import messages as m
from shoal.model.amounts import format_nbytes
from shoal.runtime.begun import BegunMark
from shoal.runtime.environment import NodeSettings
from shoal.runtime.memory_gauges import Gauges
from shoal.runtime.process_memory import find_groups, private_memory, roughly

logger = logging.getLogger("shoal")

#: Seconds between two searches for the processes that executors have started.
SEARCH_INTERVAL = 1.0
#: Seconds between two looks while new leases wait.
HOLD_INTERVAL = 0.25
#: Seconds in which an executor that was ended is gone; after that another may be ended.
GONE_TIMEOUT = 20.0
#: Seconds between two warnings that others than we fill the memory.
WARN_INTERVAL = 60.0
#: How many times as long as looking at every executor took nobody does it again.
REST = 10


@dataclasses.dataclass(frozen=True, slots=True)
class MemorySettings:
    """How a node's memory is watched."""

    threshold: float = THRESHOLD
    #: Bytes that executors and store may use together; 0 for no limit but the machine's.
    share: int = 0
    #: What the share is called: "… was nearly full".
    share_name: str = ""

    @property
    def is_on(self) -> bool:
        return 0 < self.threshold < 1


def memory_settings(worker_limit: int, settings: NodeSettings) -> MemorySettings:
    """Return how to watch the memory of a node: as *settings* say; *worker_limit* is the Dask worker's, or 0."""
    threshold = THRESHOLD if settings.memory_threshold is None else settings.memory_threshold
    if settings.memory_limit is not None:
        return MemorySettings(threshold, settings.memory_limit, "the memory that `SHOAL_MEMORY_LIMIT` gives the node")
    return MemorySettings(threshold, worker_limit, "the memory that the node's Dask worker may use")


class Executors:
    """What is known of a node's executors that the watch asks for."""

    def __init__(self, pool: ExecutorPool, logs: Path) -> None:
        """Look at the executors of *pool*, whose notes of what they began are in *logs*."""
        self._pool = pool
        self._logs = logs
        #: What each serves, and since when.
        self._bound: dict[str, tuple[m.StartLease, float]] = {}

    def bound(self, executor_id: str, start: m.StartLease) -> None:
        """An executor serves this lease from now on."""
        self._bound = {known: bound for known, bound in self._bound.items() if known in self._pool.executors}
        self._bound[executor_id] = start, time.monotonic()

    def pids(self) -> list[int]:
        return [executor.pid for executor in self._pool.executors.values() if executor.pid]

    def are_there(self, executor_ids: list[str]) -> bool:
        """Whether any of these is not gone yet."""
        return any(executor_id in self._pool.executors for executor_id in executor_ids)

    def usages(self, private: Mapping[int, int]) -> list[Usage]:
        """Say what each executor does, with what it uses: *private* bytes by process id."""
        return [
            self._usage(executor.executor_id, executor.job_id, bool(executor.lease_id), private[executor.pid])
            for executor in self._pool.executors.values()
            if executor.pid in private
        ]

    def _usage(self, executor_id: str, job_id: str, is_leased: bool, private: int) -> Usage:
        if not is_leased or executor_id not in self._bound:
            return Usage(executor_id, private, IDLE, job_id)
        start, since = self._bound[executor_id]
        if start.actor_id:
            return Usage(executor_id, private, ACTOR, job_id, since, start.restartable)
        begun_at = BegunMark.read_time(self._logs / f"{executor_id}.begun")
        return Usage(executor_id, private, TASK, job_id, max(since, begun_at))


class MemoryWatch:
    """See the module's description. Lives on the agent's event loop."""

    def __init__(
        self,
        settings: MemorySettings,
        executors: Executors,
        store_used: Callable[[], int],
        on_end: Callable[[str, str, tuple[int, ...]], None],
        on_full: Callable[[bool], None],
        gauges: Gauges | None = None,
    ) -> None:
        """Make the watch.

        Parameters
        ----------
        store_used
            Returns how many bytes are in the node's store.
        on_end
            Ends an executor: is called with its id, the cause in words, and the numbers as in
            :class:`~shoal.model.messages.ExecutorDied`.
        on_full
            Is called when new leases have to wait, and (with False) when they need not any more.
        """
        self._settings = settings
        self._executors = executors
        self._store_used = store_used
        self._on_end = on_end
        self._on_full = on_full
        self._gauges = gauges or Gauges()
        self._hold = Hold(settings.threshold)
        self._groups: dict[int, list[int]] = {}
        self._searched_at = 0.0
        #: How much less than it seems is used of the share, and until when that may be believed.
        self._shared, self._shared_until = 0, 0.0
        #: Executors that were ended last, when, and when we last saw one of them or its end.
        self._ending: list[str] = []
        self._ended_at = 0.0
        self._last_end_at: float | None = None
        self._warned_at: float | None = None

    async def run(self) -> None:
        """Watch until cancelled."""
        if not self._settings.is_on:
            return
        while True:
            pause = await self.look()
            await asyncio.sleep(pause)

    async def look(self) -> float:
        """Look once, and do what is necessary; returns the seconds until the next look."""
        now = time.monotonic()
        gauges = self._gauges.read(self._settings.threshold)
        if self._settings.share:
            gauges.append(await self._roughly_of_share(gauges[0].used, now))
        self._see_whether_hold_is_over(gauges, now)
        pause = next_look(gauges, self._settings.threshold)
        if self._hold.active:
            pause = min(pause, HOLD_INTERVAL)
        if all(gauge.ratio <= self._settings.threshold for gauge in gauges) or not self._last_is_gone(now):
            return pause
        usages = await self._usages()
        took = time.monotonic() - now
        if self._settings.share:
            gauges[-1] = self._exactly_of_share(gauges[-1], usages, now, took)
        gauge = max(gauges, key=lambda gauge: gauge.ratio)
        verdict = judge(
            gauge,
            usages,
            time.monotonic(),
            threshold=self._settings.threshold,
            last_end_at=self._last_end_at,
        )
        if verdict is None:
            return next_look(gauges, self._settings.threshold)
        if not verdict.is_ours:
            self._warn(verdict, now)
            return max(LONGEST, REST * took)
        self._carry_out(verdict)
        return SHORTEST

    def _carry_out(self, verdict: Verdict) -> None:
        """End whom the verdict names."""
        gauge, victim = verdict.gauge, verdict.victim
        self._ended_at = self._last_end_at = time.monotonic()
        self._ending = [executor.executor_id for executor in (*verdict.idle, *([victim] if victim else []))]
        for executor in verdict.idle:
            logger.info(
                "executor %s ends: it holds %s for nobody", executor.executor_id, format_nbytes(executor.private)
            )
            self._on_end(executor.executor_id, "it was not needed", ())
        if victim is None:
            return
        self._hold.begin(verdict, self._ended_at)
        if self._hold.active:
            self._on_full(True)
        self._on_end(victim.executor_id, cause_of(verdict), (victim.private, gauge.used, gauge.limit))

    def _see_whether_hold_is_over(self, gauges: list[Gauge], now: float) -> None:
        if self._hold.active:
            self._hold.look(gauges, now)
            if not self._hold.active:
                self._on_full(False)

    def _last_is_gone(self, now: float) -> bool:
        """Whether those who were ended last are gone, and their memory with them."""
        if self._last_end_at is None:
            return True
        if self._executors.are_there(self._ending) and now - self._ended_at < GONE_TIMEOUT:
            self._last_end_at = now
        return now - self._last_end_at >= COOL_DOWN

    async def _usages(self) -> list[Usage]:
        """Look at each executor."""
        pids = self._executors.pids()
        private = await asyncio.to_thread(lambda: private_memory(find_groups(pids)))
        return self._executors.usages(private)

    async def _roughly_of_share(self, machine_used: int, now: float) -> Gauge:
        """Return the share's gauge with what is used of it at most."""
        share = self._settings.share
        if machine_used <= self._settings.threshold * share and not self._hold.active:
            return Gauge(self._settings.share_name, share, machine_used)
        pids = self._executors.pids()
        if now - self._searched_at >= SEARCH_INTERVAL or not self._groups.keys() >= set(pids):
            self._searched_at = now
            self._groups = await asyncio.to_thread(find_groups, pids)
        private = roughly({pid: self._groups[pid] for pid in pids if pid in self._groups})
        if now < self._shared_until:
            private -= self._shared
        return Gauge(self._settings.share_name, share, private + self._store_used())

    def _exactly_of_share(self, rough: Gauge, usages: list[Usage], now: float, took: float) -> Gauge:
        """Return the share's gauge, and remember for a while by how much the rough one was wrong at *now*."""
        exact = dataclasses.replace(rough, used=sum(usage.private for usage in usages) + self._store_used())
        believed = self._shared if now < self._shared_until else 0
        self._shared = max(0, believed + rough.used - exact.used)
        self._shared_until = now + max(SEARCH_INTERVAL, REST * took)
        return exact

    def _warn(self, verdict: Verdict, now: float) -> None:
        """Say that ending executors would not help, now and then."""
        if self._warned_at is None or now - self._warned_at >= WARN_INTERVAL:
            self._warned_at = now
            gauge = verdict.gauge
            logger.warning(
                "%s is nearly full (%s of %s), but executors hold only %s of it: none of them is ended",
                gauge.what,
                format_nbytes(gauge.used),
                format_nbytes(gauge.limit),
                format_nbytes(verdict.held),
            )


def cause_of(verdict: Verdict) -> str:
    """Say why the victim is ended, for whoever used it."""
    gauge, victim = verdict.gauge, verdict.victim
    assert victim is not None
    size = format_nbytes(victim.private)
    advice = " (with `memory=`, the bytes that it needs, an actor is placed where they are)"
    return (
        f"{gauge.what} was nearly full ({format_nbytes(gauge.used)} of {format_nbytes(gauge.limit)}) and it used "
        + (f"most: {size}" if verdict.is_biggest else f"{size}, about as much as any other")
        + (advice if victim.work == ACTOR else "")
    )
