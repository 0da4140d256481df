"""What the lease machine keeps, and what it wants done: leases, claims, and the actions that its events cause."""

from __future__ import annotations

import dataclasses

from shoal.machines.bundles import Group
from shoal.machines.nodes import Ledger
from shoal.model.placement import SchedulingClass
from shoal.model.resources import Resources


@dataclasses.dataclass(slots=True, eq=False)
class Lease:
    """A grant. ``actor_id`` is set if the executor hosts an actor."""

    lease_id: str
    #: Leases are numbered in the order granted.
    number: int
    owner_id: str
    job_id: str
    kind: SchedulingClass
    #: What it has taken its resources from.
    ledger: Ledger
    actor_id: str = ""
    executor_id: str = ""
    address: str = ""
    #: Its task waits for other work and has lent its resources.
    waiting: bool = False
    #: The owner was asked to give it back (1: when idle, 2: as soon as it drains).
    reclaimed: int = 0

    @property
    def node_id(self) -> str:
        return self.ledger.node_id

    @property
    def started(self) -> bool:
        return bool(self.address)


@dataclasses.dataclass(slots=True, eq=False)
class Claim:
    """What one owner wants of one class."""

    owner_id: str
    job_id: str
    kind: SchedulingClass
    wanted: int
    #: Oldest first.
    leases: dict[str, Lease] = dataclasses.field(default_factory=dict)
    #: How many of them are being drained.
    num_draining: int = 0

    @property
    def missing(self) -> int:
        return self.wanted - len(self.leases)


@dataclasses.dataclass(slots=True)
class ActorRequest:
    actor_id: str
    #: "" for a detached actor.
    owner_id: str
    job_id: str
    kind: SchedulingClass


@dataclasses.dataclass(frozen=True, slots=True)
class Start:
    """Tell the lease's node to bind an executor."""

    lease: Lease


@dataclasses.dataclass(frozen=True, slots=True)
class Grant:
    """Tell the owner that its executor is ready."""

    lease: Lease


@dataclasses.dataclass(frozen=True, slots=True)
class End:
    """Tell the lease's node that the lease is over; with ``kill``, to end the executor."""

    lease: Lease
    kill: bool


@dataclasses.dataclass(frozen=True, slots=True)
class Lost:
    """Tell the owner that the executor is gone."""

    lease: Lease
    cause: str
    stderr: str
    begun: str
    #: As in :class:`~shoal.model.messages.ExecutorDied`.
    memory: tuple[int, ...] = ()


@dataclasses.dataclass(frozen=True, slots=True)
class AskBack:
    lease: Lease
    idle_only: bool


@dataclasses.dataclass(frozen=True, slots=True)
class CannotRun:
    """No node could ever hold this; ``largest`` is what the largest nodes have of each resource asked for."""

    owner_id: str
    actor_id: str
    kind: SchedulingClass
    largest: Resources
    reason: str = ""


@dataclasses.dataclass(frozen=True, slots=True)
class GroupReady:
    """Every bundle of the group has its node."""

    group: Group
    nodes: tuple[str, ...]


@dataclasses.dataclass(frozen=True, slots=True)
class GroupFailed:
    """The group could never be placed."""

    group: Group
    reason: str


Action = Start | Grant | End | Lost | AskBack | CannotRun | GroupReady | GroupFailed
