"""Values to frames and back."""

from __future__ import annotations

import pickle
import threading
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from shoal.errors import NotInitializedError, SerializationError
from shoal.runtime.refs import ObjectRef
from shoal.runtime.serialization import dumps, dumps_code, loads, total_nbytes

PLAIN = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(), st.floats(allow_nan=False), st.text(), st.binary()),
    lambda inner: st.one_of(st.lists(inner), st.tuples(inner, inner), st.dictionaries(st.text(), inner)),
    max_leaves=10,
)


class Holders:
    """Stands where an owner would: counts what refs let go."""

    def __init__(self) -> None:
        self.dropped: list[str] = []

    def location_of(self, object_id: str) -> None:
        return None

    def drop_nowait(self, object_id: str) -> None:
        self.dropped.append(object_id)


def make_ref(object_id: str) -> ObjectRef:
    return ObjectRef(object_id, "tls://127.0.0.1:1", Holders())  # type: ignore[arg-type]


class Strided:
    """Lends a buffer with gaps."""

    def __reduce_ex__(self, protocol: int) -> Any:  # type: ignore[override]
        return bytearray, (pickle.PickleBuffer(memoryview(b"a.b.c.")[::2]),)


@given(PLAIN)
def test_values_come_back(value: Any) -> None:
    frames, contained = dumps(value)
    assert loads(frames) == value
    assert contained == []
    assert total_nbytes(frames) == len(b"".join(frames))


def test_arrays_travel_beside_the_pickle_without_a_copy() -> None:
    array = np.arange(10_000, dtype=np.float64)
    frames, _ = dumps({"a": array, "b": array.reshape(100, 100).T})
    assert len(frames) == 3
    assert len(frames[0]) < 1_000
    assert np.shares_memory(np.frombuffer(frames[1], np.float64), array)
    buffers = [frames[0], *(bytearray(frame) for frame in frames[1:])]
    back = loads(buffers)  # type: ignore[arg-type]
    assert np.array_equal(back["b"], array.reshape(100, 100).T)
    assert np.shares_memory(back["a"], np.frombuffer(buffers[1], np.uint8))


def test_buffers_with_gaps_are_refused() -> None:
    with pytest.raises(SerializationError, match="non-contiguous"):
        dumps(Strided())


def test_functions_of_a_notebook_travel_by_value() -> None:
    namespace: dict[str, Any] = {"__name__": "__main__"}
    exec("offset = 1\nclass Adder:\n    def add(self, x):\n        return x + offset", namespace)
    frames, _ = dumps([namespace["Adder"](), lambda x: x + 2])
    adder, add_two = loads(frames)
    assert adder.add(1) == 2 and add_two(1) == 3


def test_arrays_inside_what_only_cloudpickle_knows_stay_beside_it() -> None:
    array = np.zeros(100_000)
    frames, _ = dumps(lambda: array)
    assert len(frames) == 2 and len(frames[0]) < 10_000
    assert loads([frames[0], bytearray(frames[1])])().nbytes == array.nbytes  # type: ignore[list-item]


def test_what_cannot_travel_is_named() -> None:
    with pytest.raises(SerializationError, match=r"`argument\['model'\]\[0\]` cannot be sent") as caught:
        dumps({"model": [threading.Lock()]}, "argument")
    assert caught.value.path == "argument['model'][0]"
    assert isinstance(caught.value, TypeError)
    assert caught.value.__cause__ is not None


def test_refs_inside_values_are_found() -> None:
    first, second = make_ref("obj-1"), make_ref("obj-2")
    _, contained = dumps({"a": [first], "b": (second, first)})
    assert contained == [first, second]


def test_refs_are_found_once_when_pickle_gives_up_half_way() -> None:
    ref = make_ref("obj-1")
    _, contained = dumps([ref, lambda: None])
    assert contained == [ref]


def test_refs_do_not_travel_in_pickles_of_ones_own() -> None:
    with pytest.raises(SerializationError, match="can travel only inside"):
        pickle.dumps(make_ref("obj-1"))


def test_refs_that_code_refers_to_are_found() -> None:
    ref = make_ref("obj-1")
    _, contained = dumps_code(lambda: ref, "work")
    assert contained == [ref]


def test_code_that_cannot_travel_is_explained() -> None:
    lock = threading.Lock()
    with pytest.raises(SerializationError, match=r"`work → lock \(captured\)`.* Pass it as an argument"):
        dumps_code(lambda: lock, "work")


def test_refs_arrive_only_where_there_is_an_owner() -> None:
    frames, _ = dumps(make_ref("obj-1"))
    with pytest.raises(NotInitializedError):
        loads(frames)


def test_a_ref_tells_its_owner_when_it_goes() -> None:
    ref = make_ref("obj-1")
    holders = ref._owner
    assert repr(ref) == "ObjectRef(obj-1)" and ref == make_ref("obj-1") and hash(ref) == hash(make_ref("obj-1"))
    del ref
    assert holders.dropped == ["obj-1"]  # type: ignore[attr-defined]


def test_code_is_taken_by_name_where_it_can_be_imported() -> None:
    assert pickle.loads(dumps_code(pickle.dumps, "dumps")[0]) is pickle.dumps
    assert len(dumps_code(threading.Thread, "Thread")[0]) < 100


def test_code_that_cannot_travel_is_named() -> None:
    lock = threading.Lock()
    with pytest.raises(SerializationError) as caught:
        dumps_code(lambda: lock, "train")
    assert caught.value.path == "train → lock (captured)"
