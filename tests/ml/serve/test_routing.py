"""Which replica a request goes to."""

from __future__ import annotations

import random
from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from shoal_ml.serve.routing import ReplicaPlace, RoutingTable


def table_of(num: int, limit: int = 4, nodes: tuple[str, ...] = ("a",), seed: int = 0) -> RoutingTable:
    table = RoutingTable("a", random.Random(seed))
    table.update([ReplicaPlace(f"r{n}", nodes[n % len(nodes)]) for n in range(num)], limit)
    return table


def test_requests_spread_and_none_gets_more_than_its_limit():
    table = table_of(3, limit=4)
    chosen = Counter(table.pick() for _ in range(12))
    assert chosen == {"r0": 4, "r1": 4, "r2": 4}
    assert table.pick() == "" and not table.has_room()
    table.ended("r1")
    assert table.has_room() and not table.has_room(avoid="r1")
    assert table.pick() == "r1"


def test_the_busier_of_two_is_never_chosen():
    table = table_of(2, limit=100)
    for _ in range(20):
        table.began("r0")
    assert {table.pick() for _ in range(20)} == {"r1"}


def test_replicas_of_the_own_node_come_first_while_they_have_room():
    table = table_of(4, limit=2, nodes=("a", "b"))
    chosen = [table.pick() for _ in range(8)]
    assert set(chosen[:4]) == {"r0", "r2"} and set(chosen[4:]) == {"r1", "r3"}


def test_a_lost_replica_gets_nothing_and_late_answers_of_it_do_no_harm():
    table = table_of(2, limit=2)
    table.pick(), table.pick()
    table.lost("r0")
    table.ended("r0")
    table.update([ReplicaPlace("r1", "a")], 2)
    assert table.ongoing("r1") == 1
    assert [table.pick(), table.pick()] == ["r1", ""]


def test_a_model_stays_with_its_replica_until_that_is_far_busier_than_the_idlest():
    table = table_of(4, limit=8)
    first = table.pick("model-7")
    assert table.is_first("model-7", first)
    others = []
    while (chosen := table.pick("model-7")) == first:
        others.append(chosen)
    assert 2 <= len(others) < 8, "it spills over before the limit, and not at once"
    assert table.pick("model-7", exclude={first}) != first


def test_models_move_only_from_a_replica_that_leaves():
    before, after = table_of(4, limit=10_000), table_of(3, limit=10_000)
    models = [f"m{n}" for n in range(400)]
    places = {model: next(r for r in ("r0", "r1", "r2", "r3") if before.is_first(model, r)) for model in models}
    assert min(Counter(places.values()).values()) > 60
    for model, place in places.items():
        if place != "r3":
            assert after.is_first(model, place)


def test_weights_share_requests_between_groups():
    table = RoutingTable("a", random.Random(3))
    table.update([ReplicaPlace("old", "a", 0.9), ReplicaPlace("new", "a", 0.1)], 100_000)
    chosen = Counter(table.pick() for _ in range(5_000))
    assert 350 < chosen["new"] < 650


@given(st.lists(st.one_of(st.just("pick"), st.integers(0, 4)), max_size=200), st.integers(1, 3))
def test_counts_are_those_of_a_plain_model(events, limit):
    table, counts = table_of(5, limit), Counter()
    for event in events:
        if event == "pick":
            chosen = table.pick()
            assert bool(chosen) == any(counts[f"r{n}"] < limit for n in range(5))
            if chosen:
                counts[chosen] += 1
        elif counts[f"r{event}"]:
            table.ended(f"r{event}")
            counts[f"r{event}"] -= 1
        assert all(table.ongoing(f"r{n}") == counts[f"r{n}"] <= limit for n in range(5))
