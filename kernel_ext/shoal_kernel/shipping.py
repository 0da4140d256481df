"""What a remote cell reads, on its way out: what is large goes into the object store, once as long as it is the same.

A package (:mod:`shoal_kernel.packing`) is a pickle and the buffers that lie outside of it: the memory of arrays and
data frames; tensors lie beside it. Whatever of these is large is stored by its content and travels as a ref. The next
cell that reads the same data sends the ref again; all executors of a node map the one copy.
"""

from __future__ import annotations

import dataclasses
import hashlib
import pickle
import sys
from collections import OrderedDict
from collections.abc import Iterator
from typing import Any

from IPython.core.error import UsageError

import shoal
from shoal.model.amounts import format_nbytes
from shoal.runtime import session
from shoal_kernel.packing import FromStore, Package
from shoal_kernel.remote_value import RemoteValue

#: Bytes from which on a buffer is stored.
LARGE = 1_000_000
#: Remote cells after which what none of them has read is let go.
KEPT_FOR = 20
_NO_TENSORS = (shoal.ObjectRef, RemoteValue)


@dataclasses.dataclass(frozen=True)
class Shipment:
    """A package without its large parts, and the refs of those, in the order in which the package numbers them."""

    package: Package
    stored: tuple[shoal.ObjectRef, ...]
    #: What was stored now: names of variables, and bytes.
    news: tuple[tuple[str, int], ...]


@dataclasses.dataclass
class _Kept:
    ref: shoal.ObjectRef
    last_used: int


class Shipper:
    """Remembers what is stored already. Of one notebook; on its main thread."""

    def __init__(self) -> None:
        self._kept: OrderedDict[bytes, _Kept] = OrderedDict()
        self._owner: object = None
        self._cells = 0

    def ship(self, package: Package, max_nbytes: float) -> Shipment:
        """Store what is large of *package*.

        Raises
        ------
        UsageError
            It has more than *max_nbytes* in all; the message says how much each variable has.
        """
        sizes = nbytes_by_name(package)
        if sum(sizes.values()) > max_nbytes:
            raise UsageError(_too_much(sizes, max_nbytes))
        self._cells += 1
        self._forget_others()
        stored: list[shoal.ObjectRef] = []
        new: list[int] = []

        def store(value: Any, digest: bytes) -> FromStore:
            kept = self._kept.get(digest)
            if kept is None:
                kept = _Kept(shoal.put(value), self._cells)
                if digest:
                    self._kept[digest] = kept
                new.append(len(stored))
            kept.last_used = self._cells
            stored.append(kept.ref)
            return FromStore(len(stored) - 1)

        def lighten(buffer: Any) -> Any:
            return store(buffer, _digest(buffer)) if _nbytes(buffer) >= LARGE else buffer

        def stand_in(value: Any) -> Any:
            if not isinstance(value, RemoteValue):
                return value
            stored.append(value.ref)
            return FromStore(len(stored) - 1)

        light = dataclasses.replace(
            package,
            stream=lighten(package.stream),
            buffers=tuple(map(lighten, package.buffers)),
            lifted=tuple(map(stand_in, _store_tensors(package.lifted, store))),
        )
        news = tuple((name, nbytes) for name, nbytes in sizes.items() if nbytes >= LARGE) if new else ()
        return Shipment(light, tuple(stored), news)

    def forget(self) -> None:
        """Let everything go: it is stored anew when it is needed."""
        self._kept.clear()

    def refs(self) -> list[shoal.ObjectRef]:
        """Return the refs of all that is kept."""
        return [kept.ref for kept in self._kept.values()]

    def _forget_others(self) -> None:
        """Let go what belongs to another session, and what has not been read for long."""
        owner = session.find_owner()
        if self._owner is not owner:
            self._kept.clear()
            self._owner = owner
        for digest, kept in list(self._kept.items()):
            if self._cells - kept.last_used > KEPT_FOR:
                del self._kept[digest]


def _store_tensors(lifted: tuple[Any, ...], store: Any) -> tuple[Any, ...]:
    """Store all tensors as one value if they are large together: tensors may share their memory."""
    tensors = [value for value in lifted if not isinstance(value, _NO_TENSORS)]
    if sum(_tensor_nbytes(tensor) for tensor in tensors) < LARGE:
        return lifted
    place = store(tuple(tensors), _digest_of_tensors(tensors))
    numbers = iter(range(len(tensors)))
    return tuple(
        value if isinstance(value, _NO_TENSORS) else dataclasses.replace(place, item=next(numbers)) for value in lifted
    )


def nbytes_by_name(package: Package) -> dict[str, int]:
    """Return how many bytes each variable adds to *package*; what several share counts for the first."""
    found = {}
    stream_before = buffers_before = lifted_before = 0
    for name, (stream, buffers), lifted in zip(package.names, package.ends, package.lifted_ends, strict=True):
        nbytes = stream - stream_before + sum(map(_nbytes, package.buffers[buffers_before:buffers]))
        nbytes += sum(_tensor_nbytes(value) for value in package.lifted[lifted_before:lifted])
        found[name] = nbytes
        stream_before, buffers_before, lifted_before = stream, buffers, lifted
    return found


def describe(news: tuple[tuple[str, int], ...]) -> str:
    """Say what was stored, in a line."""
    names = ", ".join(f"`{name}` ({format_nbytes(nbytes)})" for name, nbytes in news)
    return f"shoal: {names} went to the object store; remote cells share it as long as it stays the same."


def _too_much(sizes: dict[str, int], limit: float) -> str:
    biggest = sorted(sizes.items(), key=lambda item: -item[1])[:8]
    table = "".join(f"\n  {format_nbytes(nbytes):>10}  {name}" for name, nbytes in biggest)
    return (
        f"This cell reads {format_nbytes(sum(sizes.values()))} of variables, more than `%config Remote.max_send` "
        f"allows ({format_nbytes(limit)}). Nothing was sent; make them in a remote cell with `--keep`, or raise the "
        f"limit.{table}"
    )


def _nbytes(buffer: Any) -> int:
    return memoryview(buffer).nbytes


def _digest(buffer: Any) -> bytes:
    # SHA-1 is the fastest that processors have instructions for. Nobody attacks their own notebook's cache.
    return hashlib.sha1(_flat(buffer), usedforsecurity=False).digest()


def _flat(buffer: Any) -> Any:
    return buffer.raw() if isinstance(buffer, pickle.PickleBuffer) else buffer


def _tensor_nbytes(value: Any) -> int:
    return int(value.nbytes) if hasattr(value, "untyped_storage") and value.layout == _strided() else 0


def _strided() -> Any:
    return sys.modules["torch"].strided


def _digest_of_tensors(tensors: list[Any]) -> bytes:
    """Return a digest of all that makes these tensors what they are; nothing if that cannot be known."""
    digest = hashlib.sha1(usedforsecurity=False)
    try:
        for part in _parts_of_tensors(tensors):
            digest.update(part)
    except _Unknown:
        return b""
    return digest.digest()


class _Unknown(Exception):
    """There is more to a tensor than can be seen."""


def _parts_of_tensors(tensors: list[Any]) -> Iterator[Any]:
    import ctypes

    seen: dict[int, int] = {}
    for tensor in tensors:
        plain = tensor.layout == _strided() and tensor.device.type == "cpu" and not tensor.is_quantized
        if not plain or tensor.grad is not None or vars(tensor):
            raise _Unknown
        storage = tensor.untyped_storage()
        number = seen.setdefault(storage.data_ptr(), len(seen))
        about = (number, type(tensor).__name__, str(tensor.dtype), tuple(tensor.shape), tensor.stride())
        yield repr((*about, tensor.storage_offset(), tensor.requires_grad, tensor.is_conj(), tensor.is_neg())).encode()
        if number == len(seen) - 1 and storage.nbytes():
            yield (ctypes.c_char * storage.nbytes()).from_address(storage.data_ptr())
