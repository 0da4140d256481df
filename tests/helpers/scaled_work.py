"""Work that shows on which nodes it runs, for tests of more and fewer of them."""

from __future__ import annotations

import time
from pathlib import Path

import shoal


@shoal.remote
def where() -> str:
    time.sleep(0.05)
    return shoal.get_runtime_context().node_id


@shoal.remote
class Counter:
    def node(self) -> str:
        return shoal.get_runtime_context().node_id


def used_nodes(count: int) -> set[str]:
    """Return the nodes on which tasks run, as soon as there are *count*: a new node's first process takes a moment."""
    used: set[str] = set()
    deadline = time.monotonic() + 60
    while len(used) < count and time.monotonic() < deadline:
        used |= set(shoal.get([where.remote() for _ in range(10)], timeout=60))
    return used


def begin_slow_tasks(count: int, directory: Path) -> list[shoal.ObjectRef]:
    """Return tasks that have begun, and must not begin again."""

    @shoal.remote(max_retries=0)
    def slow(path):
        path.touch()
        time.sleep(1.0)
        return 1

    refs = [slow.remote(directory / str(number)) for number in range(count)]
    deadline = time.monotonic() + 30
    while len(list(directory.iterdir())) < count:
        assert time.monotonic() < deadline
        time.sleep(0.01)
    return refs
