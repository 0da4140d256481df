"""Keys mean the same in every session, however they were come by."""

from __future__ import annotations

import datetime

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from shoal_ml.train.many.keys import decode, encode, plain, rank

scalars = st.text() | st.integers() | st.booleans() | st.floats(allow_nan=False) | st.dates() | st.datetimes()


@given(scalars | st.lists(scalars | st.tuples(scalars)).map(tuple))
def test_a_key_survives_being_written(key):
    assert decode(encode(key)) == key and encode(decode(encode(key))) == encode(key)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (np.int64(3), 3),
        (3.0, 3),
        (np.float32(0.5), 0.5),
        (np.str_("a"), "a"),
        (pd.Timestamp("2026-01-02"), datetime.datetime(2026, 1, 2)),
        ((np.int8(1), "x"), (1, "x")),
    ],
)
def test_the_same_key_in_another_type_is_the_same(one, other):
    assert encode(one) == encode(other)


def test_different_keys_differ():
    keys = ["1", 1, 1.5, True, ("1",), (1,), datetime.date(2026, 1, 1), "2026-01-01"]
    assert len({encode(key) for key in keys}) == len(keys)


def test_keys_of_all_kinds_have_an_order():
    keys = [("b", 2), ("b", 1), "10", "9", 10, 9, True, 0.5, datetime.date(2026, 1, 2), datetime.datetime(2026, 1, 1)]
    assert sorted(keys, key=rank) == [0.5, True, 9, 10, keys[9], keys[8], "10", "9", ("b", 1), ("b", 2)]


@pytest.mark.parametrize("null", [None, float("nan"), np.nan, pd.NaT, pd.NA, ("a", None)])
def test_null_is_no_key(null):
    with pytest.raises(ValueError, match="null"):
        plain(null)


@pytest.mark.parametrize("odd", [[1], {"a": 1}, b"x", object()])
def test_other_things_are_no_keys(odd):
    with pytest.raises(TypeError, match="A key is"):
        plain(odd)
