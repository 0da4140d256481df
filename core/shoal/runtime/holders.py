"""Which variables of this process hold refs, or memory of the object store.

What a variable holds is found by walking from its value through containers, attributes and closures, as the garbage
collector does; an array or a tensor holds a segment if its memory lies inside a mapping of it.
"""

from __future__ import annotations

import bisect
import gc
import sys
import types
from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple, Protocol

from shoal.runtime.refs import ObjectRef
from shoal.runtime.store.segment import mappings

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


class Variable(NamedTuple):
    """Something by which a value can be reached."""

    #: In words: "`x`", "`Out[3]`", "the last error's traceback (`x` in `f`)".
    name: str
    value: object
    #: Kept by the notebook of its own accord: to forget it costs the user nothing that they asked for.
    is_history: bool = False


class Namespace(Protocol):
    """Where a person's variables are."""

    def variables(self) -> Iterable[Variable]:
        """Return them all."""

    def scopes(self) -> Iterable[dict[str, Any]]:
        """Return the dictionaries that functions refer to as their globals: not what a function holds."""

    def forget_history(self) -> None:
        """Let go of what is kept for no more than being shown again: outputs, tracebacks."""


class Held(NamedTuple):
    """Names of the variables that hold something, those of the history apart."""

    variables: list[str]
    history: list[str]

    def add(self, variable: Variable) -> None:
        names = self.history if variable.is_history else self.variables
        if variable.name not in names:
            names.append(variable.name)


class MainNamespace:
    """The variables of a program."""

    def variables(self) -> Iterator[Variable]:
        for name, value in list(vars(sys.modules["__main__"]).items()):
            if not name.startswith("__"):
                yield Variable(f"`{name}`", value)
        yield from traceback_variables(last_errors(), self.scopes())

    def scopes(self) -> list[dict[str, Any]]:
        return [vars(sys.modules["__main__"])]

    def forget_history(self) -> None:
        forget_last_errors()


_namespace: Namespace = MainNamespace()


def set_namespace(namespace: Namespace | None) -> None:
    """Have *namespace* say which variables there are; None restores those of ``__main__``."""
    global _namespace
    _namespace = namespace or MainNamespace()


def get_namespace() -> Namespace:
    return _namespace


def last_errors() -> list[types.TracebackType]:
    """Return the tracebacks that Python keeps for debuggers."""
    found = [getattr(sys, "last_traceback", None), getattr(getattr(sys, "last_exc", None), "__traceback__", None)]
    return [traceback for traceback in found if isinstance(traceback, types.TracebackType)]


def forget_last_errors() -> None:
    for name in ("last_type", "last_value", "last_traceback", "last_exc"):
        if hasattr(sys, name):
            delattr(sys, name)


def traceback_variables(
    tracebacks: Iterable[types.TracebackType], scopes: Iterable[dict[str, Any]]
) -> Iterator[Variable]:
    """Give the local variables of all frames that these tracebacks keep."""
    skipped = {id(scope) for scope in scopes}
    seen = set()
    for traceback in tracebacks:
        step: types.TracebackType | None = traceback
        while step is not None:
            frame = step.tb_frame
            step = step.tb_next
            if id(frame) in seen or frame.f_globals is frame.f_locals or id(frame.f_locals) in skipped:
                continue
            seen.add(id(frame))
            for name, value in list(frame.f_locals.items()):
                where = f"the traceback of the last error (`{name}` in `{frame.f_code.co_name}`)"
                yield Variable(where, value, is_history=True)


def find_holders(namespace: Namespace) -> tuple[dict[str, Held], dict[str, Held]]:
    """Return the holders of refs by object id, and those of mapped segments by path."""
    refs: dict[str, Held] = {}
    segments: dict[str, Held] = {}
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
                break
        budget -= looked_at
    return refs, segments


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
