"""Every message becomes bytes and comes back; garbage does not become a message."""

from __future__ import annotations

import typing
from typing import Any

import msgpack
import pytest
from hypothesis import given
from hypothesis import strategies as st

from shoal.model import messages as m

NUMBERS = st.floats(allow_nan=False)
TEXT = st.text(max_size=20)
PAYLOAD = st.one_of(
    st.tuples(st.just("i"), st.binary(max_size=50)),
    st.tuples(st.just("i"), st.binary(max_size=50), st.binary(max_size=50)),
    st.tuples(st.just("s"), TEXT, TEXT, st.lists(st.integers(0, 2**40), max_size=3).map(tuple)),
    st.tuples(st.just("e"), st.binary(max_size=50)),
    st.tuples(st.just("r"), TEXT, TEXT),
)
RESOURCES = st.lists(st.tuples(TEXT, NUMBERS), max_size=3).map(tuple)
VERSIONS = st.dictionaries(TEXT, TEXT, max_size=3)


def values_of(annotation: Any) -> st.SearchStrategy[Any]:
    """Return a strategy for the values that a field of this type may have."""
    if annotation == m.Payload:
        return PAYLOAD
    if annotation == m.WireResources:
        return RESOURCES
    if annotation in (Any, tuple[Any, ...]):
        return st.tuples(TEXT, NUMBERS)
    simple: dict[Any, st.SearchStrategy[Any]] = {
        str: TEXT,
        int: st.integers(-(2**63), 2**63 - 1),
        float: NUMBERS,
        bool: st.booleans(),
        bytes: st.binary(max_size=50),
        memoryview: st.binary(max_size=50),  # as which it arrives
        dict[str, str]: VERSIONS,
    }
    if annotation in simple:
        return simple[annotation]
    arguments = typing.get_args(annotation)
    if typing.get_origin(annotation) is tuple:
        if arguments[-1] is Ellipsis:
            return st.lists(values_of(arguments[0]), max_size=3).map(tuple)
        return st.tuples(*map(values_of, arguments))
    assert type(None) in arguments, f"no values known for {annotation}"
    return st.one_of(st.none(), *(values_of(argument) for argument in arguments if argument is not type(None)))


def messages_of(kind: type[Any]) -> st.SearchStrategy[Any]:
    hints = typing.get_type_hints(kind)
    return st.tuples(*(values_of(hints[field]) for field in kind._fields)).map(lambda fields: kind(*fields))


ANY_MESSAGE = st.one_of([messages_of(kind) for kind in m.KINDS])


def defined_kinds() -> set[type[Any]]:
    return {value for value in vars(m).values() if isinstance(value, type) and hasattr(value, "_fields")}


def test_every_message_has_a_number() -> None:
    assert set(m.KINDS) == defined_kinds()
    assert len(set(m.KINDS)) == len(m.KINDS)


@pytest.mark.parametrize("kind", m.KINDS, ids=lambda kind: kind.__name__)
def test_a_message_survives_the_wire(kind: type[Any]) -> None:
    @given(messages_of(kind))
    def check(message: Any) -> None:
        (back,) = m.unpack(m.pack([message]))
        assert type(back) is kind
        assert back == message

    check()


@given(st.lists(ANY_MESSAGE, max_size=20))
def test_a_batch_keeps_order_and_types(batch: list[Any]) -> None:
    back = m.unpack(m.pack(batch))
    assert [type(message) for message in back] == [type(message) for message in batch]
    assert back == batch


def test_bytes_may_come_as_a_view() -> None:
    data = m.pack([m.Recall("lease-1"), m.Define("f", b"\x80", False)])
    assert m.unpack(memoryview(data)) == [m.Recall("lease-1"), m.Define("f", b"\x80", False)]


@given(st.binary(max_size=200))
def test_garbage_is_refused(data: bytes) -> None:
    refused_or_batch(data)


@given(st.lists(ANY_MESSAGE, min_size=1, max_size=5), st.data())
def test_a_batch_that_was_damaged_is_refused_or_harmless(batch: list[Any], data: st.DataObject) -> None:
    packed = bytearray(m.pack(batch))
    position = data.draw(st.integers(0, len(packed) - 1))
    packed[position] = data.draw(st.integers(0, 255))
    refused_or_batch(bytes(packed))
    refused_or_batch(bytes(packed[:position]))


PLAIN = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(-(2**63), 2**63), st.text(max_size=5), st.binary(max_size=5)),
    lambda inner: st.one_of(st.lists(inner, max_size=4), st.dictionaries(st.text(max_size=3), inner, max_size=3)),
    max_leaves=10,
)


@given(PLAIN)
def test_well_formed_nonsense_is_refused(nonsense: Any) -> None:
    refused_or_batch(msgpack.packb(nonsense))


@pytest.mark.parametrize(
    "nonsense",
    [
        None,
        7,
        [7],
        [[]],
        [[9999]],
        [["Recall", "lease-1"]],
        [[0]],
        [[28, "lease-1", "too many"]],
        [{"a": 1}],
        [{}],
        [msgpack.ExtType(5, b"\x00")],
        [msgpack.Timestamp(1)],
    ],
    ids=repr,
)
def test_what_is_no_batch_is_refused(nonsense: Any) -> None:
    with pytest.raises(ValueError, match="not a batch of shoal messages"):
        m.unpack(msgpack.packb(nonsense))


def test_nothing_is_unpickled_by_decoding() -> None:
    """A payload is bytes to whoever passes it on, even if unpickling it would do harm."""
    harmful = b"cos\nabort\n(tR."
    assert m.unpack(m.pack([m.Done("task-1", 0, ("i", harmful), 0.1, (), ())]))[0].payload == ("i", harmful)


def refused_or_batch(data: bytes) -> None:
    try:
        batch = m.unpack(data)
    except ValueError:
        return
    assert all(type(message) in m.KINDS for message in batch)


def test_every_string_that_python_holds_travels() -> None:
    batch = [m.Recall("lease-\ud800"), m.Recall("lease-1")]
    assert m.unpack(m.pack(batch)) == batch
