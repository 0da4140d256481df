"""What code that answers a request can find out about it, and about the replica it runs in."""

from __future__ import annotations

import contextvars
import dataclasses
from typing import Any

from shoal.errors import NotInitializedError


@dataclasses.dataclass(frozen=True, slots=True)
class RequestContext:
    """The request that the calling code answers."""

    request_id: str
    application: str
    deployment: str
    model_id: str = ""


@dataclasses.dataclass(frozen=True, slots=True)
class ReplicaContext:
    """The replica that the calling code runs in; ``servable`` is the instance it serves."""

    application: str
    deployment: str
    replica_id: str
    servable: Any


_request: contextvars.ContextVar[RequestContext | None] = contextvars.ContextVar("shoal request", default=None)
_replica: contextvars.ContextVar[ReplicaContext | None] = contextvars.ContextVar("shoal replica", default=None)


def current_request() -> RequestContext | None:
    """Return the request that the caller works on; None outside of one."""
    return _request.get()


def set_request(request: RequestContext | None) -> None:
    """Say what the calling task works on."""
    _request.set(request)


def set_replica(replica: ReplicaContext | None) -> None:
    """Say which replica the calling task belongs to."""
    _replica.set(replica)


def current_replica() -> ReplicaContext | None:
    """Return the replica that the caller runs in; None outside of one."""
    return _replica.get()


def get_replica_context() -> ReplicaContext:
    """Return what is known of the replica that calls this.

    Raises
    ------
    NotInitializedError
        The caller is no replica.
    """
    replica = _replica.get()
    if replica is None:
        raise NotInitializedError("`get_replica_context` is for the code of a deployment.")
    return replica


def get_multiplexed_model_id() -> str:
    """Return which model the request is for: header ``serve_multiplexed_model_id``, or the handle's option; or ""."""
    request = _request.get()
    return request.model_id if request is not None else ""
