"""What can go wrong while serving; errors of the actors underneath (``ActorDiedError``, …) come through as they are."""

from __future__ import annotations

from shoal.errors import ShoalError


class DeploymentFailedError(ShoalError, RuntimeError):
    """An application did not come up, or its new version did not and the old one goes on.

    ``application`` and ``deployment`` say which, ``traceback`` what its replica failed with; ``rolled_back`` whether an
    earlier version serves.
    """

    application: str
    deployment: str
    traceback: str
    rolled_back: bool


class BackPressureError(ShoalError, BlockingIOError):
    """As many requests as ``max_queued_requests`` allows wait for a replica already. Over HTTP: status 503.

    ``retry_after`` is after how many seconds it may be worth another try.
    """

    deployment: str
    retry_after: float


class RequestCancelledError(ShoalError):
    """The request was cancelled before it was answered. ``request_id`` names it."""

    request_id: str


class UnknownApplicationError(ShoalError, LookupError):
    """There is no application, or no deployment in it, of this name. ``application`` is what was asked for."""

    application: str


class ModelLoadError(ShoalError, RuntimeError):
    """What ``@serve.multiplexed`` decorates has raised for ``model_id``; the cause is chained."""

    model_id: str


__all__ = [
    "BackPressureError",
    "DeploymentFailedError",
    "ModelLoadError",
    "RequestCancelledError",
    "UnknownApplicationError",
]
