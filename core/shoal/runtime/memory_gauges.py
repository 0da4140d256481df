"""How much memory a node has, and how much of it is used: of its machine, and of the containers around it.

What counts as used is what the kernel could not get back at once: file cache is not, segments of the object store in
shared memory are. A container's limit is that of its control group, or of one around it: the first of them that is
full ends somebody, so each that has a limit is a gauge of its own.
"""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Callable
from pathlib import Path

import psutil

from shoal.machines.memory_watch import Gauge

#: What the two are called in messages, in which "… was nearly full" follows.
MACHINE, CONTAINER = "the node's memory", "the memory of the node's container"


@dataclasses.dataclass(frozen=True, slots=True)
class _Version:
    """What the files of a version of control groups are called, and which of the statistics are cache."""

    limit: str
    usage: str
    reclaimable: frozenset[str]


_V1 = _Version(
    "memory.limit_in_bytes", "memory.usage_in_bytes", frozenset({"total_inactive_file", "total_active_file"})
)
_V2 = _Version("memory.max", "memory.current", frozenset({"inactive_file", "active_file", "slab_reclaimable"}))


@dataclasses.dataclass(frozen=True, slots=True)
class Cgroup:
    """The memory of a control group."""

    directory: Path
    version: _Version

    def limit(self) -> int | None:
        """Return its limit in bytes; None if it has none (in version 1 a number larger than any machine)."""
        try:
            return int((self.directory / self.version.limit).read_text())
        except (OSError, ValueError):
            return None

    def read(self, worth: float) -> Gauge | None:
        """Return what is used of its limit; None if it has none.

        The cache is included as long as it does not matter: up to the share *worth* of the limit.
        """
        limit = self.limit()
        if not limit:
            return None
        with contextlib.suppress(OSError, ValueError):
            used = int((self.directory / self.version.usage).read_text())
            if used > worth * limit:
                used -= self._reclaimable()
            return Gauge(CONTAINER, limit, max(0, used))
        return None

    def _reclaimable(self) -> int:
        nbytes = 0
        for line in (self.directory / "memory.stat").read_text().splitlines():
            name, _, value = line.partition(" ")
            if name in self.version.reclaimable:
                nbytes += int(value)
        return nbytes


def find_cgroups(root: Path = Path("/")) -> list[Cgroup]:
    """Return the control groups that this process is in, and those around them, as far as they can be seen."""
    found: dict[Path, Cgroup] = {}
    try:
        lines = (root / "proc/self/cgroup").read_text().splitlines()
    except OSError:
        return []
    for line in lines:
        number, _, rest = line.partition(":")
        controllers, _, path = rest.partition(":")
        if "memory" in controllers.split(","):
            version, base = _V1, root / "sys/fs/cgroup/memory"
        elif number == "0" and not controllers:
            version, base = _V2, root / "sys/fs/cgroup"
        else:
            continue
        # In a container the path may be the one outside, where we see only our own group, as if it were the root.
        parts = [part for part in path.split("/") if part]
        for depth in range(len(parts), -1, -1) if ".." not in parts else (0,):
            directory = base.joinpath(*parts[:depth])
            if (directory / version.limit).exists():
                found[directory] = Cgroup(directory, version)
    return list(found.values())


def machine_memory() -> tuple[int, int]:
    """Return the machine's memory, and how much of it is used, in bytes."""
    memory = psutil.virtual_memory()
    return memory.total, memory.total - memory.available


class Gauges:
    """The gauges of the machine and of the containers around this process."""

    def __init__(self, root: Path = Path("/"), machine: Callable[[], tuple[int, int]] = machine_memory) -> None:
        self._machine = machine
        total, _ = machine()
        self._cgroups = [group for group in find_cgroups(root) if (group.limit() or total) < total]

    def read(self, worth: float) -> list[Gauge]:
        """Read them, the cheapest way: a container's cache is left out where more than *worth* is used."""
        total, used = self._machine()
        groups = [group.read(worth) for group in self._cgroups]
        return [Gauge(MACHINE, total, used), *(gauge for gauge in groups if gauge is not None)]
