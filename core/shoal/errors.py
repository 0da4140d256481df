"""The errors a user can meet, under the name users import: ``shoal.errors``."""

from shoal.model.errors import (
    ActorDiedError,
    ClusterLostError,
    ConnectError,
    ExecutorCrashedError,
    GetTimeoutError,
    InfeasibleError,
    NotInitializedError,
    ObjectLostError,
    OptionError,
    OwnerDiedError,
    RemoteError,
    SerializationError,
    ShoalError,
    TaskCancelledError,
    VersionMismatchError,
)

__all__ = [
    "ActorDiedError",
    "ClusterLostError",
    "ConnectError",
    "ExecutorCrashedError",
    "GetTimeoutError",
    "InfeasibleError",
    "NotInitializedError",
    "ObjectLostError",
    "OptionError",
    "OwnerDiedError",
    "RemoteError",
    "SerializationError",
    "ShoalError",
    "TaskCancelledError",
    "VersionMismatchError",
]
