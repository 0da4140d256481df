"""Tensors of torch to frames and back, without a copy.

By itself, torch pickles a tensor by saving its storage (the flat memory that it and other tensors are views
of) into the pickle, which copies the data several times, once for each tensor of a storage. Here a storage
lends its memory as one out-of-band buffer, once per value, and tensors refer to it: those that shared memory
before share it afterwards. On the other side they are views of the buffers that arrive.

A tensor may be a view of a storage that is much larger than itself: one batch of a data set. Which bytes are
needed is known only when the whole value has been pickled. If it turns out that many are not, the value is
pickled once more, now with a known range of each storage.

Only what is plain is taken over: tensors and parameters (the exact types) in the CPU's memory with strides,
and storages in the CPU's memory. The rest (sparse, quantized, conjugated, other devices, subclasses, tensors
with attributes or hooks …) is reduced by torch, and the plain tensors and storages that it is made of come
here again. The reducers belong to our own picklers, never to ``copyreg``: what users pickle or copy by
themselves does not change.

torch is optional and slow to import, so nothing here imports it before a tensor is there, and it has type
``Any``.
"""

from __future__ import annotations

import copyreg
import ctypes
import functools
import importlib
import operator
import pickle
import sys
from collections.abc import Callable, Mapping
from typing import Any, TypeAlias

from shoal.runtime import refs

Reducer: TypeAlias = Callable[[Any], Any]
#: For storages by identity: the bytes to send, from (a multiple of 64) and up to (exclusive).
Ranges: TypeAlias = Mapping[int, tuple[int, int]]
#: The pickle, the buffers it lent, and the storages it met, by identity.
Pass: TypeAlias = tuple[bytes, list[pickle.PickleBuffer], Mapping[int, "_Span"]]

#: Ranges start at a cache line, so that elements of any type stay aligned and offsets stay whole numbers.
_ALIGNMENT = 64
#: What a buffer must be aligned to, to be used in place: the largest element (``complex128``).
_LARGEST_ELEMENT = 16
#: A value is pickled once more if that saves this many bytes; below, sending them costs less.
_WORTH_A_PASS = 4096
#: A pickler whose pickle was larger than this is not kept: its memo stays as large as it was.
_KEPT_UP_TO = 64 * 1024


def dump(run: Callable[[Any, Ranges], Pass], value: Any, contained: list[refs.ObjectRef]) -> Pass:
    """Pickle *value*, twice if only that leaves out what no tensor needs.

    Parameters
    ----------
    run
        Pickles a value, given ranges of storages; those not named are sent whole. :func:`dump_by_name` is
        one.
    contained
        The list that collects refs now; after a second pass it has those of that pass.

    Returns
    -------
    head, buffers, spans
        The pickle and its out-of-band buffers, which are views of the tensors' memory: they are valid until
        somebody resizes a storage, and change with it.

    Raises
    ------
    Exception
        Whatever *run* raises.
    """
    first = run(value, {})
    spans = first[2]
    if not spans or sum(span.unneeded() for span in spans.values()) < _WORTH_A_PASS:
        return first
    with refs.collecting() as found:
        second = run(value, {key: span.needed() for key, span in spans.items()})
    # Reducers that give other tensors each time, or another thread, may have asked for more than before.
    if not all(span.suffices() for span in second[2].values()):
        return first
    contained[:] = found
    return second


def dump_by_name(value: Any, ranges: Ranges) -> Pass:
    """Pickle *value* like ``pickle.dumps`` (protocol 5), except that storages lend their memory.

    Costs about half a microsecond more than ``pickle.dumps`` if no tensors are in it.

    Raises
    ------
    Exception
        Whatever a reducer raises.
    """
    try:
        pickler = _idle.pop()
    except IndexError:
        pickler = _PlainPickler()
    # One that raises, or is used while it pickles (by a reducer, on another thread), is not in the list.
    result = pickler.dump(value, ranges)
    if pickler.knows_torch and len(result[0]) <= _KEPT_UP_TO:
        _idle.append(pickler)
    return result


class Storages:
    """The storages that one pass meets, and the reducers that meet them."""

    __slots__ = ("ranges", "spans")

    def __init__(self, ranges: Ranges) -> None:
        self.ranges = ranges
        self.spans: dict[int, _Span] = {}

    def reducers(self) -> dict[type, Reducer]:
        """Return the entries of a pickler's ``dispatch_table``; none before torch is imported."""
        torch: Any = sys.modules.get("torch")
        try:
            _plain_keys()
            return {
                torch.Tensor: functools.partial(self._reduce_tensor, _rebuild_tensor),
                torch.nn.Parameter: functools.partial(self._reduce_tensor, _rebuild_parameter),
                torch.UntypedStorage: self._reduce_untyped,
                torch.storage.TypedStorage: self._reduce_typed,
            }
        except AttributeError:  # another thread is in the middle of importing it
            return {}

    def _reduce_tensor(self, rebuild: Callable[..., Any], tensor: Any) -> Any:
        if not _is_plain(tensor):
            return _reduce_as_ever(tensor)
        span = self._meet(tensor.untyped_storage())
        if span is None:
            return _reduce_as_ever(tensor)
        size, stride = tuple(tensor.size()), tensor.stride()
        offset = span.need(tensor.storage_offset(), size, stride, tensor.element_size())
        if offset is None:
            return _reduce_as_ever(tensor)
        return rebuild, (span, tensor.dtype, offset, size, stride, tensor.requires_grad)

    def _reduce_untyped(self, storage: Any) -> Any:
        span = None if type(storage) in copyreg.dispatch_table else self._meet(storage)
        if span is None:
            return _reduce_as_ever(storage)
        span.need_all()
        return _rebuild_untyped, (span,)

    def _reduce_typed(self, storage: Any) -> Any:
        span = None if type(storage) in copyreg.dispatch_table else self._meet(storage._untyped_storage)
        if span is None:
            return _reduce_as_ever(storage)
        span.need_all()
        return _rebuild_typed, (span, storage.dtype)

    def _meet(self, storage: Any) -> _Span | None:
        key = storage._cdata
        span = self.spans.get(key)
        if span is None:
            nbytes = storage.nbytes()
            if storage.device.type != "cpu" or (nbytes and not storage.data_ptr()):
                return None
            start, stop = self.ranges.get(key, (0, nbytes))
            if stop > nbytes:  # resized since the first pass
                start, stop = 0, nbytes
            # It holds the storage, so that no other gets the same identity while this pass is looked at.
            span = self.spans[key] = _Span(storage, nbytes, start, stop)
        return span


class _Span:
    """One storage in one pass: what is sent of it, and what of it is needed. Its pickle is the storage."""

    __slots__ = ("_high", "_low", "_nbytes", "_start", "_stop", "_storage")

    def __init__(self, storage: Any, nbytes: int, start: int, stop: int) -> None:
        self._storage = storage
        self._nbytes = nbytes
        #: ``start:stop`` is sent, whatever is needed; fixed, as earlier tensors are in the pickle already.
        self._start, self._stop = start, stop
        #: ``low:high`` is needed by what has been met so far; nothing as long as ``low > high``.
        self._low, self._high = nbytes + 1, 0

    def need(self, offset: int, size: tuple[int, ...], stride: tuple[int, ...], itemsize: int) -> int | None:
        """Note a tensor (offset and strides in elements); return its offset in what is sent.

        None if it reaches beyond the storage, as tensors do whose memory has been given up.
        """
        last = offset
        for length, step in zip(size, stride, strict=True):
            if length == 0:  # needs no bytes, wherever it is
                return max(0, offset - self._start // itemsize)
            last += (length - 1) * step
        low, high = offset * itemsize, (last + 1) * itemsize
        if high > self._nbytes:
            return None
        self._low, self._high = min(low, self._low), max(high, self._high)
        return max(0, offset - self._start // itemsize)

    def need_all(self) -> None:
        self._low, self._high = 0, self._nbytes

    def needed(self) -> tuple[int, int]:
        """Return the range that a second pass has to send."""
        return (self._low - self._low % _ALIGNMENT, self._high) if self._low <= self._high else (0, 0)

    def unneeded(self) -> int:
        """Return how many bytes a second pass would leave out."""
        start, stop = self.needed()
        return self._stop - self._start - (stop - start)

    def suffices(self) -> bool:
        """Whether all that is needed was sent."""
        return self._low > self._high or (self._start <= self._low and self._high <= self._stop)

    def __reduce__(self) -> Any:
        if self._start == self._stop:
            return _rebuild_storage, ()
        return _rebuild_storage, (pickle.PickleBuffer(_memory(self._storage)[self._start : self._stop]),)


class _Memory(ctypes.c_ubyte * sys.maxsize):  # type: ignore[misc]
    """All memory from some address on, of which only the slice that a storage owns may be touched.

    A ctypes array exports any address as a buffer and, being an object, keeps the owner alive as long as a view
    of it is. It has one length for all storages because every other one would make a class, which ctypes never
    forgets. Going through numpy would mark the user's storage as one that cannot be resized.
    """

    __slots__ = ("owner",)


def _memory(storage: Any) -> memoryview:
    memory = _Memory.from_address(storage.data_ptr())
    memory.owner = storage
    return memoryview(memory)


class _Parts(list[bytes]):
    """A file for picklers; ``io.BytesIO`` takes longer."""

    __slots__ = ()
    write = list.append


class _Table(dict[type, Reducer]):
    """A dispatch table: ours, and then whatever ``copyreg`` has by then. No lookup runs any Python code."""

    __slots__ = ()
    __missing__ = copyreg.dispatch_table.__getitem__


class _PlainPickler:
    """A pickler and what it writes to. Making one takes longer than a small value does, so it serves many."""

    __slots__ = ("_lent", "_parts", "_pickler", "_storages", "knows_torch")

    def __init__(self) -> None:
        self._parts = _Parts()
        self._lent: list[pickle.PickleBuffer] = []
        self._storages = Storages({})
        self._pickler = pickle.Pickler(self._parts, protocol=5, buffer_callback=self._lent.append)
        reducers = self._storages.reducers()
        self.knows_torch = bool(reducers)
        self._pickler.dispatch_table = _Table(reducers)

    def dump(self, value: Any, ranges: Ranges) -> Pass:
        storages, parts = self._storages, self._parts
        storages.ranges = ranges
        self._pickler.dump(value)
        self._pickler.clear_memo()
        head = parts[0] if len(parts) == 1 else b"".join(parts)
        parts.clear()
        if not self._lent and not storages.spans:
            return head, [], {}
        result = head, self._lent.copy(), storages.spans
        self._lent.clear()
        storages.spans = {}
        return result


_idle: list[_PlainPickler] = []


@functools.cache
def _plain_keys() -> tuple[Callable[[Any], Any], int, int]:
    """Return how to ask for a tensor's dispatch keys, and the bits to look at, and those of a plain tensor.

    torch says by dispatch keys which code handles a tensor. Whatever makes one special has a key (sparse,
    quantized, nested, other devices, conjugated, negated, all zeros, named, inside ``vmap`` or ``grad`` …), so
    one comparison covers it all, and what later versions add.

    Raises
    ------
    AttributeError
        torch is not imported, or not completely.
    """
    torch: Any = sys.modules.get("torch")
    keys, key_set = torch._C.DispatchKey, torch._C.DispatchKeySet
    plain: int = key_set(keys.CPU).raw_repr()
    # Autograd and autocast handle most tensors, but not those made in inference mode.
    usual = (keys.ADInplaceOrView, keys.AutogradCPU, keys.AutocastCPU)
    ignored: int = functools.reduce(operator.or_, (key_set(key).raw_repr() for key in usual))
    return torch._C._dispatch_keys, ~ignored | plain, plain


def _is_plain(tensor: Any) -> bool:
    dispatch_keys, mask, plain = _plain_keys()
    return (
        dispatch_keys(tensor).raw_repr() & mask == plain
        and not tensor.__dict__
        and not tensor._backward_hooks
        and type(tensor) not in copyreg.dispatch_table
    )


def _reduce_as_ever(value: Any) -> Any:
    """Reduce as any pickler does: by the user's reducer if there is one, else by torch's."""
    reducer = copyreg.dispatch_table.get(type(value))
    return value.__reduce_ex__(5) if reducer is None else reducer(value)


def _torch() -> Any:
    return sys.modules.get("torch") or importlib.import_module("torch")


def _rebuild_storage(buffer: Any = b"") -> Any:
    torch = _torch()
    view = memoryview(buffer)
    if view.nbytes and not view.readonly:
        # Of the view, not of the buffer: torch holds the object that it was given, and only a view keeps a
        # bytearray from moving or a mapping from being closed.
        lent = torch.frombuffer(view, dtype=torch.uint8)
        if lent.data_ptr() % _LARGEST_ELEMENT == 0:
            return lent.untyped_storage()
    storage = torch.UntypedStorage(view.nbytes, device="cpu")
    if view.nbytes:
        pickle.PickleBuffer(_memory(storage)[: view.nbytes]).raw()[:] = view.cast("B")
    return storage


def _rebuild_tensor(
    storage: Any, dtype: Any, offset: int, size: tuple[int, ...], stride: tuple[int, ...], requires_grad: bool
) -> Any:
    tensor = _torch().empty((0,), dtype=dtype, device="cpu").set_(storage, offset, size, stride)
    if requires_grad:
        tensor.requires_grad = True
    return tensor


def _rebuild_parameter(
    storage: Any, dtype: Any, offset: int, size: tuple[int, ...], stride: tuple[int, ...], requires_grad: bool
) -> Any:
    return _torch().nn.Parameter(_rebuild_tensor(storage, dtype, offset, size, stride, False), requires_grad)


def _rebuild_untyped(storage: Any) -> Any:
    return storage


def _rebuild_typed(storage: Any, dtype: Any) -> Any:
    return _torch().storage.TypedStorage(wrap_storage=storage, dtype=dtype, _internal=True)
