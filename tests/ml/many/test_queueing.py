"""Which fits are sent when: nothing is lost, nothing is done twice, whatever becomes of the chunks."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from shoal_ml.train.many.queueing import CHUNK_SECONDS, GROWTH, MAX_CRASHES, Chunk, FitQueue, Place

RIDGE, FOREST = Place("ridge", 0), Place("forest", 0)


def work_off(queue: FitQueue, seconds: float) -> list[list[int]]:
    """Have everything end well, each fit in *seconds*; return the chunks."""
    sent = []
    while (chunk := queue.next_chunk()) is not None:
        sent.append(chunk.fits)
        queue.ended(chunk, seconds * len(chunk.fits), [])
    assert queue.is_over
    return sent


def test_chunks_of_quick_fits_grow_to_what_sending_pays_for():
    sizes = [len(fits) for fits in work_off(FitQueue([RIDGE] * 1_000), 0.001)]
    assert sizes[:4] == [1, GROWTH, GROWTH**2, 50]
    assert max(sizes) == CHUNK_SECONDS / 0.001


def test_long_fits_go_one_by_one():
    assert [len(fits) for fits in work_off(FitQueue([FOREST] * 5), 3.0)] == [1] * 5


def test_a_chunk_has_one_trainer_and_one_block():
    places = [RIDGE, Place("ridge", 1), RIDGE, FOREST, Place("ridge", 1)]
    chunks = work_off(FitQueue(places), 1e-6)
    assert [{places[number] for number in fits} for fits in chunks if len({places[n] for n in fits}) > 1] == []
    assert sorted(number for fits in chunks for number in fits) == [0, 1, 2, 3, 4]


def test_no_more_than_so_many_chunks_are_under_way():
    queue = FitQueue([RIDGE] * 10, max_in_flight=3)
    chunks = [queue.next_chunk() for _ in range(3)]
    assert all(chunks) and queue.next_chunk() is None
    assert isinstance(chunks[0], Chunk)
    queue.ended(chunks[0], 1.0, [])
    assert queue.next_chunk() is not None


def test_a_crash_is_found_among_its_neighbours():
    queue = FitQueue([RIDGE] * 5)
    first = queue.next_chunk()
    assert first is not None
    queue.ended(first, 1e-9, [])
    four = queue.next_chunk()
    assert four is not None and len(four.fits) == 4
    assert queue.crashed(four) == []
    bad, dead = four.fits[2], []
    while (chunk := queue.next_chunk()) is not None:
        assert len(chunk.fits) == 1
        dead += queue.crashed(chunk) if chunk.fits == [bad] else queue.ended(chunk, 1.0, [])
    assert dead == [bad] and queue.is_over and queue.attempts(bad) == MAX_CRASHES


def test_what_raises_is_tried_again_as_often_as_allowed():
    queue = FitQueue([RIDGE], retries=2)
    outcomes = []
    while (chunk := queue.next_chunk()) is not None:
        outcomes.append(queue.ended(chunk, 0.1, chunk.fits))
    assert outcomes == [[], [], [0]] and queue.attempts(0) == 3


@given(st.data())
def test_each_fit_ends_once_whatever_happens(data: st.DataObject):
    places = data.draw(st.lists(st.builds(Place, st.sampled_from("ab"), st.integers(0, 2)), max_size=40))
    retries = data.draw(st.integers(0, 2))
    queue = FitQueue(places, retries=retries, max_in_flight=data.draw(st.integers(1, 4)))
    under_way: list[Chunk] = []
    ended: list[int] = []
    while not queue.is_over:
        chunk = queue.next_chunk() if data.draw(st.booleans()) or not under_way else None
        if chunk is not None:
            under_way.append(chunk)
            assert len({places[number] for number in chunk.fits}) == 1
            continue
        one = under_way.pop(data.draw(st.integers(0, len(under_way) - 1)))
        if data.draw(st.booleans()):
            ended += queue.crashed(one)
        else:
            failed = data.draw(st.lists(st.sampled_from(one.fits), unique=True))
            for_good = queue.ended(one, data.draw(st.floats(0, 10)), failed)
            assert set(for_good) <= set(failed)
            ended += [number for number in one.fits if number not in failed] + for_good
    assert sorted(ended) == list(range(len(places))) and not under_way
