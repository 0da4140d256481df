"""Object refs: handles to immutable values that may not be ready yet."""

from __future__ import annotations

import threading
from collections.abc import Callable, Generator
from typing import TYPE_CHECKING, Any

from shoal.model.errors import NotInitializedError, SerializationError

if TYPE_CHECKING:
    from shoal.runtime.base_owner import BaseOwner

_collector = threading.local()
_current_owner: Callable[[], BaseOwner] | None = None


class ObjectRef:
    """Handle to an immutable value in the cluster, possibly not ready.

    Get the value with :func:`shoal.get` or ``await ref``; pass the ref to a task or an actor and it arrives there
    as the value. The value lives as long as some ref to it does. Refs are made by shoal, never by hand.
    """

    __slots__ = ("__weakref__", "_id", "_owner", "_owner_address")

    def __init__(self, object_id: str, owner_address: str, owner: BaseOwner) -> None:
        """Wrap a hold on the object table's entry that the caller has already taken."""
        self._id = object_id
        self._owner_address = owner_address
        self._owner = owner

    @property
    def id(self) -> str:
        """Readable, unique id of the object."""
        return self._id

    def __repr__(self) -> str:
        return f"ObjectRef({self._id})"

    def __hash__(self) -> int:
        return hash(self._id)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, ObjectRef) and other._id == self._id

    def __del__(self) -> None:
        # In the garbage collector, on any thread: append and wake, take no lock. The owner is missing only if
        # __init__ was never reached.
        owner = getattr(self, "_owner", None)
        if owner is not None:
            owner.drop_nowait(self._id)

    def __await__(self) -> Generator[Any, None, Any]:
        return self._owner.get_async(self).__await__()

    def __reduce__(self) -> tuple[Any, ...]:
        check_travels(self, "the object")
        _collector.found.append(self)
        return _rebuild, (self._id, self._owner_address)


def _rebuild(object_id: str, owner_address: str) -> ObjectRef:
    if _current_owner is None:
        raise NotInitializedError("This process has no shoal runtime, so it cannot hold object refs.")
    return _current_owner().hold(object_id, owner_address)


def check_travels(what: object, kept: str) -> None:
    """Refuse pickles that nobody collects the refs of.

    Raises
    ------
    SerializationError
        *what* is being pickled by user code.
    """
    if getattr(_collector, "found", None) is None:
        raise SerializationError(
            f"`{what!r}` can travel only inside arguments, results, `put` values and remote functions: a pickle of "
            f"your own would not keep {kept} alive.",
            path=repr(what),
        )


def set_current_owner(find: Callable[[], BaseOwner] | None) -> None:
    """Say which owner refs that arrive in this process belong to."""
    global _current_owner
    _current_owner = find


class collecting:
    """Allow refs to be pickled on this thread inside the ``with``, and list those that were."""

    __slots__ = ("_before", "found")

    def __enter__(self) -> list[ObjectRef]:
        self._before: list[ObjectRef] | None = getattr(_collector, "found", None)
        self.found: list[ObjectRef] = []
        _collector.found = self.found
        return self.found

    def __exit__(self, *exc_info: object) -> None:
        _collector.found = self._before
