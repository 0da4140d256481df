"""What the cluster does and did, as tables: ``shoal.state``. See ``docs/observing.md``."""

from shoal.api.state import (
    ClusterState,
    Rows,
    actors,
    cells,
    events,
    functions,
    jobs,
    leases,
    nodes,
    objects,
    open,
    past,
    placement_groups,
    summary,
    tasks,
    timeline,
)

__all__ = [
    "ClusterState",
    "Rows",
    "actors",
    "cells",
    "events",
    "functions",
    "jobs",
    "leases",
    "nodes",
    "objects",
    "open",
    "past",
    "placement_groups",
    "summary",
    "tasks",
    "timeline",
]
