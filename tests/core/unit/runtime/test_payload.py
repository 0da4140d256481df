"""Payloads: a value, or the error in its place, in a message."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from shoal.errors import ObjectLostError
from shoal.model import messages as m
from shoal.runtime import payload as payloads
from shoal.runtime.serialization import dumps
from shoal.runtime.store import Store


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Store:
    monkeypatch.setenv("SHOAL_STORE_DIR", str(tmp_path))
    return Store.create("node-1", "tls://127.0.0.1:1")


def through_the_wire(payload: m.Payload) -> m.Payload:
    result: m.Payload = m.unpack(m.pack([m.Located("obj-1", payload, ())]))[0].payload
    return result


def test_small_values_travel_inside_messages(store: Store) -> None:
    payload = payloads.from_frames(dumps({"a": np.arange(10)})[0], store, "owner.obj-1")
    assert payload[0] == payloads.INLINE
    assert store.segments() == []
    assert payloads.load(through_the_wire(payload))["a"].tolist() == list(range(10))
    assert payloads.free(payload) is None


def test_large_values_go_to_the_store(store: Store) -> None:
    array = np.arange(100_000)
    payload = payloads.from_frames(dumps(array)[0], store, "owner.obj-1")
    assert payload[:2] == (payloads.SEGMENT, store.holder)
    assert len(m.pack([m.Located("obj-1", payload, ())])) < 1_000
    assert np.array_equal(payloads.load(through_the_wire(payload)), array)
    assert array.nbytes <= sum(payload[3]) < array.nbytes + 1_000


@pytest.mark.parametrize(("extra", "kind"), [(0, payloads.INLINE), (1, payloads.SEGMENT)])
def test_the_limit_is_exact(store: Store, extra: int, kind: str) -> None:
    frame = b"x" * (payloads.INLINE_LIMIT + extra)
    assert payloads.from_frames([frame], store, "owner.obj-1")[0] == kind


def test_without_a_store_everything_travels_inside_messages() -> None:
    array = np.arange(100_000)
    payload = payloads.from_frames(dumps(array)[0], None, "owner.obj-1")
    assert payload[0] == payloads.INLINE
    assert np.array_equal(payloads.load(through_the_wire(payload)), array)


def test_a_freed_segment_is_lost_to_late_readers(store: Store) -> None:
    payload = payloads.from_frames(dumps(np.zeros(100_000))[0], store, "owner.obj-1")
    assert payloads.free(payload) is None
    assert payloads.free(payload) is None
    with pytest.raises(ObjectLostError, match=r"owner.obj-1.*freed") as caught:
        payloads.load(payload)
    assert caught.value.object_id == payload[2]


def test_whoever_holds_a_segment_elsewhere_has_to_free_it(store: Store) -> None:
    payload = (payloads.SEGMENT, "tls://10.0.0.1:1", "/dev/shm/shoal-elsewhere/objects/owner.obj-1", (10,))
    assert payloads.free(payload) == "tls://10.0.0.1:1"


def test_a_segment_fetched_from_elsewhere_is_used(store: Store) -> None:
    payload = payloads.from_frames(dumps(np.arange(100_000))[0], store, "owner.obj-1")
    fetched = memoryview(bytearray(Path(payload[2]).read_bytes()))
    payloads.free(payload)
    assert payloads.load(payload, fetched).sum() == sum(range(100_000))


def test_errors_are_raised_where_the_value_would_have_been() -> None:
    payload = payloads.from_error(KeyError("a"))
    assert payloads.is_error(payload)
    with pytest.raises(KeyError, match="a"):
        payloads.load(through_the_wire(payload))
    assert not payloads.is_error((payloads.INLINE, b""))


def test_no_arguments_are_made_once() -> None:
    assert payloads.load(payloads.EMPTY_ARGUMENTS) == ((), {})
