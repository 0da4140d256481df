"""The node agent's executor pool: which executor serves which lease.

Executors are forked ahead of need (*spares*), belong to one job from their first lease on, and serve that job again
after a lease ends, so that one user's modules never show up in another's task. An actor takes a fresh one with it
to the end.

Events are methods; the actions they cause gather until :meth:`ExecutorPool.flush`.
"""

from __future__ import annotations

import dataclasses
from collections import deque
from collections.abc import Callable

#: Executors in a row that may fail to come up.
MAX_FAILURES = 3


@dataclasses.dataclass(slots=True)
class Executor:
    executor_id: str
    #: Where it listens; "" while it starts.
    address: str = ""
    pid: int = 0
    #: "" for a spare.
    job_id: str = ""
    lease_id: str = ""


@dataclasses.dataclass(slots=True)
class _Wish:
    """A lease that has no executor yet."""

    lease_id: str
    job_id: str
    fresh: bool


@dataclasses.dataclass(frozen=True, slots=True)
class Spawn:
    executor_id: str


@dataclasses.dataclass(frozen=True, slots=True)
class Kill:
    executor_id: str


@dataclasses.dataclass(frozen=True, slots=True)
class Bound:
    """The lease has its executor."""

    lease_id: str
    executor: Executor


@dataclasses.dataclass(frozen=True, slots=True)
class Died:
    """The executor of the lease is gone."""

    lease_id: str
    executor_id: str
    cause: str


Action = Spawn | Kill | Bound | Died


class ExecutorPool:
    """See the module's description. One per node agent; not thread-safe."""

    def __init__(self, new_id: Callable[[], str], num_cpus: int) -> None:
        self.executors: dict[str, Executor] = {}
        self._new_id = new_id
        self._max_idle = max(1, num_cpus)
        self._spares = max(1, num_cpus)
        self._wishes: list[_Wish] = []
        self._actions: list[Action] = []
        self._failures = 0
        #: Jobs that are over; executors of theirs serve nobody again.
        self._ended_jobs: deque[str] = deque(maxlen=1_000)

    @property
    def broken(self) -> bool:
        """Executors fail again and again before they are up: this node cannot serve anybody."""
        return self._failures > MAX_FAILURES

    # -- events --------------------------------------------------------------------------------------------------

    def start_lease(self, lease_id: str, job_id: str, fresh: bool) -> None:
        self._wishes.append(_Wish(lease_id, job_id, fresh))

    def end_lease(self, lease_id: str, kill: bool) -> None:
        self._wishes = [wish for wish in self._wishes if wish.lease_id != lease_id]
        for executor in self.executors.values():
            if executor.lease_id == lease_id:
                executor.lease_id = ""
                kill = kill or executor.job_id in self._ended_jobs
                idle = sum(e.job_id == executor.job_id and not e.lease_id for e in self.executors.values())
                if kill or idle > self._max_idle:
                    self._kill(executor)
                return

    def job_ended(self, job_id: str) -> None:
        """End the executors of a job: idle ones now, the others with their leases."""
        self._ended_jobs.append(job_id)
        for executor in list(self.executors.values()):
            if executor.job_id == job_id and not executor.lease_id:
                self._kill(executor)

    def renew_spares(self) -> None:
        """The template has more to give than when the spares were forked: replace them."""
        for executor in list(self.executors.values()):
            if executor.address and not executor.job_id:
                self._kill(executor)

    def ready(self, executor_id: str, address: str, pid: int) -> None:
        """An executor has come up."""
        executor = self.executors.get(executor_id)
        if executor is not None:
            executor.address, executor.pid = address, pid
            self._failures = 0

    def exited(self, executor_id: str, cause: str) -> None:
        """An executor's process is gone."""
        executor = self.executors.pop(executor_id, None)
        if executor is None:
            return
        if executor.lease_id:
            self._actions.append(Died(executor.lease_id, executor_id, cause))
        elif not executor.address:
            self._failures += 1

    def all_exited(self, cause: str) -> None:
        """The process that was every executor's parent is gone, and they with it."""
        for executor_id in list(self.executors):
            self.exited(executor_id, cause)

    # -- what follows from them ----------------------------------------------------------------------------------

    def flush(self) -> list[Action]:
        """Bind what can be bound, start what is missing, and return every action gathered since the last call."""
        waiting: list[_Wish] = []
        for wish in self._wishes:
            executor = self._find(wish)
            if executor is None:
                waiting.append(wish)
            else:
                executor.job_id, executor.lease_id = wish.job_id, wish.lease_id
                self._spares = 1
                self._actions.append(Bound(wish.lease_id, executor))
        self._wishes = waiting
        starting = sum(not executor.address for executor in self.executors.values())
        spare = sum(bool(executor.address) and not executor.job_id for executor in self.executors.values())
        missing = len(waiting) - starting if waiting else self._spares - spare - starting
        if not self.broken:
            for _ in range(missing):
                executor = Executor(self._new_id())
                self.executors[executor.executor_id] = executor
                self._actions.append(Spawn(executor.executor_id))
        actions, self._actions = self._actions, []
        return actions

    def _find(self, wish: _Wish) -> Executor | None:
        spare = None
        for executor in self.executors.values():
            if executor.lease_id or not executor.address:
                continue
            if executor.job_id == wish.job_id and not wish.fresh:
                return executor
            if not executor.job_id:
                spare = spare or executor
        return spare

    def _kill(self, executor: Executor) -> None:
        self.executors.pop(executor.executor_id, None)
        self._actions.append(Kill(executor.executor_id))
