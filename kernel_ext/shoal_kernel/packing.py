"""Variables of a namespace to bytes, and back into another namespace.

The notebook and the executor that runs one of its cells have a ``__main__`` each. What travels between them is a
set of *named variables*, so three things are done here that a plain pickle of a dictionary would not do:

- A function whose globals are the packed namespace travels without them and is bound to the receiving namespace. It
  sees there what it would have seen at home, later assignments included. The globals it reads are added as
  variables in their own right.
- A variable that does not pickle is known by name; so is one that cannot be rebuilt on the other side.
- Object refs, tensors and values that stayed in the cluster are *lifted* out and travel beside the pickle, where the
  runtime sees them: it counts refs and has its own way with tensors.

Variables are pickled into one stream, since objects that they share are to stay shared; so the pickle of one depends on
those before it. A large one that shares nothing with the others can be a package of its own, known by what is in it.

Imported by executors: nothing heavy here.
"""

from __future__ import annotations

import contextvars
import dataclasses
import dis
import io
import pickle
import sys
import types
from collections.abc import Callable, Iterable, Iterator, Mapping, MutableMapping, Sequence
from typing import Any

from shoal.runtime import refs
from shoal.runtime.code_pickling import CodePickler
from shoal_kernel.remote_value import RemoteValue
from shoal_kernel.sharing import Objects

_GLOBAL_READS = frozenset({"LOAD_GLOBAL", "LOAD_NAME"})


class UnpicklableVariable(Exception):
    """Variable ``name`` cannot travel; ``value`` is what it holds, ``__cause__`` what pickling said.

    ``reader`` names the variable whose function reads it, or is empty if it was asked for itself.
    """

    def __init__(self, name: str, value: Any, reader: str) -> None:
        super().__init__(name)
        self.name = name
        self.value = value
        self.reader = reader


@dataclasses.dataclass(frozen=True)
class Package:
    """Packed variables: one pickle per name, in one stream, so that objects they share stay shared."""

    names: tuple[str, ...]
    stream: Any
    #: For each name, where its pickle and its buffers end, and where what it lifted does.
    ends: tuple[tuple[int, int], ...]
    buffers: tuple[Any, ...]
    lifted: tuple[Any, ...]
    lifted_ends: tuple[int, ...] = ()
    #: Packages of one variable each, which share nothing with the others.
    apart: tuple[Package, ...] = ()

    def filled(self, stored: Sequence[Any]) -> Package:
        """Return the package with what lay in the object store in its place."""
        if not stored:
            return self

        def there(part: Any) -> Any:
            return part.find(stored) if isinstance(part, FromStore) else part

        return dataclasses.replace(
            self,
            stream=there(self.stream),
            buffers=tuple(map(there, self.buffers)),
            lifted=tuple(map(there, self.lifted)),
            apart=tuple(package.filled(stored) for package in self.apart),
        )


@dataclasses.dataclass(frozen=True)
class FromStore:
    """Stands for a part of a package that travels by way of the object store."""

    #: Its number among all such, and the item of it that is meant, if not all of it.
    number: int
    item: int = -1

    def find(self, stored: Sequence[Any]) -> Any:
        value = stored[self.number]
        return value if self.item < 0 else value[self.item]


@dataclasses.dataclass(frozen=True)
class _Unpacking:
    namespace: dict[str, Any]
    lifted: tuple[Any, ...]


_unpacking: contextvars.ContextVar[_Unpacking] = contextvars.ContextVar("shoal_unpacking")


def pack(
    names: Iterable[str],
    variables: Mapping[str, Any],
    namespace: dict[str, Any],
    skip: Callable[[str, Any], bool] = lambda name, value: False,
    follow: bool = True,
    apart: int | None = None,
) -> Package:
    """Pack variables.

    Parameters
    ----------
    names
        The variables wanted, in order; those missing in *variables* are left out.
    variables
        Where their values are looked up.
    namespace
        The dictionary that functions of this notebook or cell have as ``__globals__``.
    skip
        Called with a name and its value; those it returns True for stay here.
    follow
        Whether to add the variables that packed functions read.
    apart
        Bytes of its pickle from which on a variable is a package of its own, if it shares no object with the others;
        None for never. Reducers may then be asked twice.

    Raises
    ------
    UnpicklableVariable
        One of them cannot be pickled.
    """
    together = _Packing(namespace)
    alone: dict[str, _Packing] = {}
    readers = dict.fromkeys(names, "")
    todo = list(reversed(readers))
    while todo:
        name = todo.pop()
        if name in together.packed or name in alone or name not in variables or skip(name, variables[name]):
            continue
        try:
            packing = _pack_alone(name, variables[name], namespace, apart)
            if packing is not None:
                alone[name] = packing
            else:
                packing = together
                packing.add(name, variables[name])
        except Exception as error:  # boundary: reducers are user code and raise anything
            raise UnpicklableVariable(name, variables[name], readers[name]) from error
        if follow:
            found = sorted(packing.pickler.globals_read - readers.keys())
            readers.update(dict.fromkeys(found, name))
            todo.extend(reversed(found))
    for name in _not_alone(together, alone, variables):
        del alone[name]
        together.add(name, variables[name])
    return dataclasses.replace(together.package(), apart=tuple(packing.package() for packing in alone.values()))


class _Packing:
    """Variables on their way into a package."""

    def __init__(self, namespace: dict[str, Any]) -> None:
        self.stream = io.BytesIO()
        self.pickler = _Pickler(self.stream, namespace)
        #: Of each, where its pickle, its buffers and what it lifted end.
        self.packed: dict[str, tuple[int, int, int]] = {}

    def add(self, name: str, value: Any) -> None:
        pickler = self.pickler
        with refs.collecting():  # they are lifted, and found where they then are
            pickler.dump(value)
        self.packed[name] = (self.stream.tell(), len(pickler.buffers), len(pickler.lifted))

    def package(self) -> Package:
        return Package(
            names=tuple(self.packed),
            stream=pickle.PickleBuffer(self.stream.getvalue()),
            ends=tuple((stream_end, buffers_end) for stream_end, buffers_end, _ in self.packed.values()),
            buffers=tuple(self.pickler.buffers),
            lifted=tuple(self.pickler.lifted),
            lifted_ends=tuple(lifted_end for _, _, lifted_end in self.packed.values()),
        )


def _pack_alone(name: str, value: Any, namespace: dict[str, Any], apart: int | None) -> _Packing | None:
    """Pack one variable by itself, if its pickle is large enough for that."""
    if apart is None or not _may_be_large(value, apart):
        return None
    packing = _Packing(namespace)
    packing.add(name, value)
    # Tensors of several variables may share their memory.
    has_tensors = any(not isinstance(lifted, refs.ObjectRef | RemoteValue) for lifted in packing.pickler.lifted)
    return packing if packing.stream.tell() >= apart and not has_tensors else None


def _may_be_large(value: Any, nbytes: int) -> bool:
    """Whether the pickle of *value* may have so many bytes, as far as can be told without making it."""
    if type(value) in (list, dict, set, frozenset, tuple):
        return bool(value)
    try:
        return sys.getsizeof(value) >= nbytes
    except Exception:  # boundary: it is user code
        return False


def _not_alone(together: _Packing, alone: Mapping[str, _Packing], variables: Mapping[str, Any]) -> list[str]:
    """Return those of *alone* that share an object with another variable."""
    if not alone:
        return []
    # What a pickler has met, it keeps alive.
    met = [("", Objects.met_by(together.pickler))]
    met += [
        (name, Objects.in_containers(variables[name]) or Objects.met_by(packing.pickler))
        for name, packing in alone.items()
    ]
    found: dict[str, None] = {}
    for number, (name, objects) in enumerate(met):
        for other_name, other in met[:number]:
            if objects.share_with(other):
                found.update({name: None, other_name: None})
    found.pop("", None)
    return list(found)


def unpack(
    package: Package, namespace: dict[str, Any], into: MutableMapping[str, Any] | None = None
) -> dict[str, Exception]:
    """Rebuild the variables of *package*, with its functions bound to *namespace*.

    Parameters
    ----------
    namespace
        What functions get as ``__globals__``.
    into
        Where the variables go; *namespace* itself if not given.

    Returns
    -------
    failures
        For each variable that could not be rebuilt here, why (a module that is not installed, for one).
    """
    target = namespace if into is None else into
    failures: dict[str, Exception] = {}
    token = _unpacking.set(_Unpacking(namespace, package.lifted))
    try:
        reader = _Reader(package)
        for name in package.names:
            try:
                target[name] = reader.load()
            except Exception as error:  # boundary: reducers are user code
                failures[name] = error
                reader.skip()
            reader.advance()
    finally:
        _unpacking.reset(token)
    for own in package.apart:
        failures.update(unpack(own, namespace, into))
    return failures


class _Reader:
    """Loads the pickles of a package one by one, and can go on after one that fails.

    They share a memo: objects are numbered through all of them. After a failure the numbers of the failed pickle are
    *lost*, and a later pickle that refers to one of them fails too.
    """

    def __init__(self, package: Package) -> None:
        self._stream = memoryview(package.stream)
        self._buffers = [_writable(buffer) for buffer in package.buffers]
        self._ends = package.ends
        self._next = 0
        self._loader: Any = pickle.Unpickler(io.BytesIO(self._stream), buffers=self._buffers)
        self._lost: set[int] = set()

    def load(self) -> Any:
        if self._lost and not self._lost.isdisjoint(_memo_use(self._stream[self._span()])[1]):
            raise LookupError("it shares an object with a variable that could not be rebuilt")
        return self._loader.load()

    def advance(self) -> None:
        self._next += 1

    def skip(self) -> None:
        """Get ready for the pickle after the one that failed."""
        span = self._span()
        memo: dict[int, Any] = self._loader.memo.copy()
        first = sum(_memo_use(self._stream[slice(start, end)])[0] for start, end in self._spans(self._next))
        lost = range(first, first + _memo_use(self._stream[span])[0])
        self._lost.update(lost)
        end, buffers_end = self._ends[self._next]
        # The one written in Python: CPython's C version forgets a memo that it is given as a dictionary.
        self._loader = pickle._Unpickler(io.BytesIO(self._stream[end:]), buffers=self._buffers[buffers_end:])
        self._loader.memo = {number: memo[number] for number in range(first)} | dict.fromkeys(lost)

    def _span(self) -> slice:
        return slice(self._ends[self._next - 1][0] if self._next else 0, self._ends[self._next][0])

    def _spans(self, count: int) -> Iterator[tuple[int, int]]:
        start = 0
        for end, _ in self._ends[:count]:
            yield start, end
            start = end


def _memo_use(pickled: memoryview) -> tuple[int, set[int]]:
    """Return how many objects a pickle adds to the memo, and the numbers of those it takes from there."""
    import pickletools  # slow, and only for failures

    added = 0
    taken: set[Any] = set()
    for opcode, argument, _ in pickletools.genops(bytes(pickled)):
        if opcode.name == "MEMOIZE":
            added += 1
        elif opcode.name in ("BINGET", "LONG_BINGET"):
            taken.add(argument)
    return added, taken


def _writable(buffer: Any) -> Any:
    """A buffer that came inside a message is read-only; arrays are not, so they get one of their own."""
    return bytearray(buffer) if memoryview(buffer).readonly else buffer


class _Pickler(CodePickler):
    """Pickles variables one after the other into one stream."""

    def __init__(self, stream: io.BytesIO, namespace: dict[str, Any]) -> None:
        self.buffers: list[pickle.PickleBuffer] = []
        self.lifted: list[Any] = []
        self.globals_read: set[str] = set()
        self._namespace = namespace
        self._lifted_types = _lifted_types()
        super().__init__(stream, protocol=5, buffer_callback=self.buffers.append)

    def reducer_override(self, obj: Any) -> Any:
        if isinstance(obj, self._lifted_types):
            self.lifted.append(obj)
            return _take_lifted, (len(self.lifted) - 1,)
        if type(obj) is types.FunctionType and obj.__globals__ is self._namespace:
            self.globals_read.update(global_reads(obj.__code__))
            return _reduce_function(obj)
        return super().reducer_override(obj)


def _lifted_types() -> tuple[type, ...]:
    torch = sys.modules.get("torch")
    tensor = getattr(torch, "Tensor", None)  # missing while torch is being imported
    always = (refs.ObjectRef, RemoteValue)
    return always if tensor is None else (*always, tensor)


def _take_lifted(index: int) -> Any:
    return _unpacking.get().lifted[index]


def global_reads(code: types.CodeType) -> Iterator[str]:
    """Yield the names that *code*, and code nested in it, may read from its globals."""
    for instruction in dis.get_instructions(code):
        if instruction.opname in _GLOBAL_READS:
            yield instruction.argval
    for constant in code.co_consts:
        if isinstance(constant, types.CodeType):
            yield from global_reads(constant)


# -- functions: made empty first, filled after, because what they hold may lead back to them ----------------


#: Of each closure cell: a tuple of what it holds, empty if it is not filled yet.
_Contents = list[tuple[Any, ...]] | None


def _reduce_function(function: types.FunctionType) -> tuple[Any, ...]:
    cells = function.__closure__
    contents = None if cells is None else [_cell_contents(cell) for cell in cells]
    state = {
        "__defaults__": function.__defaults__,
        "__kwdefaults__": function.__kwdefaults__,
        "__annotations__": function.__annotations__,
        "__dict__": function.__dict__,
        "__doc__": function.__doc__,
        "__module__": function.__module__,
        "__name__": function.__name__,
        "__qualname__": function.__qualname__,
    }
    if hasattr(function, "__type_params__"):  # from Python 3.12 on
        state["__type_params__"] = function.__type_params__
    number_of_cells = None if cells is None else len(cells)
    return _make_function, (function.__code__, number_of_cells), (state, contents), None, None, _fill_function


def _cell_contents(cell: types.CellType) -> tuple[Any, ...]:
    try:
        return (cell.cell_contents,)
    except ValueError:  # not filled yet
        return ()


def _make_function(code: types.CodeType, number_of_cells: int | None) -> types.FunctionType:
    closure = None if number_of_cells is None else tuple(types.CellType() for _ in range(number_of_cells))
    return types.FunctionType(code, _unpacking.get().namespace, closure=closure)


def _fill_function(function: types.FunctionType, filling: tuple[dict[str, Any], _Contents]) -> None:
    state, contents = filling
    function.__dict__.update(state.pop("__dict__"))
    for attribute, value in state.items():
        setattr(function, attribute, value)
    for cell, held in zip(function.__closure__ or (), contents or (), strict=True):
        if held:
            (cell.cell_contents,) = held
