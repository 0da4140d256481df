"""From what is wanted of a deployment and what there is to what has to be done: pure functions and a small record.

A rolling update never takes a replica away before another is ready in its place: while there are replicas of an earlier
version, at most *surge* more than wanted exist, and an old one leaves only if as many as are wanted stay healthy. That
holds for one replica as for a hundred. A version whose replicas fail to start before any of them has served is given
up, and the version before is wanted again.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from typing import Literal, NamedTuple

State = Literal["STARTING", "RUNNING", "DRAINING"]

#: Replicas of a version that may fail to start, one after the other, before the version is given up.
MAX_FAILED_STARTS = 3
#: Share of the replicas that a rolling update replaces at once.
SURGE_RATIO = 0.25
#: Seconds until another is started after one has failed: the first time and at most.
FIRST_BACKOFF, LAST_BACKOFF = 0.25, 10.0


@dataclasses.dataclass(slots=True)
class ReplicaRow:
    """One replica as the controller knows it."""

    replica_id: str
    version: str
    state: State = "STARTING"
    #: Number of the configuration that it was given.
    configured: int = 0


class Wanted(NamedTuple):
    """What a deployment is to be."""

    version: str
    num_replicas: int
    #: Number of its configuration.
    configured: int = 0


class Start(NamedTuple):
    """Start one more replica of this version."""

    version: str


class Drain(NamedTuple):
    """Have this replica end its requests, and then itself."""

    replica_id: str


class Configure(NamedTuple):
    """Give this replica the wanted configuration."""

    replica_id: str


Action = Start | Drain | Configure


def plan(wanted: Wanted, rows: Sequence[ReplicaRow], *, may_start: bool = True) -> list[Action]:
    """Return what to do now.

    Parameters
    ----------
    may_start
        False while the last start has failed so recently that another try would be too early.
    """
    live = [row for row in rows if row.state != "DRAINING"]
    new = [row for row in live if row.version == wanted.version]
    old = [row for row in live if row.version != wanted.version]
    actions: list[Action] = [Drain(row.replica_id) for row in old if row.state == "STARTING"]
    old = [row for row in old if row.state == "RUNNING"]
    surplus = _surplus(new, wanted.num_replicas)
    actions += [Drain(row.replica_id) for row in surplus]
    new = [row for row in new if row not in surplus]
    if may_start:
        actions += [Start(wanted.version)] * _to_start(wanted.num_replicas, len(new), len(old))
    healthy = sum(row.state == "RUNNING" for row in new) + len(old)
    leaving = min(len(old), max(0, healthy - wanted.num_replicas))
    actions += [Drain(row.replica_id) for row in old[:leaving]]
    actions += [
        Configure(row.replica_id) for row in new if row.state == "RUNNING" and row.configured != wanted.configured
    ]
    return actions


def _surplus(new: Sequence[ReplicaRow], num_wanted: int) -> list[ReplicaRow]:
    """Return those that are too many: what has not started yet first, the youngest of the others then."""
    by_age = sorted(new, key=lambda row: row.state == "STARTING")
    return by_age[num_wanted:]


def _to_start(num_wanted: int, num_new: int, num_old: int) -> int:
    missing = max(0, num_wanted - num_new)
    if not num_old:
        return missing
    surge = max(1, math.ceil(SURGE_RATIO * num_wanted))
    return min(missing, max(0, num_wanted + surge - num_new - num_old))


@dataclasses.dataclass(slots=True)
class StartHistory:
    """What has become of the replicas of the wanted version."""

    version: str = ""
    #: Failed one after the other.
    failures: int = 0
    #: Some replica of it has been ready.
    proven: bool = False

    def begin(self, version: str) -> None:
        """This version is wanted from now on."""
        if version != self.version:
            self.version, self.failures, self.proven = version, 0, False

    def succeeded(self, version: str) -> None:
        """A replica is ready."""
        if version == self.version:
            self.failures, self.proven = 0, True

    def failed(self, version: str) -> float:
        """A replica did not get ready; returns the seconds to wait before another is started."""
        if version != self.version:
            return 0.0
        self.failures += 1
        return min(LAST_BACKOFF, FIRST_BACKOFF * 2.0 ** (self.failures - 1))

    @property
    def is_hopeless(self) -> bool:
        """Whether the version should be given up."""
        return self.failures >= MAX_FAILED_STARTS
