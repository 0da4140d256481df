"""The replicas of a pool: actors that open a stage's transforms, started when wanted and kept if asked to."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from typing import Any

import shoal
from shoal_ml.batch.stage_work import Replica


class Replicas:
    """Starts replicas, and takes back those that are no longer needed.

    A pool of one run ends with it. One that is kept (``keep=True``) holds those that were given back ready for the next
    run, until :meth:`close`; its replicas end with this process at the latest.

    Parameters
    ----------
    options
        Options of the actors, such as ``num_cpus``.
    name
        What panels and errors call them.
    keep
        Keep replicas for another run.
    """

    def __init__(self, options: Mapping[str, Any], *, name: str = "replica", keep: bool = False) -> None:
        self.keep = keep
        self._num_threads = max(1, int(options.get("num_cpus") or 1))
        self._class = shoal.remote(Replica).options(**options)
        self.name = name
        self._idle: list[shoal.ActorHandle] = []
        self._lock = threading.Lock()
        self._closed = False

    @property
    def num_idle(self) -> int:
        """How many wait for another run."""
        return len(self._idle)

    def take(self) -> shoal.ActorHandle:
        """Return a replica: one that waits, or a new one, which may not have begun yet."""
        with self._lock:
            if self._idle:
                return self._idle.pop()
        return self._class.remote(self._num_threads)

    def give_back(self, replica: shoal.ActorHandle) -> None:
        """A run needs a replica no longer; it has nothing to do."""
        with self._lock:
            if self.keep and not self._closed:
                self._idle.append(replica)
                return
        shoal.kill(replica)

    def discard(self, replica: shoal.ActorHandle) -> None:
        """End a replica, whatever it does."""
        shoal.kill(replica)

    def close(self) -> None:
        """End the replicas that wait, and those that are given back later."""
        with self._lock:
            self._closed = True
            idle, self._idle = self._idle, []
        for replica in idle:
            shoal.kill(replica)


__all__ = ["Replicas"]
