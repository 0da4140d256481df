"""Which replica gets a request: a sans-IO table, one for each deployment in each process that calls it.

Of two replicas drawn at random, the one with fewer requests under way gets the next (power of two choices:
Mitzenmacher, 2001). Those on the caller's own node are preferred while they have room. Requests for one model of many
go to the replica that rendezvous hashing names (Thaler and Ravishankar, 1998), so that every caller sends them to the
same one without asking; if that one has its hands full, they spill over to the next in that model's own order.
"""

from __future__ import annotations

import dataclasses
import hashlib
import random
from collections.abc import Collection, Iterable


@dataclasses.dataclass(frozen=True, slots=True)
class ReplicaPlace:
    """A replica that requests can be sent to, and the node it is on."""

    replica_id: str
    node_id: str = ""
    #: Share of the requests that its group gets: canaries.
    weight: float = 1.0


@dataclasses.dataclass(slots=True)
class _Load:
    place: ReplicaPlace
    #: Requests of this process that it has not answered.
    ongoing: int = 0


class RoutingTable:
    """Replicas and how busy this process keeps them; not thread-safe."""

    def __init__(self, node_id: str, rng: random.Random) -> None:
        self._node_id = node_id
        self._rng = rng
        self._loads: dict[str, _Load] = {}
        self._limit = 1

    def update(self, places: Iterable[ReplicaPlace], limit: int) -> None:
        """These are the replicas from now on, and each takes *limit* requests of this process at once."""
        self._limit = limit
        self._loads = {
            place.replica_id: _Load(
                place, self._loads[place.replica_id].ongoing if place.replica_id in self._loads else 0
            )
            for place in places
        }

    def __contains__(self, replica_id: str) -> bool:
        return replica_id in self._loads

    def __len__(self) -> int:
        return len(self._loads)

    def ongoing(self, replica_id: str = "") -> int:
        """Return how many requests are under way, at one replica or at all."""
        if replica_id:
            return self._loads[replica_id].ongoing if replica_id in self._loads else 0
        return sum(load.ongoing for load in self._loads.values())

    def has_room(self, avoid: str = "") -> bool:
        """Whether a replica other than *avoid* would take a request now."""
        return any(load.ongoing < self._limit for key, load in self._loads.items() if key != avoid)

    def is_first(self, model_id: str, replica_id: str) -> bool:
        """Whether a replica is the one that a model's requests go to; also if it is not known (yet)."""
        best = max(self._loads, key=lambda other: rendezvous(model_id, other), default=replica_id)
        return best == replica_id

    def pick(self, model_id: str = "", exclude: Collection[str] = ()) -> str:
        """Return the replica for one more request, which counts as begun; "" if none has room."""
        free = [load for key, load in self._loads.items() if load.ongoing < self._limit and key not in exclude]
        if not free:
            return ""
        chosen = self._pick_for_model(model_id, free) if model_id else self._pick_of_two(self._pick_group(free))
        chosen.ongoing += 1
        return chosen.place.replica_id

    def began(self, replica_id: str) -> None:
        """A request was sent to this replica without :meth:`pick`."""
        if replica_id in self._loads:
            self._loads[replica_id].ongoing += 1

    def ended(self, replica_id: str) -> None:
        """A request of this replica has been answered, or never will be."""
        load = self._loads.get(replica_id)
        if load is not None and load.ongoing:
            load.ongoing -= 1

    def lost(self, replica_id: str) -> None:
        """This replica is dead: nothing more goes there, whatever the controller still says."""
        self._loads.pop(replica_id, None)

    def _pick_group(self, free: list[_Load]) -> list[_Load]:
        """Choose between replicas of different weights first, by weight."""
        weights = {load.place.weight for load in free}
        if len(weights) <= 1:
            return free
        by_weight = {weight: [load for load in free if load.place.weight == weight] for weight in sorted(weights)}
        if not any(weights):
            return free
        (chosen,) = self._rng.choices(list(by_weight), weights=list(by_weight))
        return by_weight[chosen]

    def _pick_of_two(self, free: list[_Load]) -> _Load:
        near = [load for load in free if load.place.node_id == self._node_id] or free
        if len(near) == 1:
            return near[0]
        first, second = self._rng.sample(near, 2)
        return first if first.ongoing <= second.ongoing else second

    def _pick_for_model(self, model_id: str, free: list[_Load]) -> _Load:
        """Return the first with room in the model's own order of replicas, unless it is far busier than the idlest."""
        least = min(load.ongoing for load in free)
        calm = [load for load in free if load.ongoing <= 2 * least + self._limit // 2]
        return max(calm, key=lambda load: rendezvous(model_id, load.place.replica_id))


def rendezvous(model_id: str, replica_id: str) -> int:
    """Return the rank of a replica for a model: the highest serves it."""
    digest = hashlib.blake2b(f"{model_id}\0{replica_id}".encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big")
