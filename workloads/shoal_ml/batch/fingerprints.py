"""Short names for what a model, a function or an option is: the same in the next process, another when it changes."""

from __future__ import annotations

import dataclasses
import hashlib
import pickle
import sys
import types
from collections.abc import Mapping
from typing import Any

#: Characters of a fingerprint.
LENGTH = 12
#: Values inside values that are looked into; what lies deeper counts by its type.
MAX_DEPTH = 20
#: Types of globals that are part of what a function does.
_TELLING = (bool, int, float, complex, str, bytes, tuple, types.FunctionType, type)


def fingerprint_of(value: Any) -> str:
    """Return a fingerprint of *value*.

    Functions count by their code and by what they have captured, not by where they are written: a cell that is run
    again, or moved, is the same. Models of torch count by their classes and weights, arrays by their bytes, other
    objects by their attributes.
    """
    state = hashlib.blake2b(digest_size=16)
    _feed(state, value, 0, set())
    return state.hexdigest()[:LENGTH]


def _feed(state: Any, value: Any, depth: int, above: set[int]) -> None:
    if depth > MAX_DEPTH or id(value) in above:  # a value that holds itself
        state.update(f"…{type(value).__qualname__}".encode())
        return
    above = above | {id(value)}
    parts = _parts_of(value)
    if isinstance(parts, bytes | memoryview):
        state.update(f"{type(value).__qualname__}:{len(parts)}:".encode())
        state.update(parts)
        return
    state.update(f"{type(value).__qualname__}({len(parts)})".encode())
    for part in parts:
        _feed(state, part, depth + 1, above)


def _parts_of(value: Any) -> bytes | memoryview | tuple[Any, ...]:
    """Return what a value is made of: bytes, or values that are looked into in turn."""
    if value is None or isinstance(value, bool | int | float | complex | str | bytes | bytearray):
        return value if isinstance(value, bytes) else repr(value).encode()
    if isinstance(value, tuple | list):
        return tuple(value)
    if isinstance(value, set | frozenset):
        return tuple(sorted(value, key=repr))
    if isinstance(value, Mapping):
        return tuple(item for pair in value.items() for item in pair)
    if isinstance(value, types.CodeType):
        return value.co_code, value.co_names, value.co_varnames, value.co_freevars, _constants(value)
    if isinstance(value, types.FunctionType):
        cells = tuple(cell.cell_contents for cell in value.__closure__ or ())
        return value.__code__, value.__defaults__, value.__kwdefaults__, cells, _globals_of(value)
    if isinstance(value, types.MethodType):
        return value.__func__, value.__self__
    if isinstance(value, type):
        return _class_parts(value)
    return _object_parts(value)


def _globals_of(function: types.FunctionType) -> dict[str, Any]:
    """Return the globals that a user's function reads, as far as they say the same in every process.

    What a package's functions read is the package's own business.
    """
    if function.__module__ != "__main__":
        return {}
    found = {name: function.__globals__.get(name) for name in _names(function.__code__)}
    return {name: value for name, value in found.items() if isinstance(value, _TELLING)}


def _constants(code: types.CodeType) -> tuple[Any, ...]:
    return tuple(constant for constant in code.co_consts)


def _names(code: types.CodeType) -> list[str]:
    """Return the global names that a function may read, in order; also those of functions inside it."""
    names = list(code.co_names)
    for constant in code.co_consts:
        if isinstance(constant, types.CodeType):
            names += _names(constant)
    return sorted(set(names))


def _class_parts(value: type) -> tuple[Any, ...]:
    name = f"{value.__module__}.{value.__qualname__}"
    if value.__module__ != "__main__":  # of a package: its version is another matter
        return (name,)
    members = {key: member for key, member in vars(value).items() if isinstance(member, types.FunctionType)}
    return name, {key: (member.__code__, member.__defaults__) for key, member in members.items()}


def _object_parts(value: Any) -> bytes | memoryview | tuple[Any, ...]:
    numpy, torch = sys.modules.get("numpy"), sys.modules.get("torch")
    if numpy is not None and isinstance(value, numpy.ndarray):
        if value.dtype == object:
            return (value.shape, value.tolist())
        return (str(value.dtype), value.shape, numpy.ascontiguousarray(value).view(numpy.uint8).tobytes())
    if torch is not None and isinstance(value, torch.Tensor):
        tensor = value.detach().cpu().contiguous()
        return (str(tensor.dtype), tuple(tensor.shape), tensor.flatten().view(torch.uint8).numpy().tobytes())
    if torch is not None and isinstance(value, torch.nn.Module):
        return type(value), dict(value.state_dict()), repr(value)
    if dataclasses.is_dataclass(value) or hasattr(value, "__dict__"):
        return type(value), {key: item for key, item in vars(value).items() if not key.startswith("__")}
    try:
        return pickle.dumps(value)
    except Exception:  # boundary: what does not pickle counts by its type
        return (type(value),)


__all__ = ["fingerprint_of"]
