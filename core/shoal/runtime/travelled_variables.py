"""Variables of frames that have travelled: rebuilt when somebody looks at them, and not before.

An error is often shown, counted or caught, and seldom taken into a debugger. To rebuild a value may import modules and
run code of its class; that is left to whoever asks for the value.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, MutableMapping, Sequence
from typing import Any, NamedTuple

from shoal.runtime.serialization import loads
from shoal.runtime.stand_ins import StandIn

#: A pickle and its buffers.
Pickled = tuple[bytes, ...]


class Scope(NamedTuple):
    """The variables of one frame, as indices of values: its locals, and the globals that its code mentions."""

    local: dict[str, int]
    outer: dict[str, int]


class Values:
    """The values of all frames of one error. One that several variables hold is rebuilt once and shared."""

    def __init__(self, pickled: Sequence[Pickled], task_id: str = "") -> None:
        self.task_id = task_id
        self._pickled = pickled
        self._rebuilt: dict[int, Any] = {}

    def __getitem__(self, index: int) -> Any:
        if index not in self._rebuilt:
            head, *buffers = self._pickled[index]
            try:
                # Readers may write to arrays.
                self._rebuilt[index] = loads([head, *map(bytearray, buffers)])
            except Exception as error:  # boundary: user code, and modules that are not installed here
                reason = f"it cannot be rebuilt here ({type(error).__name__}: {error})"
                self._rebuilt[index] = StandIn("object", "", reason)
        return self._rebuilt[index]


class Locals(MutableMapping[str, Any]):
    """What a travelled frame has as ``f_locals``.

    The frame's globals can be looked up here as well, though they are not listed: CPython looks for a name of an
    expression in the locals by way of the mapping, but in the globals past it.
    """

    def __init__(self, values: Values, scope: Scope) -> None:
        self._values = values
        self._scope = scope
        #: Names that the debugger's user has set, or deleted.
        self._changed: dict[str, Any] = {}
        self._names = dict.fromkeys(scope.local)

    def __getitem__(self, name: str) -> Any:
        if name in self._changed:
            return self._changed[name]
        index = self._scope.local.get(name) if name in self._names else None
        if index is None:
            index = self._scope.outer.get(name)
        if index is None:
            raise KeyError(name)
        return self._values[index]

    def __setitem__(self, name: str, value: Any) -> None:
        self._changed[name] = value
        self._names[name] = None

    def __delitem__(self, name: str) -> None:
        del self._names[name]
        self._changed.pop(name, None)

    def __contains__(self, name: object) -> bool:
        return name in self._names

    def __iter__(self) -> Iterator[str]:
        return iter(list(self._names))

    def __len__(self) -> int:
        return len(self._names)

    def __repr__(self) -> str:
        return repr(dict(self))


class Globals(dict[str, Any]):
    """What a travelled frame has as ``f_globals``: what Python itself needs, and the variables when asked for one."""

    def __init__(self, implicit: Mapping[str, Any], values: Values, variables: Mapping[str, int]) -> None:
        super().__init__(implicit)
        self._values = values
        self._variables = variables

    @property
    def task_id(self) -> str:
        """The task that the frame comes from; "" if nobody knows."""
        return self._values.task_id

    def __missing__(self, name: str) -> Any:
        return self._values[self._variables[name]]


NOTHING = Values(())
EMPTY = Scope({}, {})
