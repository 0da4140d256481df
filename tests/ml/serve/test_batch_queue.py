"""Batches of single requests."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from shoal_ml.serve.batch_queue import BatchQueue


def test_a_full_batch_goes_at_once_and_a_small_one_when_its_oldest_item_has_waited():
    queue = BatchQueue(3, 1.0, max_batches=9)
    for item in "abcd":
        queue.add(item, 0.0)
    assert queue.take(0.0) == ["a", "b", "c"]
    assert queue.take(0.5) is None and queue.next_time() == 1.0
    assert queue.take(1.0) == ["d"] and queue.next_time() is None


def test_items_gather_while_all_places_are_taken():
    queue = BatchQueue(10, 0.0)
    queue.add(1, 0.0)
    assert queue.take(0.0) == [1]
    for item in (2, 3, 4):
        queue.add(item, 0.0)
    assert queue.take(5.0) is None and queue.next_time() is None
    queue.done()
    assert queue.take(5.0) == [2, 3, 4]


def test_sizes_and_buckets():
    queue = BatchQueue(10, 1.0, 9, size_of=len, bucket_of=lambda text: text[0])
    for text in ("aaaa", "bbb", "aaaaaaa", "a" * 30):
        queue.add(text, 0.0)
    assert queue.take(0.0) == ["aaaa"], "11 are more than 10"
    assert queue.take(0.0) == ["a" * 7]
    assert queue.take(0.0) == ["a" * 30], "one that is too large goes alone"
    assert queue.take(0.0) is None
    assert queue.take(1.0) == ["bbb"]


def test_what_nobody_wants_any_more_is_in_no_batch():
    queue = BatchQueue(2, 1.0)
    first, second = object(), object()
    queue.add(first, 0.0)
    queue.discard(first)
    queue.discard(first)
    assert len(queue) == 0 and queue.next_time() is None
    queue.add(second, 0.5)
    assert queue.take(1.5) == [second]


@given(
    st.lists(st.tuples(st.floats(0, 0.3), st.integers(1, 5), st.integers(0, 2)), max_size=60),
    st.integers(1, 8),
    st.integers(1, 3),
)
def test_every_item_goes_out_once_in_order_within_limits_and_in_time(arrivals, max_size, max_batches):
    queue = BatchQueue(max_size, 0.1, max_batches, lambda item: item[1], lambda item: item[2])
    now, taken, times = 0.0, [], {}
    for number, (gap, size, bucket) in enumerate(arrivals):
        now += gap
        queue.add((number, size, bucket), now)
        times[number] = now
        while (batch := queue.take(now)) is not None:
            assert len(batch) == 1 or sum(item[1] for item in batch) <= max_size
            assert len({item[2] for item in batch}) == 1
            taken += batch
            queue.done()
        due = queue.next_time()
        assert due is None or due > now
    while (due := queue.next_time()) is not None:
        batch = queue.take(due)
        assert batch is not None and due <= min(times[item[0]] for item in batch) + 0.1
        taken += batch
        queue.done()
    assert sorted(item[0] for item in taken) == list(range(len(arrivals)))
    for bucket in range(3):
        mine = [item[0] for item in taken if item[2] == bucket]
        assert mine == sorted(mine)
