"""Whether two variables hold the same object: then they have to be pickled together, for it to stay one object.

Imported by executors: nothing heavy here.
"""

from __future__ import annotations

import dataclasses
import itertools
import sys
import types
from collections.abc import Mapping
from collections.abc import Set as AbstractSet
from typing import Any

#: What holds no other objects, and whose identity nobody relies on.
_PLAIN = frozenset({str, bytes, int, float, complex, bool, types.NoneType})
#: What tuples hold is looked at by itself.
_UNCHANGEABLE = frozenset({tuple, frozenset})
_CONTAINERS = _UNCHANGEABLE | {list, dict, set}


@dataclasses.dataclass(frozen=True)
class Objects:
    """The objects that a variable is made of, by identity: as long as they live."""

    ids: AbstractSet[int]
    #: A pickler's memo: of each its number and itself. None if the identity of all of them matters.
    memo: Mapping[int, tuple[int, Any]] | None = None

    @classmethod
    def met_by(cls, pickler: Any) -> Objects:
        """Return what a pickler has pickled since it was made."""
        memo = pickler.memo.copy()
        return cls(memo.keys(), memo)

    @classmethod
    def in_containers(cls, value: Any) -> Objects | None:
        """Return what there is in Python's own containers and plain values; None if there is anything else.

        Many times quicker than to ask a pickler.
        """
        mutable: set[int] = set()
        seen: set[int] = set()
        level = [value] if type(value) not in _PLAIN else []
        while level:
            fresh = {id(container): container for container in level}
            for known in fresh.keys() & seen:
                del fresh[known]
            containers = list(fresh.values())
            if not _CONTAINERS.issuperset(map(type, containers)):
                return None
            seen |= fresh.keys()
            mutable.update(key for key, container in fresh.items() if type(container) not in _UNCHANGEABLE)
            items = list(itertools.chain.from_iterable(containers))
            for container in containers:
                if type(container) is dict:
                    items += container.values()
            plain = _PLAIN.issuperset(map(type, items))
            level = [] if plain else [item for item in items if type(item) not in _PLAIN]
        return cls(mutable)

    def share_with(self, other: Objects) -> bool:
        """Return whether there is one among both of which it could be told that it is two afterwards."""
        return any(self._matters(key) and other._matters(key) for key in self.ids & other.ids)

    def _matters(self, key: int) -> bool:
        return self.memo is None or _has_identity(self.memo[key][1])


def _has_identity(value: Any) -> bool:
    if type(value) in _PLAIN or type(value) in _UNCHANGEABLE:
        return False
    if isinstance(value, types.BuiltinFunctionType):
        return not isinstance(value.__self__, types.ModuleType | type | None)
    if isinstance(value, types.FunctionType | type):
        return not _is_found_by_name(value)
    dtype = getattr(sys.modules.get("numpy"), "dtype", None)
    return dtype is None or not isinstance(value, dtype)


def _is_found_by_name(value: types.FunctionType | type) -> bool:
    """Whether a function or class is what the other side gets by importing it."""
    found: Any = sys.modules.get(value.__module__) if value.__module__ != "__main__" else None
    for part in value.__qualname__.split("."):
        found = getattr(found, part, None)
    return found is value
