"""Which node each executor was on: those that have ended too, as records go on naming them."""

from __future__ import annotations

#: Executors that are known at most: the newest.
MAX_EXECUTORS = 20_000


class ExecutorPlaces:
    """See the module's description."""

    def __init__(self) -> None:
        self._nodes: dict[str, str] = {}

    def note(self, executor_id: str, node_id: str) -> bool:
        """An executor has begun on a node; returns whether that is new."""
        if self._nodes.get(executor_id) == node_id:
            return False
        self._nodes[executor_id] = node_id
        if len(self._nodes) > MAX_EXECUTORS:
            del self._nodes[next(iter(self._nodes))]
        return True

    def nodes(self) -> dict[str, str]:
        """Return the node of each executor."""
        return dict(self._nodes)
