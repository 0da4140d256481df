"""What a remote cell reads, on its way out: what is large goes into the object store, once as long as it is the same.

A package (:mod:`shoal_kernel.packing`) is a pickle and the buffers that lie outside of it: the memory of arrays and
data frames; tensors lie beside it. Whatever of these is large is stored by its content and travels as a ref. The next
cell that reads the same data sends the ref again; all executors of a node map the one copy. What has changed is stored
anew and nothing else: large lists and texts have pickles of their own, and tensors that share no memory are stored each
by itself.
"""

from __future__ import annotations

import dataclasses
import hashlib
import pickle
import sys
from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator, Sequence
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
#: Pieces at most in which the tensors of a cell are stored: each travels with each of its runs.
MAX_PIECES = 64
_NO_TENSORS = (shoal.ObjectRef, RemoteValue)


@dataclasses.dataclass(frozen=True)
class Shipment:
    """A package without its large parts, and the refs of those, in the order in which the package numbers them."""

    package: Package
    stored: tuple[shoal.ObjectRef, ...]
    #: What was stored now: names of variables, and bytes.
    news: tuple[tuple[str, int], ...]
    #: What each part of the cell has of its own.
    own: tuple[Package | None, ...] = ()


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

    def ship(self, package: Package, max_nbytes: float, own: Iterable[Package | None] = ()) -> Shipment:
        """Store what is large of *package*.

        Parameters
        ----------
        own
            What each part of the cell has of its own. No more of them are made than it takes to see that there is too
            much.

        Raises
        ------
        UsageError
            There are more than *max_nbytes* in all; the message says how much each variable has.
        """
        sizes = nbytes_by_name(package)
        packed = _within(max_nbytes, sizes, own)
        self._cells += 1
        self._forget_others()
        loading = _Loading(self._store)
        light = loading.lighten(package)
        news = tuple((name, nbytes) for name, nbytes in sizes.items() if name in loading.new and nbytes >= LARGE)
        return Shipment(light, tuple(loading.stored), news, packed)

    def _store(self, value: Any, digest: bytes) -> tuple[shoal.ObjectRef, bool]:
        """Return the ref of *value*, and whether it was stored now; without a digest it always is."""
        kept = self._kept.get(digest)
        is_new = kept is None
        if kept is None:
            kept = _Kept(shoal.put(value), self._cells)
            if digest:
                self._kept[digest] = kept
        kept.last_used = self._cells
        return kept.ref, is_new

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


class _Loading:
    """One package on its way into the store."""

    def __init__(self, store: Callable[[Any, bytes], tuple[shoal.ObjectRef, bool]]) -> None:
        self._store_value = store
        self.stored: list[shoal.ObjectRef] = []
        #: Variables of which something large was stored now.
        self.new: set[str] = set()

    def lighten(self, package: Package) -> Package:
        """Return the package without its large parts."""
        spans = _spans(package)
        in_stream = [span.name for span in spans if span.stream >= LARGE]
        of_buffers = [span.name for span in spans for _ in range(*span.buffers)]
        of_lifted = [span.name for span in spans for _ in range(*span.lifted)]
        return dataclasses.replace(
            package,
            stream=self._lighten(package.stream, in_stream),
            buffers=tuple(
                self._lighten(buffer, [name]) for buffer, name in zip(package.buffers, of_buffers, strict=True)
            ),
            lifted=self._lighten_lifted(package.lifted, of_lifted),
            apart=tuple(map(self.lighten, package.apart)),
        )

    def _lighten(self, buffer: Any, names: Iterable[str]) -> Any:
        return self._store(buffer, _digest(buffer), names) if _nbytes(buffer) >= LARGE else buffer

    def _lighten_lifted(self, lifted: Sequence[Any], names: Sequence[str]) -> tuple[Any, ...]:
        found = list(lifted)
        for numbers in _pieces(lifted):
            tensors = tuple(lifted[number] for number in numbers)
            place = self._store(tensors, _digest_of_tensors(tensors), [names[number] for number in numbers])
            for item, number in enumerate(numbers):
                found[number] = dataclasses.replace(place, item=item)
        for number, value in enumerate(lifted):
            if isinstance(value, RemoteValue):
                self.stored.append(value.ref)
                found[number] = FromStore(len(self.stored) - 1)
        return tuple(found)

    def _store(self, value: Any, digest: bytes, names: Iterable[str]) -> FromStore:
        ref, is_new = self._store_value(value, digest)
        if is_new:
            self.new.update(names)
        self.stored.append(ref)
        return FromStore(len(self.stored) - 1)


def _pieces(lifted: Sequence[Any]) -> list[list[int]]:
    """Return the numbers of the tensors that are stored together, for each time that something is stored."""
    groups = _sharing([number for number, value in enumerate(lifted) if not isinstance(value, _NO_TENSORS)], lifted)

    def nbytes(numbers: Iterable[int]) -> int:
        return sum(_tensor_nbytes(lifted[number]) for number in numbers)

    large = [group for group in groups if nbytes(group) >= LARGE]
    small = sorted(number for group in groups if nbytes(group) < LARGE for number in group)
    size = -(-len(large) // MAX_PIECES) or 1
    batches = [large[start : start + size] for start in range(0, len(large), size)]
    found = [sorted(number for group in batch for number in group) for batch in batches]
    return [*found, small] if nbytes(small) >= LARGE else found


def _sharing(numbers: Sequence[int], lifted: Sequence[Any]) -> list[list[int]]:
    """Put tensors that share their memory together."""
    if any(vars(lifted[number]) for number in numbers):
        return [list(numbers)]  # what a user has put there may be anything
    groups: dict[tuple[str, int], list[int]] = {}
    for number in numbers:
        memory = _memory_of(lifted[number])
        groups.setdefault(("memory", memory) if memory else ("tensor", number), []).append(number)
    return list(groups.values())


def _memory_of(tensor: Any) -> int:
    """Return what is the same for tensors that share their memory; 0 if there is none, or none that can be seen."""
    if tensor.layout != _strided():
        return 0
    try:
        return int(tensor.untyped_storage().data_ptr())
    except (RuntimeError, NotImplementedError):  # one without memory of its own, such as those inside `vmap`
        return 0


@dataclasses.dataclass(frozen=True)
class _Span:
    """What a variable adds to its package: bytes of the pickle, and from where to where its buffers and lifted are."""

    name: str
    stream: int
    buffers: tuple[int, int]
    lifted: tuple[int, int]


def _spans(package: Package) -> list[_Span]:
    found: list[_Span] = []
    stream_before = buffers_before = lifted_before = 0
    for name, (stream, buffers), lifted in zip(package.names, package.ends, package.lifted_ends, strict=True):
        found.append(_Span(name, stream - stream_before, (buffers_before, buffers), (lifted_before, lifted)))
        stream_before, buffers_before, lifted_before = stream, buffers, lifted
    return found


def nbytes_by_name(package: Package) -> dict[str, int]:
    """Return how many bytes each variable adds to *package*; what several share counts for the first."""
    found = {}
    for span in _spans(package):
        buffers, lifted = package.buffers[slice(*span.buffers)], package.lifted[slice(*span.lifted)]
        found[span.name] = span.stream + sum(map(_nbytes, buffers)) + sum(map(_tensor_nbytes, lifted))
    for own in package.apart:
        found.update(nbytes_by_name(own))
    return found


def _within(limit: float, sizes: dict[str, int], own: Iterable[Package | None]) -> tuple[Package | None, ...]:
    """Return the parts' own packages, if they and what all parts have are within the limit together."""
    sizes, total = dict(sizes), sum(sizes.values())
    packed: list[Package | None] = []
    packages = iter(own)
    while total <= limit:
        try:
            package = next(packages)
        except StopIteration:
            return tuple(packed)
        packed.append(package)
        for name, nbytes in nbytes_by_name(package).items() if package is not None else ():
            total += nbytes
            label = f"{name}, of all runs"
            sizes[label] = sizes.get(label, 0) + nbytes
    raise UsageError(_too_much(sizes, limit, "at least " if any(packed) else ""))


def describe(news: tuple[tuple[str, int], ...]) -> str:
    """Say what was stored, in a line."""
    names = ", ".join(f"`{name}` ({format_nbytes(nbytes)})" for name, nbytes in news)
    return f"shoal: {names} went to the object store; remote cells share it as long as it stays the same."


def _too_much(sizes: dict[str, int], limit: float, roughly: str) -> str:
    biggest = sorted(sizes.items(), key=lambda item: -item[1])[:8]
    table = "".join(f"\n  {format_nbytes(nbytes):>10}  {name}" for name, nbytes in biggest)
    return (
        f"This cell reads {roughly}{format_nbytes(sum(sizes.values()))} of variables, more than `%config "
        f"Remote.max_send` allows ({format_nbytes(limit)}). Nothing was sent; make them in a remote cell with "
        f"`--keep`, or raise the limit.{table}"
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


def _digest_of_tensors(tensors: Sequence[Any]) -> bytes:
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


def _parts_of_tensors(tensors: Sequence[Any]) -> Iterator[Any]:
    import ctypes

    seen: dict[int, int] = {}
    for tensor in tensors:
        plain = tensor.layout == _strided() and tensor.device.type == "cpu" and not tensor.is_quantized
        if not plain or vars(tensor):  # gradients do not travel
            raise _Unknown
        storage = tensor.untyped_storage()
        number = seen.setdefault(storage.data_ptr(), len(seen))
        about = (number, type(tensor).__name__, str(tensor.dtype), tuple(tensor.shape), tensor.stride())
        yield repr((*about, tensor.storage_offset(), tensor.requires_grad, tensor.is_conj(), tensor.is_neg())).encode()
        if number == len(seen) - 1 and storage.nbytes():
            yield (ctypes.c_char * storage.nbytes()).from_address(storage.data_ptr())
