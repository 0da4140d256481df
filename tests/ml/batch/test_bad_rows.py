"""Bad rows are found, and only they."""

from __future__ import annotations

import pickle

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shoal_ml.batch.bad_rows import Isolation
from shoal_ml.batch.batch_size import BatchSize
from shoal_ml.batch.prediction_errors import TooManyErrors


class Model:
    """Fails for a batch that holds one of the bad rows; has memory for so many rows."""

    def __init__(self, bad=(), room=10**9):
        self.bad, self.room, self.calls = set(bad), room, []

    def __call__(self, start, stop):
        self.calls.append((start, stop))
        if stop - start > self.room:
            raise MemoryError
        wrong = self.bad & set(range(start, stop))
        if wrong:
            raise ValueError(f"row {min(wrong)}")
        return list(range(start, stop))


def run(model, rows, size, **options):
    isolation = Isolation(model, BatchSize(size), lambda: 0.0, **{"isolates": True, **options})
    return isolation.run(rows)


@given(st.integers(0, 60), st.integers(1, 20), st.sets(st.integers(0, 59)), st.integers(1, 20))
def test_each_row_is_done_once_or_is_bad(rows, size, bad, room):
    outcome = run(Model(bad, room), rows, size)
    done = [row for start, stop, part in outcome.parts for row in part]
    assert done == [row for row in range(rows) if row not in bad]
    assert [found.row for found in outcome.bad] == sorted(row for row in bad if row < rows)
    assert all(found.error == f"ValueError: row {found.row}" for found in outcome.bad)
    assert all(part == list(range(start, stop)) for start, stop, part in outcome.parts)


def test_one_bad_row_costs_few_calls_more():
    model = Model({700})
    run(model, 1024, 1024)
    assert len(model.calls) == 1 + 2 * 10


def test_the_traceback_shows_the_users_code_and_not_ours():
    (found,) = run(Model({3}), 8, 8).bad
    assert 'raise ValueError(f"row {min(wrong)}")' in found.traceback
    assert found.traceback.endswith("ValueError: row 3\n")
    assert "bad_rows.py" not in found.traceback.replace("test_bad_rows.py", "")


def test_without_isolation_the_error_is_raised_as_it_is():
    model = Model({3})
    with pytest.raises(ValueError, match="row 3"):
        run(model, 8, 8, isolates=False)
    assert model.calls == [(0, 8)]


def test_short_memory_halves_once_and_is_told():
    told = []
    model = Model(room=30)
    outcome = run(model, 200, 100, halved=lambda old, new: told.append((old, new)))
    assert told == [(100, 50), (50, 25)]
    assert sum(stop - start for start, stop, _ in outcome.parts) == 200
    assert all(stop - start == 25 for start, stop, _ in outcome.parts)


def test_a_row_that_finds_no_memory_by_itself_is_an_error_like_others():
    assert [found.error for found in run(Model(room=0), 2, 2).bad] == ["MemoryError", "MemoryError"]
    with pytest.raises(MemoryError):
        run(Model(room=0), 2, 2, isolates=False)


def test_it_gives_up_when_too_many_rows_are_bad():
    model = Model(range(1000))
    with pytest.raises(TooManyErrors, match=r"4 rows failed, and `max_errors` allows 3. The first: ValueError: row 0"):
        run(model, 1000, 100, max_bad=3)
    assert len(model.calls) < 20
    try:
        run(model, 10, 10, max_bad=0)
    except TooManyErrors as error:
        copy = pickle.loads(pickle.dumps(error))
        assert (copy.failed, copy.first) == (1, "ValueError: row 0") and str(copy) == str(error)
