"""What happens when a node's memory runs out: which executor ends, and when new work may come.

Without this, the kernel's out-of-memory killer decides, late and alone: it may end the notebook or the head, whoever
waits is told of a signal, and in a container the whole node may go. So before the memory is full one executor is
ended, and it is known which, and why.

**Whom.** What is asked is who caused it, and then whose loss costs least. An executor without work costs nothing:
every one that keeps a notable part is ended. Else it is one of those that hold by far the most, as a task that grows
without end is the usual cause, and ending anybody else would only put it off. Among those that hold about as much
(:data:`SIMILAR`): a task rather than an actor, which loses its state; work that can be done again rather than work
that cannot; the job that holds most in all; the youngest, so that the oldest gets done. One at a time: the next not
until the last has gone and its memory with it (:data:`COOL_DOWN`).

**When not.** If all executors together hold little (:data:`LITTLE`) beyond what any does (:data:`BASE`), somebody else
fills the memory, or the object store does, and ending them would not help: that is only said.

**And then.** What was ended is usually begun again, and beside the same others it would only be ended again. So the
node takes no new leases until about as much memory is free as was ended (:class:`Hold`), or nobody is left who could
free some, or :data:`HOLD` seconds are over. Meanwhile it runs on other nodes, or here in the turn of something that
has ended.

The policy resembles that of Ray's memory monitor (a threshold of 95 %, one at a time, retriable work first, tasks
before actors, the youngest first), which as documented for Ray 2 compares groups of tasks of one owner by their number
and then takes the youngest of the largest, whatever each process uses. Here what each uses comes first, and executors
without work before all; ours uses up an ordinary retry, while Ray counts such retries apart and, by default, without
end, each some time after the last. Linux's own killer goes by memory alone, which is why executors also ask it to take
them first (:mod:`shoal.runtime.template`). How often to look is from `earlyoom <https://github.com/rfjakob/earlyoom>`_:
before the memory could be full at the earliest.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Sequence

#: Share of the limit from which on the memory counts as nearly full.
THRESHOLD = 0.95
#: Share of the limit that executors must hold together for their end to be of use.
LITTLE = 0.1
#: Bytes that any executor holds, whatever it does: to end one that holds no more would free next to nothing.
BASE = 64 << 20
#: Executors that hold this part of what the biggest holds are similar to it.
SIMILAR = 0.75
#: Share of the limit that makes it worth ending an executor without work.
WORTH = 0.01
#: Seconds after an end within which nobody else is ended.
COOL_DOWN = 1.0
#: Seconds for which new leases wait at most, and how much more than it had an ended executor would have needed.
HOLD, GROWTH = 30.0, 1.25
#: Bytes that a second can fill, and the shortest and the longest time between two looks.
FILL_RATE, SHORTEST, LONGEST = 8 << 30, 0.05, 1.0

#: What an executor does.
IDLE, TASK, ACTOR = "idle", "task", "actor"


@dataclasses.dataclass(frozen=True, slots=True)
class Gauge:
    """A limit, and how much is used of it."""

    #: What is limited, in the words that users read: "… was nearly full".
    what: str
    limit: int
    used: int

    @property
    def ratio(self) -> float:
        return self.used / self.limit


@dataclasses.dataclass(frozen=True, slots=True)
class Usage:
    """An executor and what it holds."""

    executor_id: str
    #: Bytes that would be free if it ended: its own and its children's, without what it shares with others.
    private: int
    work: str = IDLE
    #: "" for a spare, which is not worth ending: another would be started.
    job_id: str = ""
    #: When its work began.
    since: float = 0.0
    #: Whether the work can be done again; None if nobody here knows.
    retriable: bool | None = None


@dataclasses.dataclass(frozen=True, slots=True)
class Verdict:
    """The memory is nearly full: end these, if any."""

    gauge: Gauge
    #: Bytes that all executors hold together which hold more than any does.
    held: int
    #: Executors without work.
    idle: tuple[Usage, ...] = ()
    victim: Usage | None = None
    #: Whether nobody holds more than the victim.
    is_biggest: bool = True

    @property
    def is_ours(self) -> bool:
        """Whether ending executors is of any use."""
        return bool(self.idle or self.victim)


def judge(
    gauge: Gauge,
    executors: Sequence[Usage],
    now: float,
    *,
    threshold: float = THRESHOLD,
    last_end_at: float | None = None,
) -> Verdict | None:
    """Decide whether somebody has to end; None if nobody has to, or not yet.

    Parameters
    ----------
    threshold
        Share of the limit above which the memory counts as nearly full.
    last_end_at
        When an executor was last ended or, better, seen to be gone.
    """
    if gauge.used <= threshold * gauge.limit or (last_end_at is not None and now - last_end_at < COOL_DOWN):
        return None
    held = sum(executor.private for executor in executors if executor.private > BASE)
    if held < LITTLE * gauge.limit:
        return Verdict(gauge, held)
    idle = tuple(
        executor
        for executor in executors
        if executor.work == IDLE and executor.job_id and executor.private >= WORTH * gauge.limit
    )
    if gauge.used - sum(executor.private for executor in idle) <= threshold * gauge.limit:
        return Verdict(gauge, held, idle)
    working = [executor for executor in executors if executor.work != IDLE and executor.private > BASE]
    if not working:
        return Verdict(gauge, held, idle)
    most = max(executor.private for executor in working)
    victim = _choose(executors, [executor for executor in working if executor.private >= SIMILAR * most])
    return Verdict(gauge, held, idle, victim, victim.private == most)


def _choose(executors: Iterable[Usage], similar: Iterable[Usage]) -> Usage:
    """Return the one of *similar* executors whose loss costs least."""
    jobs: dict[str, int] = {}
    for executor in executors:
        jobs[executor.job_id] = jobs.get(executor.job_id, 0) + executor.private
    return min(
        similar,
        key=lambda executor: (
            executor.work == ACTOR,
            {True: 0, None: 1, False: 2}[executor.retriable],
            -jobs[executor.job_id],
            -executor.since,
            -executor.private,
            executor.executor_id,
        ),
    )


def next_look(gauges: Iterable[Gauge], threshold: float = THRESHOLD) -> float:
    """Return the seconds within which no memory gets nearly full that is not now."""
    room = min((threshold * gauge.limit - gauge.used for gauge in gauges), default=float("inf"))
    return min(LONGEST, max(SHORTEST, room / FILL_RATE))


class Hold:
    """Whether new leases have to wait, after somebody was ended."""

    def __init__(self, threshold: float = THRESHOLD) -> None:
        self._threshold = threshold
        self._what = ""
        self._level = 0.0
        self._until = 0.0

    @property
    def active(self) -> bool:
        return bool(self._what)

    def begin(self, verdict: Verdict, now: float) -> None:
        """An executor was ended: wait, if waiting can help."""
        victim, gauge = verdict.victim, verdict.gauge
        if victim is None:
            return
        after = gauge.used - victim.private
        room_again = self._threshold * gauge.limit - GROWTH * victim.private
        others_gone = gauge.used - verdict.held + LITTLE * gauge.limit
        level = max(room_again, others_gone)
        if after > level:
            self._what, self._level, self._until = gauge.what, level, now + HOLD

    def look(self, gauges: Iterable[Gauge], now: float) -> None:
        """See whether the wait is over."""
        used = next((gauge.used for gauge in gauges if gauge.what == self._what), 0)
        if used <= self._level or now >= self._until:
            self._what = ""
