"""Which objects two variables have in common."""

from __future__ import annotations

import collections
import enum
import io
import pickle
import textwrap
from typing import Any

import numpy as np
import pytest

from shoal_kernel.sharing import Objects


class Colour(enum.Enum):
    RED = 1


def met(value: Any) -> Objects:
    pickler = pickle.Pickler(io.BytesIO(), protocol=5)
    pickler.dump(value)
    return Objects.met_by(pickler)


def both(value: Any) -> list[Objects]:
    found = Objects.in_containers(value)
    return [met(value)] if found is None else [met(value), found]


INNER: list[Any] = [1]
LOOP: list[Any] = [INNER]
LOOP.append(LOOP)


@pytest.mark.parametrize("other", [INNER, [INNER], {"k": INNER}, {1: ({2: [INNER]},)}, LOOP, [Colour.RED, INNER]])
def test_a_list_in_both(other: Any) -> None:
    for objects in both([5, INNER]):
        assert all(objects.share_with(more) and more.share_with(objects) for more in both(other))


KEY, PAIR = "key" * 5, ("a", 1)


@pytest.mark.parametrize("other", [KEY, [KEY, PAIR], {KEY: [2]}, {PAIR}, [[1], None, True, 2**70, b"x"], []])
def test_plain_values_make_no_difference(other: Any) -> None:
    for objects in both([KEY, PAIR, {KEY: PAIR}, 2**70]):
        assert not any(objects.share_with(more) or more.share_with(objects) for more in both(other))


def test_what_is_imported_makes_no_difference() -> None:
    one, two = ([np.zeros(3), np.float32, textwrap.dedent, len, collections.OrderedDict(a=1)] for _ in range(2))
    assert not met(one).share_with(met(two))


def test_other_things_are_left_to_a_pickler() -> None:
    assert Objects.in_containers([1, [np.zeros(3)]]) is None
    assert Objects.in_containers(collections.OrderedDict()) is None
    array = np.zeros(3)
    assert met([array]).share_with(met({"same": array}))
