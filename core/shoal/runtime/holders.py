"""Which variables of this process hold refs, or memory of the object store.

What a variable holds is found by walking from its value through containers, attributes and closures, as the garbage
collector does; an array or a tensor holds a segment if its memory lies inside a mapping of it.
"""

from __future__ import annotations

import bisect
import gc
import types
from collections.abc import Iterator
from typing import Any, NamedTuple

from shoal.runtime.refs import ObjectRef
from shoal.runtime.store.segment import mappings
from shoal.runtime.variables import Namespace, Variable

#: Objects looked at for one variable, and for all.
MAX_EACH, MAX_ALL = 200_000, 3_000_000
#: Leads out of the values that a variable stands for.
_BARRIERS = (types.ModuleType, type, types.FrameType, types.CodeType)
_ATOMS = (str, bytes, int, float, complex, bool, type(None))
#: What lends memory, by its class: these alone are asked. A foreign object may do anything when it is: write into
#: itself, load what it stands for, wait.
_LENDERS = {
    ("numpy", "ndarray"): "numpy",
    ("torch", "Tensor"): "torch",
    ("torch", "UntypedStorage"): "torch",
    ("torch", "TypedStorage"): "torch",
    ("pyarrow", "_PandasConvertible"): "arrow",
    ("pyarrow", "_Tabular"): "arrow",
    ("pyarrow", "Buffer"): "arrow",
}


#: Asks a class and not its own class, which may have other ideas.
_MODULE: Any = vars(type)["__module__"]
_MRO: Any = vars(type)["__mro__"]
_NAME: Any = vars(type)["__name__"]


class Held(NamedTuple):
    """Names of the variables that hold something, those of the history apart."""

    variables: list[str]
    history: list[str]

    def add(self, variable: Variable) -> None:
        names = self.history if variable.is_history else self.variables
        if variable.name not in names:
            names.append(variable.name)


class Holders(NamedTuple):
    """Who holds what, as far as was looked."""

    #: Holders of refs, by object id.
    refs: dict[str, Held]
    #: Holders of mapped segments, by path.
    segments: dict[str, Held]
    #: Variables that hold so many objects that not all were looked at.
    cut: list[str]


def find_holders(namespace: Namespace) -> Holders:
    """Look through the variables of *namespace*."""
    refs: dict[str, Held] = {}
    segments: dict[str, Held] = {}
    cut: list[str] = []
    ranges = _Ranges()
    barriers = {id(scope) for scope in namespace.scopes()}
    budget = MAX_ALL
    for variable in namespace.variables():
        looked_at = 0
        for found in _walk(variable.value, barriers, ranges):
            looked_at += 1
            if type(found) is ObjectRef:
                refs.setdefault(found._id, Held([], [])).add(variable)
            elif type(found) is str:
                segments.setdefault(found, Held([], [])).add(variable)
            if looked_at > min(budget, MAX_EACH):
                cut.append(variable.name)
                break
        budget -= looked_at
    return Holders(refs, segments, cut)


class _Ranges:
    """Where this process has segments mapped."""

    def __init__(self) -> None:
        import ctypes

        found = []
        for mapping, path in mappings():
            try:
                begin = ctypes.addressof(ctypes.c_char.from_buffer(mapping))
                found.append((begin, begin + len(mapping), path))
            except (ValueError, TypeError, BufferError):  # closed
                continue
        found.sort()
        self._found = found
        self._begins = [begin for begin, _, _ in found]

    def __len__(self) -> int:
        return len(self._found)

    def find(self, address: int) -> str | None:
        """Return the path of the segment that is mapped at *address*."""
        position = bisect.bisect_right(self._begins, address) - 1
        if position >= 0 and address < self._found[position][1]:
            return self._found[position][2]
        return None


def _walk(root: object, barriers: set[int], ranges: _Ranges) -> Iterator[object]:
    """Give every object reached from *root*: refs as they are, the path of a segment for what uses it, None else."""
    seen = set(barriers)
    todo: list[Any] = [root]
    while todo:
        value = todo.pop()
        cls = type(value)  # never `isinstance`, which asks the object
        if cls in _ATOMS or id(value) in seen:
            continue
        seen.add(id(value))
        if cls is ObjectRef:
            yield value
            continue
        if issubclass(cls, _BARRIERS):
            continue
        for address in _addresses(value, cls) if ranges else ():
            path = ranges.find(address)
            if path is not None:
                yield path
        yield None
        if cls is types.FunctionType:
            todo += [value.__closure__, value.__defaults__, value.__kwdefaults__, value.__dict__]
        elif not _is_of_shoal(cls):
            todo += gc.get_referents(value)
            if cls is memoryview:
                todo.append(value.obj)


def _module_of(cls: type) -> str:
    """Return the module of a class, whatever its own class makes of that."""
    try:
        module = _MODULE.__get__(cls)
    except AttributeError:
        return ""
    return module if type(module) is str else ""


def _is_of_shoal(cls: type) -> bool:
    """Our own machinery knows every object; a handle or a generator of refs is a user's."""
    module = _module_of(cls)
    return module.startswith("shoal.") and not module.startswith(
        ("shoal.api.actors", "shoal.api.actor_pool", "shoal.api.distributed_queue", "shoal.runtime.yields")
    )


def _lender(cls: type) -> str:
    """Return what kind of lender of memory the instances of a class are; "" if none."""
    for base in _MRO.__get__(cls):
        kind = _LENDERS.get((_module_of(base).partition(".")[0], _NAME.__get__(base)))
        if kind is not None:
            return kind
    return ""


def _addresses(value: Any, cls: type) -> Iterator[int]:
    """Give the addresses of the memory that an array, a tensor or an Arrow value uses."""
    import ctypes

    kind = _lender(cls)
    try:
        if kind == "numpy":
            yield value.__array_interface__["data"][0]
        elif kind == "torch":
            yield value.data_ptr()
        elif kind == "arrow":
            yield from _arrow_addresses(value)
        elif cls is memoryview and value.contiguous and not value.readonly and value.nbytes:
            yield ctypes.addressof(ctypes.c_char.from_buffer(value))
    except Exception:  # one without memory, such as a tensor on no device
        return


def _arrow_addresses(value: Any) -> Iterator[int]:
    for part in value.columns if hasattr(value, "columns") else [value]:
        for chunk in part.chunks if hasattr(part, "chunks") else [part]:
            for buffer in chunk.buffers() if hasattr(chunk, "buffers") else [chunk]:
                if buffer is not None:
                    yield buffer.address
