"""Remote functions and classes that refer to refs and actors by name, as cells of a notebook do."""

from __future__ import annotations

import gc

import shoal
from shoal.api import session


@shoal.remote
class Counter:
    def __init__(self, start=0):
        self.n = start

    def add(self, amount):
        self.n += amount
        return self.n


def test_functions_and_classes_may_refer_to_refs_and_actors(cluster, wait_until):
    owner = session._session.owner
    before = owner.num_objects()

    def use():
        weights, counter = shoal.put([1, 2, 3]), Counter.remote()

        @shoal.remote
        def total():
            return sum(shoal.get(weights)) + shoal.get(counter.add.remote(1))

        @shoal.remote
        def nested():
            return shoal.get(total.remote())

        @shoal.remote
        class Summer:
            def total(self):
                return sum(shoal.get(weights))

        assert sorted(shoal.get([total.remote() for _ in range(3)], timeout=30)) == [7, 8, 9]
        assert shoal.get(nested.remote(), timeout=30) == 10
        assert shoal.get(Summer.remote().total.remote(), timeout=30) == 6
        return counter._actor_id

    actor_id = use()
    gc.collect()  # every class is part of a circle
    wait_until(lambda: owner.num_objects() == before, "release of what the functions referred to")
    wait_until(
        lambda: {"id": actor_id, "state": "dead"}.items() <= actor_in_snapshot(actor_id).items(), "the actor's end"
    )


def actor_in_snapshot(actor_id):
    rows = [row for row in shoal.snapshot()["actors"] if row["id"] == actor_id]
    return rows[0] if rows else {"id": actor_id, "state": "dead"}


def test_generators_too(cluster):
    counter = Counter.remote()

    @shoal.remote
    def count():
        for _ in range(3):
            yield shoal.get(counter.add.remote(1))

    assert [shoal.get(ref, timeout=30) for ref in count.remote()] == [1, 2, 3]


def test_what_a_function_refers_to_is_taken_anew_in_a_new_session():
    shoal.shutdown()
    counter = None

    @shoal.remote
    def count():
        return shoal.get(counter.add.remote(1))

    results = []
    for start in (0, 10):
        with shoal.init(num_cpus=1):
            counter = Counter.remote(start)
            results.append(shoal.get(count.remote(), timeout=30))
    assert results == [1, 11]


def test_inline():
    with shoal.init(inline=True):
        counter = Counter.remote()

        @shoal.remote
        def count():
            return shoal.get(counter.add.remote(1))

        assert [shoal.get(count.remote()), shoal.get(count.remote())] == [1, 2]
