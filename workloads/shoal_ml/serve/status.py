"""``serve.status()``: what is served, as plain records that JSON can say."""

from __future__ import annotations

import dataclasses
from typing import Any


@dataclasses.dataclass(frozen=True, slots=True)
class ReplicaStatus:
    """One replica: ``state`` is STARTING, RUNNING or DRAINING."""

    replica_id: str
    state: str
    version: str
    node_id: str = ""
    ongoing: int = 0
    queued: int = 0
    total: int = 0
    errors: int = 0


@dataclasses.dataclass(frozen=True, slots=True)
class DeploymentStatus:
    """One deployment: ``state`` is HEALTHY, UPDATING, UPSCALING, DOWNSCALING or UNHEALTHY.

    ``message`` says why; ``decisions`` are those of the autoscaling, the newest last, each with ``time``, ``before``,
    ``after`` and ``reason``.
    """

    name: str
    state: str
    version: str
    num_replicas: int
    replicas: tuple[ReplicaStatus, ...] = ()
    message: str = ""
    decisions: tuple[dict[str, Any], ...] = ()


@dataclasses.dataclass(frozen=True, slots=True)
class ApplicationStatus:
    """One application: ``state`` is DEPLOYING, RUNNING, UNHEALTHY, DEPLOY_FAILED or DELETING.

    ``url`` is "" for one that HTTP does not reach. An update that failed leaves it RUNNING with the version before, and
    says so in ``message``.
    """

    name: str
    state: str
    route_prefix: str
    url: str
    ingress: str
    deployments: tuple[DeploymentStatus, ...] = ()
    message: str = ""
    detached: bool = False


@dataclasses.dataclass(frozen=True, slots=True)
class ServeStatus:
    """All that is served in the cluster. ``http`` is where, or "" if nothing listens."""

    applications: tuple[ApplicationStatus, ...] = ()
    http: str = ""

    def application(self, name: str) -> ApplicationStatus | None:
        """Return one application; None if there is none of this name."""
        return next((row for row in self.applications if row.name == name), None)

    def to_dict(self) -> dict[str, Any]:
        """Return it as dicts and lists."""
        return dataclasses.asdict(self)
