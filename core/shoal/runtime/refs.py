"""Object refs: handles to immutable values that may not be ready yet."""

from __future__ import annotations

import threading
from collections.abc import Callable, Generator
from typing import TYPE_CHECKING, Any

from shoal.model.errors import NotInitializedError, SerializationError

if TYPE_CHECKING:
    from distributed import Client, Future

    from shoal.model.messages import Payload
    from shoal.runtime.base_owner import BaseOwner

_collector = threading.local()
_current_owner: Callable[[], BaseOwner] | None = None
_to_dask: Callable[[ObjectRef, Client | None], Future[Any]] | None = None


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

    def to_dask(self, client: Client | None = None) -> Future[Any]:
        """Return a Dask future of the value, for Dask's collections and for ``client.submit``.

        Returns at once. A Dask task waits until the value is ready, without using a thread, and takes it from the node
        that has it: arrays share memory with the store there. Nothing passes through this process, unless the value
        is small or lies here.

        Parameters
        ----------
        client
            The Dask client that the future is to belong to: no other can get its value. By default the current one
            (``Client.current()``) if it is connected to this cluster; otherwise one of shoal's own, which closes with
            the session.

        Returns
        -------
        distributed.Future
            Fails with the exception that the task behind this ref has failed with. The object is kept alive until Dask
            has the value; what Dask loses later it cannot get again.

        Raises
        ------
        NotInitializedError
            There is no Dask cluster, because of ``shoal.init(inline=True)``, or the session has ended.
        OptionError
            *client* is connected to another cluster, or closed.

        Notes
        -----
        Where it runs: on the node that has the value, if that is known by now and the value is large; elsewhere it is
        fetched from there. A value that contains refs fails with ``SerializationError``: Dask would not keep them
        alive.

        Examples
        --------
        A dataframe of the tables that tasks return; ``dask.bag.from_delayed``, ``dask.array.from_delayed`` likewise:

        >>> import dask.dataframe, pandas, shoal
        >>> @shoal.remote
        ... def table(start):
        ...     return pandas.DataFrame({"x": range(start, start + 3)})
        >>> with shoal.init(num_cpus=1):
        ...     futures = [table.remote(start).to_dask() for start in (0, 3)]
        ...     with futures[0].client.as_current():
        ...         int(dask.dataframe.from_delayed(futures, meta={"x": int}).x.sum().compute())
        15
        """
        assert _to_dask is not None, "`shoal` sets it when it is imported"
        return _to_dask(self, client)

    def __repr__(self) -> str:
        return f"ObjectRef({self._id})"

    def _repr_mimebundle_(self, include: object = None, exclude: object = None) -> dict[str, str]:
        # Imported when one is shown: it brings the runtime, and `import shoal` is to be quick.
        from shoal.model.description import describe_safely
        from shoal.runtime.describing import describe_ref

        return describe_safely(lambda: describe_ref(self), f"ref {self._id}")

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

    def add_done_callback(self, callback: Callable[[ObjectRef], object]) -> None:
        """Call *callback* with this ref once its value or error is there: at once, if it is.

        It runs on the thread that brings the value, which has other work: it must be short, must not wait, and what it
        raises is logged. The ref is held until then.
        """
        self._owner.when_done(self, callback)

    def __await__(self) -> Generator[Any, None, Any]:
        return self._owner.get_async(self).__await__()

    def __reduce__(self) -> tuple[Any, ...]:
        check_travels(self, "the object")
        _collector.found.append(self)
        location = self._owner.location_of(self._id)
        return _rebuild, (self._id, self._owner_address, *([location] if location is not None else []))


def _rebuild(object_id: str, owner_address: str, location: Payload | None = None) -> ObjectRef:
    if _current_owner is None:
        raise NotInitializedError("This process has no shoal runtime, so it cannot hold object refs.")
    return _current_owner().hold(object_id, owner_address, location)


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


def set_to_dask(function: Callable[[ObjectRef, Client | None], Future[Any]]) -> None:
    """Say what :meth:`ObjectRef.to_dask` does: it is done where Dask may be imported."""
    global _to_dask
    _to_dask = function


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
