"""What the serve controller tells everybody who calls deployments."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from shoal_ml.serve.routing import ReplicaPlace

#: Name and namespace of the controller's actor.
CONTROLLER = "controller"
NAMESPACE = "shoal-serve"
#: The key under which the ingress watches what paths there are.
ROUTES = "#routes"


class DeploymentTable(NamedTuple):
    """Who answers for a deployment."""

    places: tuple[ReplicaPlace, ...]
    #: Actors by replica's id.
    handles: Mapping[str, Any]
    max_ongoing: int
    max_queued: int
    retry_after: float
    retries: int
    request_timeout: float | None
    #: Unix sockets of replicas that take over connections, by replica's id.
    fronts: Mapping[str, str]


class Route(NamedTuple):
    """A path that HTTP reaches an application under."""

    prefix: str
    application: str
    deployment: str


def key_of(application: str, deployment: str) -> str:
    """Return the key under which a deployment's table is watched."""
    return f"{application}#{deployment}"
