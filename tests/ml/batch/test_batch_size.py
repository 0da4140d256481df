"""How the size of batches is found."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shoal_ml.batch.batch_size import FIRST_SIZE, LARGEST_SIZE, BatchSize, is_out_of_memory


def search(seconds_of) -> tuple[BatchSize, list[int]]:
    size, tried = BatchSize("auto"), []
    for _ in range(200):
        if not tried or tried[-1] != size.size:
            tried.append(size.size)
        size.worked(size.size, seconds_of(size.size))
    return size, tried


def test_it_grows_while_rows_per_second_rise():
    # a call costs 1 ms and a row 10 µs: 5 % are not gained any more beyond some thousand rows
    size, _ = search(lambda rows: 0.001 + rows * 1e-5)
    assert size.settled and 1024 <= size.size <= 4096


def test_it_stays_small_where_larger_is_no_better():
    size, tried = search(lambda rows: rows * 1e-5)
    assert size.size == FIRST_SIZE
    assert tried == [FIRST_SIZE, 2 * FIRST_SIZE, 4 * FIRST_SIZE, FIRST_SIZE]


def test_a_slow_first_call_is_not_counted():
    size = BatchSize("auto")
    size.worked(FIRST_SIZE, 100.0)
    for _ in range(2):
        size.worked(FIRST_SIZE, 0.01)
    assert size.size == 2 * FIRST_SIZE


def test_a_cache_that_runs_out_ends_the_growth():
    size, _ = search(lambda rows: 0.001 + rows * (1e-5 if rows <= 256 else 3e-5))
    assert size.size == 256


def test_short_batches_say_nothing():
    size = BatchSize("auto")
    for _ in range(10):
        size.worked(FIRST_SIZE - 1, 1.0)
    assert not size.settled and size.size == FIRST_SIZE


@given(st.lists(st.floats(1e-6, 10), max_size=100))
def test_it_is_always_between_its_bounds_and_settles(times):
    size = BatchSize("auto")
    for seconds in times:
        assert FIRST_SIZE <= size.size <= LARGEST_SIZE
        size.worked(size.size, seconds)
    assert size.settled or len(times) < 50


def test_a_given_size_is_kept():
    size = BatchSize(100)
    for _ in range(20):
        size.worked(100, 0.001)
    assert size.size == 100


@given(st.integers(1, 10_000), st.integers(1, 10_000))
def test_short_memory_halves_down_to_what_fits(asked, fits):
    size = BatchSize(asked)
    while size.size > fits:
        assert size.too_large(size.size)
    assert size.size <= fits and (size.size == asked or fits < 2 * size.size + 1), "no smaller than need be"
    size.worked(size.size, 0.001)
    assert size.size <= fits
    assert not BatchSize(1).too_large(1)


def test_after_short_memory_it_does_not_grow_again():
    size = BatchSize("auto")
    size.too_large(FIRST_SIZE)
    for _ in range(20):
        size.worked(size.size, size.size * 1e-9)
    assert size.size == FIRST_SIZE // 2


@pytest.mark.parametrize(
    ("error", "is_one"),
    [
        (MemoryError(), True),
        (RuntimeError("[enforce fail at alloc_cpu.cpp] DefaultCPUAllocator: can't allocate memory: you tried"), True),
        (RuntimeError("CUDA out of memory. Tried to allocate"), True),
        (RuntimeError("shape mismatch"), False),
        (ValueError("out of memory"), False),
    ],
)
def test_which_errors_mean_short_memory(error, is_one):
    assert is_out_of_memory(error) is is_one


def test_torchs_own_error_means_short_memory():
    import torch

    assert is_out_of_memory(torch.OutOfMemoryError("no room"))
    with pytest.raises(RuntimeError) as raised:
        torch.empty(1 << 60)
    assert is_out_of_memory(raised.value)
