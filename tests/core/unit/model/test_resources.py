"""Resource vectors."""

from __future__ import annotations

from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shoal.model.resources import describe, fits, from_wire, give, make_resources, take

AMOUNTS = st.dictionaries(st.sampled_from(["num_cpus", "num_gpus", "memory", "tpu"]), st.floats(0.0001, 1e6))


def test_vectors_are_sorted_and_hold_no_zeros() -> None:
    assert make_resources({"num_cpus": 2, "memory": 0, "gpu": 0.5}) == (("gpu", 0.5), ("num_cpus", 2.0))
    assert make_resources({}) == ()


def test_an_amount_that_rounds_to_nothing_is_left_out() -> None:
    assert make_resources({"num_cpus": 1e-6}) == ()


def test_a_vector_fits_where_every_amount_does() -> None:
    asked = make_resources({"num_cpus": 2, "tpu": 1})
    assert fits(asked, {"num_cpus": 2.0, "tpu": 1.0, "memory": 5.0})
    assert not fits(asked, {"num_cpus": 1.9999, "tpu": 1.0})
    assert not fits(asked, {"num_cpus": 8.0})
    assert fits((), {})


@given(AMOUNTS)
def test_vectors_survive_the_wire(amounts: dict[str, float]) -> None:
    asked = make_resources(amounts)
    assert from_wire([list(pair) for pair in asked]) == asked
    assert hash(from_wire(asked)) == hash(asked)


@given(st.lists(AMOUNTS, max_size=30), st.randoms())
def test_what_is_taken_and_given_leaves_what_was_there(vectors: list[dict[str, float]], random: Random) -> None:
    free = {"num_cpus": 4.0, "num_gpus": 1.0, "memory": 1e6, "tpu": 0.3}
    before = dict(free)
    asked = [make_resources(vector) for vector in vectors]
    for vector in asked:
        take(vector, free)
    random.shuffle(asked)
    for vector in asked:
        give(vector, free)
    assert free == pytest.approx(before, abs=1e-3)


def test_a_thousand_tenths_leave_exactly_what_was_there() -> None:
    free = {"num_cpus": 1.0}
    tenth = make_resources({"num_cpus": 0.1})
    for _ in range(1000):
        take(tenth, free)
    assert free["num_cpus"] == -99.0
    for _ in range(1000):
        give(tenth, free)
    assert free == {"num_cpus": 1.0}


def test_amounts_are_said_exactly_and_bytes_for_people() -> None:
    asked = make_resources({"num_cpus": 0.5, "memory": 25_276_500_123, "tpu": 1_234_567})
    assert describe(asked) == "memory=25276500123 (23.5 GiB), num_cpus=0.5, tpu=1234567"
    assert describe(()) == "nothing"
