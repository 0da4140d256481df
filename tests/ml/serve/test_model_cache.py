"""Which models are in memory."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from shoal_ml.serve.model_cache import ModelCache
from shoal_ml.serve.multiplexing import measure


def test_the_least_recently_used_goes_first_and_pinned_ones_stay():
    cache = ModelCache(2, None)
    cache.pin("a", True)
    assert cache.add("a", "A", 1) == [] and cache.add("b", "B", 1) == []
    assert cache.find("b") == "B"
    assert cache.add("c", "C", 1) == ["B"]
    assert cache.find("a") == "A"
    with pytest.raises(LookupError):
        cache.find("b")
    assert (cache.hits, cache.misses, cache.evictions) == (2, 1, 1)
    cache.pin("a", False)
    assert cache.add("d", "D", 1) == ["C"], "`a` was used since"
    assert cache.add("e", "E", 1) == ["A"]


def test_one_model_is_kept_whatever_its_size():
    cache = ModelCache(None, 10)
    cache.add("small", 1, 4)
    assert cache.add("huge", 2, 1_000) == [1]
    assert cache.find("huge") == 2 and cache.nbytes == 1_000


@given(st.lists(st.tuples(st.integers(0, 9), st.integers(1, 8)), max_size=80))
def test_the_budget_holds_and_bytes_add_up(uses):
    cache, sizes = ModelCache(5, 20), {}
    for number, size in uses:
        try:
            assert cache.find(str(number)) == number
        except LookupError:
            cache.add(str(number), number, size)
            sizes[str(number)] = size
        assert len(cache) <= 5 and cache.nbytes <= 20
        assert cache.nbytes == sum(sizes[model_id] for model_id in cache.ids())


def test_sizes_of_models_are_found():
    class Linear:
        def __init__(self) -> None:
            self.weights = np.zeros(1_000)

    assert measure(np.zeros(10)) == 80
    assert measure(Linear()) >= 8_000
    assert measure({"w": np.zeros(100)}) >= 800
