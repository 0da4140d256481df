"""Errors a user can meet.

Each inherits :class:`ShoalError` and the standard type a reader would expect, carries its facts as attributes, and
survives pickling (it may travel from an executor through an owner to the notebook).
"""

from __future__ import annotations

from typing import Any


class ShoalError(Exception):
    """Base of every error that shoal raises by itself; user code keeps its own types."""

    def __init__(self, message: str, **facts: Any) -> None:
        super().__init__(message)
        self.__dict__.update(facts)

    def __reduce__(self) -> tuple[Any, ...]:
        return _rebuild, (type(self), self.args[0] if self.args else "", self.__dict__.copy())


def _rebuild(cls: type[ShoalError], message: str, facts: dict[str, Any]) -> ShoalError:
    return cls(message, **facts)


class OptionError(ShoalError, ValueError):
    """An option that does not exist, or a value outside its range."""


class NotInitializedError(ShoalError, RuntimeError):
    """The call needs a cluster and this process has none (or no longer)."""


class ConnectError(ShoalError, ConnectionError):
    """No cluster answered at the address, or it refused us."""


class ShoalMissingError(ConnectError):
    """There is a Dask cluster at the address without shoal: it was never brought there, or the scheduler refuses it."""


class VersionMismatchError(ShoalError, RuntimeError):
    """Driver and nodes run Python versions that cannot exchange code. ``table`` lists the differences."""

    table: str


class ClusterLostError(ShoalError, ConnectionError):
    """The controller (Dask scheduler) is gone: pending work cannot be finished."""


class InfeasibleError(ShoalError, ValueError):
    """No node of the cluster could ever satisfy the request. ``asked`` and ``largest`` are resource mappings."""

    asked: dict[str, float]
    largest: dict[str, float]


class SerializationError(ShoalError, TypeError):
    """A value cannot travel. ``path`` leads to the part at fault, such as ``model.logger._lock``."""

    path: str


class TaskCancelledError(ShoalError):
    """The task was cancelled before it returned. ``task_id`` names it."""

    task_id: str


class GetTimeoutError(ShoalError, TimeoutError):
    """``get`` waited for ``timeout`` seconds and the value was not ready. The work goes on."""


class ExecutorCrashedError(ShoalError, RuntimeError):
    """The process that ran the task died (signal, ``os._exit``, out of memory) more often than retries allow.

    ``cause`` says how it ended, ``stderr`` holds its last lines.
    """

    cause: str
    stderr: str


class OutOfMemoryError(ExecutorCrashedError, MemoryError):
    """The task's process was ended because memory was nearly full, more often than retries allow.

    The node ends a process before the system does, which might end any: ``used`` is what this one used, with the
    processes it had started, ``node_used`` what was used in all, of ``limit`` (all in bytes). ``task_id`` and ``cell``
    say which task it was, and which cell it came from, if one.
    """

    task_id: str
    cell: str | None
    used: int
    node_used: int
    limit: int


class ActorDiedError(ShoalError, RuntimeError):
    """The actor's process has ended; ``cause`` says why. ``actor_id`` names it."""

    actor_id: str
    cause: str


class ActorUnavailableError(ShoalError, ConnectionError):
    """The actor's process died under this call and is being started afresh, or the connection to it was lost.

    The call may or may not have run; later calls wait for the new process or connection. ``actor_id`` names the actor,
    ``cause`` says what happened.
    """

    actor_id: str
    cause: str


class NameTakenError(ShoalError, ValueError):
    """Another actor has this ``name`` in this ``namespace``."""

    name: str
    namespace: str


class PendingCallsLimitExceeded(ShoalError, BlockingIOError):
    """As many calls as ``max_pending_calls`` allows wait for the actor's answers already."""

    limit: int


class TaskTimeoutError(ShoalError, TimeoutError):
    """The task or call was not done within its ``timeout`` seconds and was cancelled. ``task_id`` names it."""

    task_id: str
    timeout: float


class NestingError(ShoalError, RecursionError):
    """Tasks wait for tasks that wait for tasks …, deeper than ``limit``."""

    limit: int


class PlacementGroupError(ShoalError, RuntimeError):
    """The placement group was removed, or its nodes are gone. ``group_id`` names it."""

    group_id: str


class OwnerDiedError(ShoalError, RuntimeError):
    """The process that owned the object is gone, and the object with it. ``object_id`` names it."""

    object_id: str


class ObjectLostError(ShoalError, LookupError):
    """The object was released, or its copy cannot be read any more. ``object_id`` names it."""

    object_id: str


class ObjectStoreFullError(ShoalError, MemoryError):
    """A node's object store has no room for a value of ``needed`` bytes, and none could be made within its ``limit``.

    ``holders`` lists its biggest segments: name, bytes, and whether running code maps it.
    """

    needed: int
    limit: int
    holders: tuple[tuple[str, int, bool], ...]


class RemoteError(ShoalError, RuntimeError):
    """Stands for a user exception that could not be pickled: ``type_name`` and ``text`` keep what it said."""

    type_name: str
    text: str
