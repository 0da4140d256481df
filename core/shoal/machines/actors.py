"""The controller's actor directory: which actors there are, what they are called, and what becomes of them.

An actor is *pending* until a node has room for it, *starting* while its ``__init__`` runs, *alive*, *restarting* when
its process has died and it may have another, and *dead* at last. Whoever holds a handle and has called it watches it
and hears of each change. Its id and its name stay when it is restarted.

Events are methods; the actions they cause gather until :meth:`ActorDirectory.flush`.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable

from shoal.model.messages import (
    ActorAlive,
    ActorDead,
    ActorRestarting,
    CreateActor,
    Message,
    NameClaimed,
    Payload,
)
from shoal.model.options import ENDLESS
from shoal.model.placement import SchedulingClass, class_from_wire

#: Dead actors whose cause of death is remembered.
MAX_DEAD = 1_000

Key = tuple[str, str]
"""Namespace and name."""


@dataclasses.dataclass(slots=True)
class Actor:
    """One actor that is not dead."""

    actor_id: str
    #: Ends with it; "" for a detached actor.
    owner_id: str
    job_id: str
    kind: SchedulingClass
    class_name: str
    name: str
    #: How often it may still be started afresh; -1 for no end.
    restarts_left: int
    #: What the executor needs to run ``__init__``.
    creation: bytes
    #: ``pending``, ``starting``, ``alive`` or ``restarting``.
    state: str = "pending"
    lease_id: str = ""
    num_restarts: int = 0
    alive: ActorAlive | None = None
    watchers: dict[str, None] = dataclasses.field(default_factory=dict)


@dataclasses.dataclass(slots=True)
class Name:
    """Who has a name, from the moment its creation was announced."""

    actor_id: str
    claimed_by: str
    handle: bytes
    life: tuple[str, str]


@dataclasses.dataclass(frozen=True, slots=True)
class Place:
    """Find a node for the actor."""

    actor: Actor


@dataclasses.dataclass(frozen=True, slots=True)
class Unplace:
    """The actor needs no node any more; ``lease_id`` is the lease to end, executor included, if it had one."""

    actor_id: str
    lease_id: str


@dataclasses.dataclass(frozen=True, slots=True)
class Tell:
    owner_ids: tuple[str, ...]
    message: Message


@dataclasses.dataclass(frozen=True, slots=True)
class Changed:
    """News for whoever shows actors to people. ``state`` is one of an actor's, or ``dead``."""

    actor_id: str
    state: str
    node_id: str = ""


Action = Place | Unplace | Tell | Changed


class ActorDirectory:
    """See the module's description. One per controller; not thread-safe."""

    def __init__(self) -> None:
        self.actors: dict[str, Actor] = {}
        self.names: dict[Key, Name] = {}
        self._keys: dict[str, Key] = {}
        self._dead: dict[str, ActorDead] = {}
        self._actions: list[Action] = []

    # -- events --------------------------------------------------------------------------------------------------

    def claim_name(self, key: Key, claim: Name, policy: str) -> Name:
        """Give *key* to the actor that *claim* is about, unless another has it; returns who has it now.

        With policy ``replace`` the other is ended first.
        """
        holder = self.names.get(key)
        if holder is not None and policy != "replace":
            return holder
        if holder is not None:
            self._forget_name(holder.actor_id)
            self.kill(holder.actor_id, "another took its place", restart=False)
        self.names[key] = claim
        self._keys[claim.actor_id] = key
        return claim

    def create(self, owner_id: str, job_id: str, request: CreateActor) -> None:
        """An owner wants an actor, and will hear what becomes of it."""
        actor = self.actors[request.actor_id] = Actor(
            request.actor_id,
            "" if request.detached else owner_id,
            job_id,
            class_from_wire(request.kind),
            request.class_name,
            request.name,
            request.max_restarts,
            request.creation,
            watchers={owner_id: None},
        )
        self._actions.append(Place(actor))

    def watch(self, owner_id: str, actor_id: str) -> None:
        """Somebody with a handle wants to know where the actor is, and when that changes."""
        actor = self.actors.get(actor_id)
        if actor is None:
            unknown = ActorDead(actor_id, "this cluster knows no such actor", "", ())
            self._tell([owner_id], self._dead.get(actor_id, unknown))
            return
        actor.watchers[owner_id] = None
        if actor.alive is not None:
            self._tell([owner_id], actor.alive)

    def placed(self, actor_id: str, lease_id: str) -> None:
        """A node has room and starts an executor."""
        actor = self.actors.get(actor_id)
        if actor is not None:
            actor.lease_id, actor.state = lease_id, "starting"

    def created(self, actor_id: str, node_id: str, executor_id: str, address: str, error: Payload) -> None:
        """``__init__`` has run there; *error* is what it raised, if it did."""
        actor = self.actors.get(actor_id)
        if actor is None or actor.state != "starting":
            return
        if error:
            self._end(actor, "its `__init__` raised an exception", "", error)
            return
        actor.state = "alive"
        actor.alive = ActorAlive(actor_id, node_id, executor_id, address)
        self._tell(actor.watchers, actor.alive)
        self._actions.append(Changed(actor_id, "alive", node_id))

    def lost(self, actor_id: str, lease_id: str, cause: str, stderr: str) -> None:
        """The executor of an actor is gone, or could not be started."""
        actor = self.actors.get(actor_id)
        if actor is None or actor.lease_id != lease_id:
            return
        actor.lease_id, actor.alive = "", None
        if actor.restarts_left == 0:
            self._end(actor, cause, stderr)
            return
        if actor.restarts_left != ENDLESS:
            actor.restarts_left -= 1
        actor.num_restarts += 1
        actor.state = "restarting"
        self._actions.append(Changed(actor_id, "restarting"))
        self._tell(actor.watchers, ActorRestarting(actor_id, cause))
        self._actions.append(Place(actor))

    def kill(self, actor_id: str, cause: str, *, restart: bool) -> None:
        """Somebody ends an actor; with *restart* as if it had crashed."""
        actor = self.actors.get(actor_id)
        if actor is None:
            return
        if restart and actor.lease_id:
            lease_id = actor.lease_id
            self._actions.append(Unplace(actor_id, lease_id))
            self.lost(actor_id, lease_id, cause, "")
        elif not restart:
            self._end(actor, cause, "")

    def owner_gone(self, owner_id: str) -> None:
        """A process has ended: its actors end with it, and it watches no more."""
        for actor in list(self.actors.values()):
            actor.watchers.pop(owner_id, None)
            if actor.owner_id == owner_id:
                self._end(actor, "its owner is gone", "")
        for name in list(self.names.values()):
            if name.claimed_by == owner_id and name.actor_id not in self.actors:
                self._forget_name(name.actor_id)

    # -- what follows from them ----------------------------------------------------------------------------------

    def find(self, key: Key) -> Name | None:
        return self.names.get(key)

    def find_dead(self, actor_id: str) -> ActorDead | None:
        """Return how an actor has ended, if it has, and not too long ago."""
        return self._dead.get(actor_id)

    def flush(self) -> list[Action]:
        """Return every action gathered since the last call."""
        actions, self._actions = self._actions, []
        return actions

    def validate(self) -> None:
        """Check the invariants; for tests and the simulation."""
        for actor in self.actors.values():
            assert (actor.alive is not None) == (actor.state == "alive"), actor
            assert bool(actor.lease_id) == (actor.state in ("starting", "alive")), actor
            assert actor.actor_id not in self._dead, actor
        assert {name.actor_id: key for key, name in self.names.items()} == self._keys

    def _end(self, actor: Actor, cause: str, stderr: str, error: Payload = ()) -> None:
        del self.actors[actor.actor_id]
        self._actions.append(Unplace(actor.actor_id, actor.lease_id))
        dead = self._dead[actor.actor_id] = ActorDead(actor.actor_id, cause, stderr, error)
        self._tell(actor.watchers, dead)
        self._actions.append(Changed(actor.actor_id, "dead"))
        self._forget_name(actor.actor_id)
        while len(self._dead) > MAX_DEAD:
            del self._dead[next(iter(self._dead))]

    def _forget_name(self, actor_id: str) -> None:
        key = self._keys.pop(actor_id, None)
        if key is not None:
            del self.names[key]

    def _tell(self, owner_ids: Iterable[str], message: Message) -> None:
        if owner_ids := tuple(owner_ids):
            self._actions.append(Tell(owner_ids, message))


def as_claimed(request: int, name: Name | None) -> NameClaimed:
    """Return the answer to somebody who asked for a name."""
    if name is None:
        return NameClaimed(request, "", b"", ("", ""))
    return NameClaimed(request, name.actor_id, name.handle, name.life)
