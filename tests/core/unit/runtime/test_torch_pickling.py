"""Tensors travel as views: of the sender's memory on the way out, of the receiver's buffers on the way in."""

from __future__ import annotations

import copy
import copyreg
import gc
import io
import mmap
import pickle
import subprocess
import sys
import threading
import types
import weakref
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from shoal.errors import SerializationError  # noqa: E402
from shoal.runtime import torch_pickling  # noqa: E402
from shoal.runtime.refs import ObjectRef  # noqa: E402
from shoal.runtime.serialization import Frame, dumps, loads, total_nbytes  # noqa: E402

MIB = 1 << 20
DTYPES = sorted(
    {
        value
        for value in vars(torch).values()
        if isinstance(value, torch.dtype) and not str(value).startswith("torch.q")
    },
    key=str,
)


def address(buffer: Any) -> int:
    return int(np.frombuffer(buffer, np.uint8).ctypes.data)


def storage_of(tensor: Any) -> int:
    return int(tensor.untyped_storage().data_ptr())


def arrive(frames: Sequence[Frame]) -> list[Frame]:
    """Return frames as they reach another process: views of a private mapping, aligned to cache lines."""
    sizes = [memoryview(frame).nbytes for frame in frames]
    mapping = memoryview(mmap.mmap(-1, sum(-(-size // 64) * 64 for size in sizes)))
    arrived: list[Frame] = []
    position = 0
    for frame, size in zip(frames, sizes, strict=True):
        mapping[position : position + size] = bytes(frame)
        arrived.append(mapping[position : position + size])
        position += -(-size // 64) * 64
    return arrived


def round_trip(value: Any) -> Any:
    return loads(arrive(dumps(value)[0]))


def same(one: Any, other: Any) -> bool:
    """Whether two tensors are equal in all that is kept, to the bit."""
    kept = [
        (type(t), t.dtype, t.shape, t.stride(), t.storage_offset(), t.requires_grad, bytes(t.untyped_storage()))
        for t in (one, other)
    ]
    return bool(kept[0] == kept[1])


def make(dtype: Any, *shape: int) -> Any:
    """Make a tensor of any type, with random bytes (of booleans, zeros and ones)."""
    count = int(np.prod(shape))
    bits = torch.randint(0, 2 if dtype is torch.bool else 256, (count * dtype.itemsize,), dtype=torch.uint8)
    return torch.empty((0,), dtype=dtype).set_(bits.untyped_storage(), 0, shape, torch.empty(shape).stride())


class Tagged(torch.Tensor):  # type: ignore[misc]
    """A subclass, which torch pickles."""


class Calls:
    """Counts what a reducer is asked for, and gives the next of *parts* each time."""

    def __init__(self, *parts: Any) -> None:
        self.parts = parts
        self.count = 0

    def __reduce__(self) -> Any:
        self.count += 1
        return list, ((self.parts[min(self.count, len(self.parts)) - 1],),)


def make_ref(object_id: str) -> ObjectRef:
    owner = types.SimpleNamespace(drop_nowait=lambda object_id: None, location_of=lambda object_id: None)
    return ObjectRef(object_id, "tls://127.0.0.1:1", owner)  # type: ignore[arg-type]


# -- memory ----------------------------------------------------------------------------------------------------


def test_tensors_lend_their_memory_and_take_that_of_the_buffers() -> None:
    tensor = torch.arange(10_000, dtype=torch.float64)
    frames, _ = dumps({"a": tensor})
    assert len(frames) == 2 and len(frames[0]) < 500
    assert address(frames[1]) == tensor.data_ptr() and frames[1].nbytes == tensor.nbytes  # type: ignore[union-attr]
    arrived = arrive(frames)
    back = loads(arrived)["a"]
    assert same(back, tensor) and storage_of(back) == address(arrived[1])
    back += 1
    assert np.frombuffer(arrived[1])[0] == 1 and tensor[0] == 0


def test_inline_values_use_their_buffers_too() -> None:
    frames, _ = dumps([torch.arange(3.0), torch.tensor(7)])
    buffers = [frames[0], *(bytearray(frame) for frame in frames[1:])]
    vector, scalar = loads(buffers)
    assert storage_of(vector) == address(buffers[1]) and storage_of(scalar) == address(buffers[2])
    assert vector.tolist() == [0, 1, 2] and scalar.item() == 7


def test_buffers_live_as_long_as_tensors_that_use_them() -> None:
    frames, _ = dumps(torch.arange(3.0))
    buffer = bytearray(frames[1])
    back = loads([frames[0], buffer])
    with pytest.raises(BufferError):  # else its memory could move
        buffer.append(0)
    kept = back[1:]
    mapping = mmap.mmap(-1, 4096)
    mapping[:12] = bytes(frames[1])
    other = loads([frames[0], memoryview(mapping)[:12]])
    with pytest.raises(BufferError):
        mapping.close()
    del back, other
    mapping.close()
    del buffer
    assert kept.tolist() == [1, 2]


def test_lent_memory_lives_as_long_as_the_frames() -> None:
    array = np.arange(10_000.0)
    frames, _ = dumps([torch.from_numpy(array)])
    ended = weakref.ref(array)
    gc.disable()
    try:
        del array
        assert ended() is not None and np.frombuffer(frames[1])[-1] == 9_999
        del frames
        assert ended() is None
    finally:
        gc.enable()


@pytest.mark.parametrize("by_value", [False, True])
def test_nothing_else_holds_what_was_pickled(by_value: bool) -> None:
    array = np.arange(10_000.0)
    ended = weakref.ref(array)
    gc.disable()
    try:
        value = [torch.from_numpy(array)[10:20], (lambda: None) if by_value else None]
        frames, _ = dumps(value)
        del array, value
        assert ended() is not None
        del frames
        assert ended() is None
    finally:
        gc.enable()


@pytest.mark.parametrize("kind", ["read-only", "misaligned"])
def test_other_buffers_are_copied(kind: str) -> None:
    tensor = make(torch.complex64, 100)
    frames, _ = dumps(tensor)
    whole = memoryview(bytearray(16 + tensor.nbytes))
    buffer: Frame = bytes(frames[1])
    if kind == "misaligned":
        whole[8 : 8 + tensor.nbytes] = buffer
        buffer = whole[8 : 8 + tensor.nbytes]
    back = loads([frames[0], buffer])
    assert same(back, tensor) and storage_of(back) != address(buffer)
    back.zero_()
    assert bytes(buffer) == bytes(frames[1])


def test_tensors_can_be_resized_after_they_were_pickled() -> None:
    tensor = torch.arange(10.0)
    dumps(tensor)
    assert tensor.resize_(1_000).nbytes == 4_000


# -- what is kept ----------------------------------------------------------------------------------------------


@pytest.mark.filterwarnings("ignore:ComplexHalf support:UserWarning")
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_all_dtypes(dtype: Any) -> None:
    tensor = make(dtype, 3, 5)
    frames, _ = dumps([tensor, tensor[1:, ::2]])
    arrived = arrive(frames)
    back, part = loads(arrived)
    assert same(back, tensor) and same(part, tensor[1:, ::2])
    assert storage_of(back) == storage_of(part) == address(arrived[1])
    assert len(frames) == 2


@pytest.mark.parametrize(
    "tensor",
    [
        pytest.param(torch.tensor(3.5), id="no dimensions"),
        pytest.param(torch.tensor(2, dtype=torch.int8), id="one byte"),
        pytest.param(torch.empty(0), id="empty"),
        pytest.param(torch.empty(3, 0, 2), id="empty in one dimension"),
        pytest.param(torch.arange(24.0).reshape(4, 6).T, id="transposed"),
        pytest.param(torch.arange(24).reshape(4, 6)[1::2, 2:5], id="with gaps"),
        pytest.param(torch.arange(6).expand(4, 6), id="expanded"),
        pytest.param(torch.arange(6)[6:], id="empty at the end"),
        pytest.param(torch.randn(2, 3, 4, 5).to(memory_format=torch.channels_last), id="channels last"),
        pytest.param(torch.ones(3, requires_grad=True), id="requires grad"),
        pytest.param(torch.ones(3, requires_grad=True) * 2, id="not a leaf"),
        pytest.param(torch.nn.Parameter(torch.ones(3, 2)), id="parameter"),
        pytest.param(torch.nn.Parameter(torch.ones(3, dtype=torch.int64), requires_grad=False), id="frozen parameter"),
        pytest.param(torch.from_numpy(np.arange(5.0)), id="numpy's memory"),
        pytest.param(torch.frombuffer(bytearray(33), dtype=torch.int32, offset=1), id="misaligned at home"),
    ],
)
def test_what_makes_a_tensor(tensor: Any) -> None:
    back = round_trip(tensor)
    assert same(back, tensor)
    assert back.is_leaf


def test_inference_tensors() -> None:
    with torch.inference_mode():
        tensor = torch.arange(1_000)
    frames, _ = dumps(tensor)
    assert address(frames[1]) == tensor.data_ptr()
    back = loads(arrive(frames))
    back += 1
    assert not back.is_inference() and back[0] == 1
    with torch.inference_mode():
        assert loads(arrive(frames)).is_inference()


def test_the_receivers_defaults_do_not_matter() -> None:
    tensor = torch.arange(3.0)
    frames = arrive(dumps([tensor, torch.nn.Parameter(torch.ones(2)), torch.empty(0)])[0])
    with torch.device("meta"):
        back = loads(frames)
    assert same(back[0], tensor) and [part.device.type for part in back] == ["cpu"] * 3


def test_gradients_stay_behind_as_they_do_with_torch() -> None:
    parameter = torch.nn.Parameter(torch.ones(3))
    parameter.sum().backward()
    assert round_trip(parameter).grad is None and pickle.loads(pickle.dumps(parameter)).grad is None


# -- what is shared --------------------------------------------------------------------------------------------


def test_storages_are_shared_afterwards_and_sent_once() -> None:
    whole = torch.zeros(1_000)
    value = {"whole": whole, "row": whole.view(10, 100)[3], "bytes": whole.view(torch.uint8), "other": torch.zeros(5)}
    frames, _ = dumps(value)
    assert len(frames) == 3
    back = loads(arrive(frames))
    back["row"][0] = 7
    assert back["whole"][300] == 7 and back["bytes"][1_200:1_204].any() and whole[300] == 0
    assert storage_of(back["other"]) not in {storage_of(back["whole"])}


def test_the_same_tensor_is_the_same_tensor() -> None:
    tensor, parameter = torch.ones(2), torch.nn.Parameter(torch.ones(2))
    back = round_trip([tensor, parameter, tensor, parameter])
    assert back[0] is back[2] and back[1] is back[3] and type(back[1]) is torch.nn.Parameter


def test_storages_by_themselves() -> None:
    tensor = torch.arange(1_000.0)
    typed = torch.storage.TypedStorage(wrap_storage=tensor.untyped_storage(), dtype=tensor.dtype, _internal=True)
    frames, _ = dumps([tensor[990:], tensor.untyped_storage(), typed, torch.UntypedStorage(0)])
    assert len(frames) == 2 and memoryview(frames[1]).nbytes == 4_000
    part, untyped, typed, empty = loads(arrive(frames))
    assert type(untyped) is torch.UntypedStorage and type(typed) is torch.storage.TypedStorage
    assert storage_of(part) == untyped.data_ptr() == typed._untyped_storage.data_ptr()
    assert typed.dtype is torch.float32 and part.tolist() == list(range(990, 1_000)) and empty.nbytes() == 0


def test_what_torch_reduces_still_shares_storages_and_lends_them() -> None:
    tensor = torch.arange(10_000.0)
    tagged = tensor[:100]
    tagged.tag = "first"
    frames, _ = dumps([tensor, tagged, tensor.as_subclass(Tagged)])
    assert len(frames) == 2 and address(frames[1]) == tensor.data_ptr()
    plain, tagged, subclass = loads(arrive(frames))
    assert storage_of(plain) == storage_of(tagged) == storage_of(subclass)
    assert tagged.tag == "first" and type(subclass) is Tagged


# -- parts of large storages -----------------------------------------------------------------------------------


def test_a_slice_leaves_the_rest_of_its_storage() -> None:
    whole = torch.arange(MIB, dtype=torch.float32)
    frames, _ = dumps(whole[100_003:100_103])
    start = 100_003 * 4 // 64 * 64
    assert address(frames[1]) == whole.data_ptr() + start
    assert memoryview(frames[1]).nbytes == 100_103 * 4 - start
    back = loads(arrive(frames))
    assert torch.equal(back, whole[100_003:100_103]) and back.stride() == (1,)
    back[0] = -1
    assert whole[100_003] == 100_003


@pytest.mark.filterwarnings("ignore:ComplexHalf support:UserWarning")
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_slices_of_all_dtypes(dtype: Any) -> None:
    whole = make(dtype, 100, 1_000)
    frames, _ = dumps(whole[51:53, 3:700])
    assert total_nbytes(frames) < 2_000 * dtype.itemsize + 500
    back = loads(arrive(frames))
    assert back.dtype is dtype and back.stride() == (1_000, 1)
    assert back.view(torch.uint8).tolist() == whole[51:53, 3:700].view(torch.uint8).tolist()


def test_all_slices_of_a_storage_count() -> None:
    whole = torch.arange(MIB, dtype=torch.int64)
    frames, _ = dumps({"high": whole[9_000:9_010], "low": whole[4_000:8_000], "empty": whole[5_000:5_000]})
    assert len(frames) == 2 and memoryview(frames[1]).nbytes == (9_010 - 4_000) * 8
    back = loads(arrive(frames))
    assert torch.equal(back["high"], whole[9_000:9_010]) and torch.equal(back["low"], whole[4_000:8_000])
    assert storage_of(back["high"]) == storage_of(back["low"]) == storage_of(back["empty"])
    assert back["high"].storage_offset() - back["low"].storage_offset() == 5_000


def test_slices_of_slices_of_several_types() -> None:
    whole = torch.zeros(MIB, dtype=torch.uint8)
    whole[5_000:5_016] = torch.arange(16)
    value = [whole[5_000:5_016].view(torch.complex64), whole[5_001:5_003], whole[5_004:5_008].view(torch.int32)]
    back = round_trip(value)
    assert all(torch.equal(one, other) for one, other in zip(back, value, strict=True))
    assert len({storage_of(tensor) for tensor in back}) == 1


def test_empty_parts_need_nothing() -> None:
    whole = torch.zeros(MIB)
    frames, _ = dumps([whole[70_000:70_000], whole[MIB:], whole[:, None][:, 1:]])
    assert total_nbytes(frames) < 500
    assert [tuple(part.shape) for part in loads(arrive(frames))] == [(0,), (0,), (MIB, 0)]


def test_a_few_bytes_are_not_worth_another_pass() -> None:
    whole = torch.zeros(1_000)
    calls = Calls(whole[:900])
    frames, _ = dumps(calls)
    assert calls.count == 1 and memoryview(frames[1]).nbytes == 4_000
    calls = Calls(torch.zeros(100_000)[:900])
    frames, _ = dumps(calls)
    assert calls.count == 2 and memoryview(frames[1]).nbytes == 3_600


def test_refs_are_found_once_in_two_passes() -> None:
    first, second = make_ref("obj-1"), make_ref("obj-2")
    whole = torch.zeros(MIB)
    _, contained = dumps([first, whole[:10], second])
    assert contained == [first, second]
    _, contained = dumps([first, whole[:10], lambda: second])
    assert contained == [first, second]


def test_refs_are_those_of_the_pass_that_is_sent() -> None:
    refs = [make_ref("obj-1"), make_ref("obj-2")]
    whole = torch.zeros(MIB)
    _, contained = dumps(Calls((whole[:10], refs[0]), (whole[:10], refs[1])))
    assert contained == refs[1:]
    _, contained = dumps(Calls((whole[:10], refs[0]), (whole[:20], refs[1])))
    assert contained == refs[:1]


def test_a_second_pass_that_needs_more_is_not_sent() -> None:
    whole = torch.arange(MIB)
    calls = Calls(whole[500:600], whole[400:600])
    frames, _ = dumps(calls)
    assert calls.count == 2 and memoryview(frames[1]).nbytes == whole.nbytes
    assert loads(arrive(frames))[0].tolist() == list(range(500, 600))


def test_a_storage_that_shrinks_between_the_passes() -> None:
    whole = torch.zeros(MIB)
    part = whole[MIB - 10 :]

    class Shrinking:
        def __reduce__(self) -> Any:
            if calls:
                whole.resize_(100)
                whole.untyped_storage().resize_(400)
            calls.append(1)
            return list, ((whole[:10] if len(calls) > 1 else part,),)

    calls: list[int] = []
    dumps(Shrinking())
    assert len(calls) == 2


def test_new_storages_in_the_second_pass() -> None:
    class Fresh:
        def __reduce__(self) -> Any:
            return list, ((torch.arange(MIB)[7:9],),)

    frames, _ = dumps(Fresh())
    assert loads(arrive(frames))[0].tolist() == [7, 8]


# -- what torch reduces ----------------------------------------------------------------------------------------


def special_tensors() -> Iterator[Any]:
    dense = torch.arange(6.0).reshape(2, 3)
    yield pytest.param(lambda: dense.to_sparse(), id="sparse")
    yield pytest.param(lambda: dense.to_sparse_csr(), id="sparse by rows")
    yield pytest.param(lambda: dense.to("meta"), id="meta")
    yield pytest.param(lambda: torch.complex(dense, dense).conj(), id="conjugated")
    yield pytest.param(lambda: torch.complex(dense, dense).conj().imag, id="negated")
    yield pytest.param(lambda: torch.quantize_per_tensor(dense, 0.1, 0, torch.quint8), id="quantized")
    yield pytest.param(lambda: torch.nested.nested_tensor([dense[0], dense[1, :2]]), id="nested")
    yield pytest.param(lambda: torch.nn.Buffer(dense), id="buffer")
    yield pytest.param(lambda: torch.nn.parameter.UninitializedParameter(), id="uninitialized")
    yield pytest.param(lambda: dense.as_subclass(Tagged), id="subclass")
    yield pytest.param(lambda: dense.to_mkldnn(), id="mkldnn")
    yield pytest.param(lambda: torch._efficientzerotensor((2, 3)), id="zeros without memory")


@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.parametrize("special", [*special_tensors()])
def test_special_tensors_do_what_they_do_in_plain_pickles(special: Any) -> None:
    value = special()
    assert type(value) not in (torch.Tensor, torch.nn.Parameter) or not torch_pickling._is_plain(value)
    try:
        expected = pickle.loads(pickle.dumps(value))
    except Exception as error:
        with pytest.raises(SerializationError) as caught:
            loads(arrive(dumps(value)[0]))
        assert type(caught.value.__cause__) is type(error)
        return
    back = round_trip(value)
    assert type(back) is type(expected) and back.layout is expected.layout and back.device == expected.device
    assert repr(back) == repr(expected)
    assert vars(back) == vars(expected)


def test_tensors_inside_transformations_are_not_plain() -> None:
    seen = []

    def look(tensor: Any) -> Any:
        seen.append(torch_pickling._is_plain(tensor))
        return tensor.sum()

    torch.vmap(look)(torch.ones(2, 2))
    torch.func.grad(look)(torch.ones(2))
    torch.func.functionalize(look)(torch.ones(2))
    assert seen == [False] * 3


def test_attributes_travel() -> None:
    ref = make_ref("obj-1")
    parameter = torch.nn.Parameter(torch.ones(3))
    parameter.source = ["here", ref]
    frames, contained = dumps({"p": parameter, "data": parameter.data})
    assert contained == [ref] and len(frames) == 2
    parameter.source = "here"
    back = round_trip({"p": parameter, "data": parameter.data})
    assert back["p"].source == "here" and type(back["p"]) is torch.nn.Parameter
    assert storage_of(back["p"]) == storage_of(back["data"])


def test_hooks_stay_behind_with_torchs_warning() -> None:
    tensor = torch.ones(3, requires_grad=True)
    tensor.register_hook(lambda grad: grad)
    with pytest.warns(UserWarning, match="hooks"):
        frames, _ = dumps([tensor])
    assert same(loads(arrive(frames))[0], tensor)


def test_memory_that_was_given_up() -> None:
    tensor = torch.ones(1_000)
    tensor.untyped_storage().resize_(0)
    frames, _ = dumps({"t": tensor.untyped_storage()})
    assert loads(arrive(frames))["t"].nbytes() == 0
    frames, _ = dumps([tensor, torch.ones(2)])
    assert pickle.dumps(tensor) and len(frames) == 2


def test_a_reducer_of_the_users_comes_first(monkeypatch: pytest.MonkeyPatch) -> None:
    dumps(torch.ones(3))
    monkeypatch.setitem(copyreg.dispatch_table, torch.Tensor, lambda tensor: (list, (tensor.tolist(),)))
    monkeypatch.setitem(copyreg.dispatch_table, Calls, lambda calls: (str, ("calls",)))
    assert round_trip([torch.ones(3), Calls()]) == [[1, 1, 1], "calls"]
    assert round_trip([torch.ones(3), Calls(), lambda: None])[:2] == [[1, 1, 1], "calls"]


def test_users_pickles_and_copies_do_not_change() -> None:
    before = dict(copyreg.dispatch_table)
    tensor = torch.arange(1_000)
    plain = pickle.dumps(tensor[:10])
    dumps([tensor, lambda: tensor])
    assert copyreg.dispatch_table == before
    assert pickle.dumps(tensor[:10]) == plain and b"shoal" not in plain
    buffers: list[Any] = []
    pickle.dumps(tensor, protocol=5, buffer_callback=buffers.append)
    assert buffers == []
    assert storage_of(copy.deepcopy(tensor)) != storage_of(tensor) == storage_of(copy.copy(tensor))


# -- modules and optimizers ------------------------------------------------------------------------------------


def make_model() -> Any:
    model = torch.nn.Sequential(torch.nn.Embedding(50, 8), torch.nn.Linear(8, 50, bias=False), torch.nn.BatchNorm1d(50))
    model[1].weight = model[0].weight
    return model


def test_modules_keep_tied_weights() -> None:
    model = make_model()
    frames, _ = dumps(model)
    arrived = arrive(frames)
    back = loads(arrived)
    assert back[0].weight is back[1].weight and type(back[0].weight) is torch.nn.Parameter
    assert {storage_of(tensor) for tensor in back.state_dict().values()} == {address(buffer) for buffer in arrived[1:]}
    assert all(torch.equal(one, back.state_dict()[name]) for name, one in model.state_dict().items())
    back(torch.arange(4)).sum().backward()
    torch.optim.SGD(back.parameters(), 0.1).step()
    assert not torch.equal(back[0].weight, model[0].weight)


def test_state_dicts_and_parameters_by_name() -> None:
    model = make_model()
    state = round_trip(model.state_dict())
    assert type(state) is OrderedDict and storage_of(state["0.weight"]) == storage_of(state["1.weight"])
    assert state._metadata == model.state_dict()._metadata
    parameters = round_trip(OrderedDict(model.named_parameters()))
    assert all(type(parameter) is torch.nn.Parameter for parameter in parameters.values())
    make_model().load_state_dict(state)


def test_optimizers_follow_their_model() -> None:
    model = make_model()
    optimizer = torch.optim.Adam(model.parameters())
    model(torch.arange(4)).sum().backward()
    optimizer.step()
    frames, _ = dumps((model, optimizer, optimizer.state_dict()))
    assert total_nbytes(frames) < 3 * sum(parameter.nbytes for parameter in model.parameters()) + 10_000
    back, follower, state = loads(arrive(frames))
    (group,) = follower.param_groups
    assert group["params"][0] is back[0].weight
    assert storage_of(state["state"][0]["exp_avg"]) == storage_of(follower.state[back[0].weight]["exp_avg"])
    assert torch.equal(state["state"][0]["exp_avg"], optimizer.state_dict()["state"][0]["exp_avg"])
    follower.step()


def test_modules_of_a_notebook() -> None:
    namespace: dict[str, Any] = {"__name__": "__main__", "torch": torch}
    exec(
        "class Net(torch.nn.Module):\n"
        "    def __init__(self):\n"
        "        super().__init__()\n"
        "        self.inner = torch.nn.Linear(100, 100)\n"
        "        self.register_buffer('part', torch.arange(100_000)[50_000:50_010])\n"
        "    def forward(self, x):\n"
        "        return self.inner(x)\n",
        namespace,
    )
    net, ref = namespace["Net"](), make_ref("obj-1")
    frames, contained = dumps({"net": net, "ref": ref, "weight": net.inner.weight})
    assert contained == [ref]
    assert len(frames) == 4 and total_nbytes(frames) < 100 * 101 * 4 + 10_000
    assert net.inner.weight.data_ptr() in {address(frame) for frame in frames[1:]}
    frames, _ = dumps({"net": net, "weight": net.inner.weight})
    arrived = arrive(frames)
    back = loads(arrived)
    assert back["net"].inner.weight is back["weight"]
    assert {storage_of(tensor) for tensor in back["net"].state_dict().values()} == {address(one) for one in arrived[1:]}
    assert back["net"].part.tolist() == net.part.tolist()
    assert torch.equal(back["net"](torch.ones(100)), net(torch.ones(100)))


def test_tensors_in_closures() -> None:
    tensor = torch.zeros(100_000)
    frames, _ = dumps(lambda: tensor)
    assert len(frames) == 2 and address(frames[1]) == tensor.data_ptr()
    assert torch.equal(loads(arrive(frames))(), tensor)


# -- the picklers ----------------------------------------------------------------------------------------------


def test_values_may_be_pickled_while_values_are_pickled() -> None:
    class Nesting:
        def __reduce__(self) -> Any:
            return loads, (arrive_inline(dumps([torch.arange(MIB)[5:8]])[0]),)

    def arrive_inline(frames: Sequence[Frame]) -> list[bytes]:
        return [bytes(frame) for frame in frames]

    frames, _ = dumps([torch.zeros(3), Nesting(), torch.ones(3)])
    assert len(frames) == 3
    zeros, (nested,), ones = loads(arrive(frames))
    assert (zeros.tolist(), nested.tolist(), ones.tolist()) == ([0, 0, 0], [5, 6, 7], [1, 1, 1])


def test_threads_do_not_share_picklers() -> None:
    trouble: list[BaseException] = []

    def work(number: int) -> None:
        try:
            whole = torch.full((10_000,), number)
            for _ in range(200):
                back = loads(arrive(dumps({"n": number, "t": whole[:50], "u": whole[9_000:]})[0]))
                assert back["n"] == number and (back["t"] == number).all() and (back["u"] == number).all()
        except BaseException as error:
            trouble.append(error)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert trouble == []


def test_a_pickler_that_failed_leaves_nothing() -> None:
    with pytest.raises(SerializationError):
        dumps([torch.ones(3), threading.Lock()])
    frames, contained = dumps([1])
    assert len(frames) == 1 and loads(frames) == [1] and contained == []


def test_large_pickles_come_out_whole() -> None:
    value = [b"x" * 300_000, bytearray(b"y" * 300_000), "z" * 300_000, list(range(100_000)), torch.ones(2)]
    back = round_trip(value)
    assert back[:4] == value[:4] and back[4].tolist() == [1, 1]
    assert loads(dumps(value[:4])[0]) == value[:4]


def test_pickles_in_one_piece_hold_their_tensors() -> None:
    """Without a place for buffers, storages go into the pickle, and are copied out of it."""
    stream = io.BytesIO()
    pickler = pickle.Pickler(stream, protocol=5)
    pickler.dispatch_table = torch_pickling.Storages({}).reducers()
    tensor = torch.arange(10.0)
    pickler.dump([tensor, tensor[2:]])
    back, part = pickle.loads(stream.getvalue())
    part[0] = 9
    assert back.tolist() == [0, 1, 9, 3, 4, 5, 6, 7, 8, 9]


def test_the_other_side_imports_torch_only_for_tensors() -> None:
    script = (
        "import pickle, sys\n"
        "from shoal.runtime.serialization import dumps, loads\n"
        "loads(dumps({'a': 1})[0])\n"
        "loads(dumps([1, lambda: None])[0])\n"
        "assert 'torch' not in sys.modules\n"
        "frames = pickle.load(sys.stdin.buffer)\n"
        "print(loads(frames).sum().item(), 'torch' in sys.modules)\n"
    )
    frames = [bytes(frame) for frame in dumps(torch.arange(5))[0]]
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", script], input=pickle.dumps(frames), capture_output=True, check=True
    )
    assert done.stdout.split() == [b"10", b"True"]


def test_torch_in_the_middle_of_its_import(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch_pickling, "_idle", [])
    torch_pickling._plain_keys.cache_clear()
    with monkeypatch.context() as half:
        half.setitem(sys.modules, "torch", types.ModuleType("torch"))
        assert loads(dumps({"a": 1})[0]) == {"a": 1}
        assert loads(dumps([1, lambda: 2])[0])[1]() == 2
    frames, _ = dumps(torch.ones(3))
    assert len(frames) == 2
