"""What processes occupy. Shared memory counts once, in equal parts for those that map it (PSS)."""

from __future__ import annotations

import gc
import os
import time
from pathlib import Path

import psutil

#: Of ``/proc/<pid>/smaps_rollup``: all, what is nobody's file, and what lies in shared memory.
KINDS = {"Pss": "pss", "Pss_Anon": "anonymous", "Pss_Shmem": "shared"}
#: Seconds to wait at most for a system to come to rest.
PATIENCE = 20.0


def footprint(pid: int | None = None) -> dict[str, float]:
    """Return the megabytes of one process, this one by default."""
    found = dict.fromkeys(KINDS.values(), 0.0)
    for line in Path(f"/proc/{pid or os.getpid()}/smaps_rollup").read_text().splitlines():
        name, _, rest = line.partition(":")
        if name in KINDS:
            found[KINDS[name]] = int(rest.split()[0]) * 1024 / 1e6
    return found


def whole_footprint() -> dict[str, float]:
    """Return the megabytes of this process and all that it has started, store and driver included."""
    found = dict.fromkeys(KINDS.values(), 0.0)
    for process in (psutil.Process(), *psutil.Process().children(recursive=True)):
        try:
            one = footprint(process.pid)
        except (OSError, ValueError):  # it has just ended
            continue
        for kind, megabytes in one.items():
            found[kind] += megabytes
    return found


def settled_footprint() -> dict[str, float]:
    """As :func:`whole_footprint`, when nothing has changed for a second: systems fork and import ahead of need."""
    gc.collect()
    deadline = time.monotonic() + PATIENCE
    before, since = whole_footprint(), time.monotonic()
    while time.monotonic() < min(deadline, since + 1.0):
        time.sleep(0.1)
        now = whole_footprint()
        if abs(now["pss"] - before["pss"]) > 1.0:
            before, since = now, time.monotonic()
    return before
