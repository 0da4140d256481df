"""What processes hold is counted to the one: values go when the last of them lets go, or ends."""

from __future__ import annotations

import gc
import os
import signal

import pytest

import shoal
from shoal.api import session


@shoal.remote
class Keeper:
    """Keeps whatever it is given, a handle of itself included."""

    def __init__(self):
        self.kept = []

    def keep(self, box):
        self.kept.append(box)

    def drop(self):
        self.kept.clear()

    def pid(self):
        return os.getpid()

    def call(self, actor):
        return shoal.get(actor.pid.remote())


@pytest.fixture
def settled(cluster, wait_until):
    """Check that in the end as many objects are there as at the beginning."""
    owner = session._session.owner
    gc.collect()
    before = owner.num_objects()
    yield
    gc.collect()
    wait_until(
        lambda: owner.num_objects() == before,
        lambda: f"release of {[(e.object_id, e.local, e.borrowers) for e in owner.table.entries()]}",
    )


def test_what_an_actor_kept_is_freed_when_it_lets_go(settled):
    keeper, ref = Keeper.remote(), shoal.put(1)
    shoal.get([keeper.keep.remote([ref]), keeper.keep.remote({"again": ref})], timeout=30)
    shoal.get(keeper.drop.remote(), timeout=30)


def test_what_an_actor_kept_is_freed_when_it_ends(settled):
    keeper, ref = Keeper.remote(), shoal.put(1)
    shoal.get(keeper.keep.remote([ref]), timeout=30)
    shoal.kill(keeper)


def test_what_an_actor_kept_is_freed_when_its_process_is_killed(settled):
    keeper, ref = Keeper.remote(), shoal.put(1)
    shoal.get(keeper.keep.remote([ref]), timeout=30)
    os.kill(shoal.get(keeper.pid.remote()), signal.SIGKILL)
    with pytest.raises(shoal.errors.ActorDiedError):
        shoal.get(keeper.pid.remote(), timeout=30)


def test_an_actor_that_kept_another_lets_it_end(settled, wait_until):
    keeper, kept = Keeper.remote(), Keeper.remote()
    actor_id = kept._actor_id
    shoal.get(keeper.keep.remote(kept), timeout=30)
    del kept
    shoal.get(keeper.drop.remote(), timeout=30)
    wait_until(lambda: actor_id not in living_actors(), "its end")


def test_an_actor_whose_call_of_itself_was_cancelled_can_end(settled, wait_until):
    keeper = Keeper.remote()
    actor_id, waits_for_itself = keeper._actor_id, keeper.call.remote(keeper)
    wait_until(lambda: shoal.why(waits_for_itself).deadlock, "the deadlock")
    shoal.cancel(waits_for_itself)
    with pytest.raises(shoal.errors.TaskCancelledError):
        shoal.get(waits_for_itself, timeout=30)
    keeper = waits_for_itself = None
    wait_until(lambda: actor_id not in living_actors(), "its end")


def living_actors():
    return {row["id"] for row in shoal.snapshot()["actors"] if row["state"] == "alive"}


def test_refs_to_large_values_carry_where_they_are(cluster):
    """Whoever gets one inside a value reads it without asking its owner, though not what holds refs itself."""

    @shoal.remote
    def known(box):
        table = box[0]._owner.table
        return [table.get(ref.id).payload is not None for ref in box]

    large = shoal.put(bytes(200_000))
    holds = shoal.put([large, bytes(200_000)])
    assert shoal.get(known.remote([large, shoal.put(1), holds]), timeout=30) == [True, False, False]

    @shoal.remote
    def read(box):
        return len(shoal.get(shoal.get(box[0])[0]))

    assert shoal.get(read.remote([holds]), timeout=30) == 200_000
