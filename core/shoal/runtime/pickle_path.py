"""Finding the part of a value that does not pickle, and how to get there: ``model.logger._lock``."""

from __future__ import annotations

import types
from collections.abc import Iterator
from typing import Any

from shoal.runtime.code_pickling import dumps_by_value

#: Parts looked at before the search settles for the deepest one found.
MAX_PARTS = 2_000
#: Characters of a path that are kept of its beginning and of its end.
MAX_HEAD, MAX_TAIL = 120, 60


def explain(value: Any, name: str) -> tuple[str, str]:
    """Return the path to the smallest part of *value* that does not pickle, and what pickling it said.

    The search goes through attributes, containers, closures, globals and defaults of functions, depth first, and looks
    at no object twice.
    """
    reason = _failure(value) or "it could not be pickled"
    path, seen, budget = name, {id(value)}, MAX_PARTS
    while True:
        for step, part in _parts(value):
            budget -= 1
            if budget < 0:
                return _shorten(path), reason
            if id(part) in seen:
                continue
            seen.add(id(part))
            failure = _failure(part)
            if failure is not None:
                value, path, reason = part, path + step, failure
                break
        else:
            return _shorten(path), reason


def _shorten(path: str) -> str:
    return path if len(path) <= MAX_HEAD + MAX_TAIL else f"{path[:MAX_HEAD]} … {path[-MAX_TAIL:]}"


def _failure(value: Any) -> str | None:
    try:
        dumps_by_value(value)
    except Exception as error:  # boundary: reducers are user code
        # cloudpickle turns it into an error of its own
        if isinstance(error, RecursionError) or isinstance(error.__cause__, RecursionError):
            return "it is nested too deeply (or refers to itself through a reducer)"
        return str(error).rstrip(".") or type(error).__name__
    return None


def _parts(value: Any) -> Iterator[tuple[str, Any]]:
    if isinstance(value, dict):
        for key, part in value.items():
            yield f"[{key!r}]", part
    elif isinstance(value, (list, tuple)):
        for index, part in enumerate(value):
            yield f"[{index}]", part
    elif isinstance(value, (set, frozenset)):
        for part in value:
            yield "{…}", part
    elif isinstance(value, types.FunctionType):
        for free_name, cell in zip(value.__code__.co_freevars, value.__closure__ or (), strict=True):
            try:
                yield f" → {free_name} (captured)", cell.cell_contents
            except ValueError:  # not filled yet
                continue
        for global_name in value.__code__.co_names:
            if global_name in value.__globals__:
                yield f" → {global_name} (global)", value.__globals__[global_name]
        for name, part in _defaults(value):
            yield f" → {name} (default)", part
    elif isinstance(value, types.MethodType):
        yield ".__self__", value.__self__
    else:
        for name, part in _attributes(value):
            yield f".{name}", part


def _defaults(function: types.FunctionType) -> Iterator[tuple[str, Any]]:
    positional = function.__code__.co_varnames[: function.__code__.co_argcount]
    defaults = function.__defaults__ or ()
    yield from zip(positional[len(positional) - len(defaults) :], defaults, strict=True)
    yield from (function.__kwdefaults__ or {}).items()


def _attributes(value: Any) -> Iterator[tuple[str, Any]]:
    yield from getattr(value, "__dict__", {}).items()
    for cls in type(value).__mro__:
        slots = cls.__dict__.get("__slots__", ())
        for name in (slots,) if isinstance(slots, str) else slots:
            if not name.startswith("__") and hasattr(value, name):
                yield name, getattr(value, name)
