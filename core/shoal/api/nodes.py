"""What the cluster has: nodes, and resources in all."""

from __future__ import annotations

import dataclasses

from shoal.api.session import owner_or_init
from shoal.model.messages import Ask


@dataclasses.dataclass(frozen=True, slots=True)
class Node:
    """One node of the cluster, at the moment of the call.

    Attributes
    ----------
    id
        For :class:`~shoal.NodeAffinity`.
    address
        Of its Dask worker.
    labels
        For ``label_selector``.
    total, free
        Amounts by resource; what leases, placement groups and Dask's own tasks use is not free. Memory in bytes.
    """

    id: str
    address: str
    labels: dict[str, str]
    total: dict[str, float]
    free: dict[str, float]


def nodes() -> list[Node]:
    """Return the cluster's nodes; also inside tasks."""
    rows = owner_or_init().ask(lambda request: Ask(request, "nodes", ()))
    return [
        Node(node_id, address, dict(labels), dict(total), dict(free)) for node_id, address, labels, total, free in rows
    ]


def cluster_resources() -> dict[str, float]:
    """Return what all nodes have together, by resource."""
    return _sum([node.total for node in nodes()])


def available_resources() -> dict[str, float]:
    """Return what is free on all nodes together, by resource."""
    return _sum([node.free for node in nodes()])


def _sum(parts: list[dict[str, float]]) -> dict[str, float]:
    result: dict[str, float] = {}
    for part in parts:
        for name, amount in part.items():
            result[name] = result.get(name, 0.0) + max(0.0, amount)
    return result


__all__ = ["Node", "available_resources", "cluster_resources", "nodes"]
