"""What the cluster has: nodes, and resources in all."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

from shoal.api.session import owner_or_init
from shoal.model.amounts import format_nbytes
from shoal.model.description import Description, describe_safely
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


class Nodes(list[Node]):
    """A list that shows itself as a table."""

    def __repr__(self) -> str:
        return self._describe().text

    def _repr_mimebundle_(self, include: object = None, exclude: object = None) -> dict[str, str]:
        return describe_safely(self._describe, "nodes")

    def _describe(self) -> Description:
        rows = tuple((node.id, node.address, *_amounts(node), _labels(node)) for node in self)
        return Description(
            f"{len(self)} node{'s' * (len(self) != 1)}",
            heads=("node", "Dask worker", "CPUs free", "memory free", "other free", "labels"),
            rows=rows,
        )


def nodes() -> list[Node]:
    """Return the cluster's nodes; also inside tasks. A notebook shows them as a table."""
    rows = owner_or_init().ask(lambda request: Ask(request, "nodes", ()))
    return Nodes(
        Node(node_id, address, dict(labels), dict(total), dict(free)) for node_id, address, labels, total, free in rows
    )


def _amounts(node: Node) -> tuple[str, str, str]:
    def of(name: str, say: Callable[[float], str]) -> str:
        return f"{say(max(0.0, node.free.get(name, 0.0)))} of {say(node.total.get(name, 0.0))}"

    others = (name for name in node.total if name not in ("num_cpus", "memory"))
    return (
        of("num_cpus", "{:g}".format),
        of("memory", format_nbytes),
        ", ".join(f"{name} {of(name, '{:g}'.format)}" for name in others),
    )


def _labels(node: Node) -> str:
    return ", ".join(f"{key}={value}" for key, value in node.labels.items())


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
