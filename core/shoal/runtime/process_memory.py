"""What processes use by themselves: the memory that would be free if they, and the children they started, ended.

On Linux that is *anonymous* memory. Segments of the object store belong to the store, however many map them, and the
libraries that are mapped from files belong to the cache; neither is blamed on anybody. What an executor shares with
the template that it was forked from, or with children that it forked itself, is blamed on each in equal parts.
"""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import psutil

_PROC = Path("/proc")
_PAGE = os.sysconf("SC_PAGE_SIZE")
#: A process alone that has more than this is not read page by page, which takes 20 ms for each GiB: what it shares
#: with the template is little then.
_LARGE = 1 << 30

#: By leader of a process group: the members.
Groups = Mapping[int, Sequence[int]]


def find_groups(leaders: Iterable[int]) -> dict[int, list[int]]:
    """Return the members of the process groups with these leaders; the leaders themselves come first.

    Takes about 15 us for each process of the machine.
    """
    groups = {leader: [leader] for leader in leaders}
    if sys.platform != "linux":
        for leader, members in groups.items():
            with contextlib.suppress(psutil.Error):
                members += [child.pid for child in psutil.Process(leader).children(recursive=True)]
        return groups
    for name in os.listdir(_PROC):
        if not name.isdigit():
            continue
        with contextlib.suppress(OSError, ValueError, IndexError):
            # pid (name) state parent group …: the name may hold anything.
            group = int((_PROC / name / "stat").read_bytes().rpartition(b")")[2].split()[2])
            if group in groups and group != int(name):
                groups[group].append(int(name))
    return groups


def roughly(groups: Groups) -> int:
    """Return at least what all *groups* use, in bytes: what processes share counts several times. Takes 15 us each."""
    return sum(_anonymous(pid) for members in groups.values() for pid in members)


def private_memory(groups: Groups) -> dict[int, int]:
    """Return what each of *groups* uses by itself, in bytes. Takes up to 20 ms for each GiB that they use."""
    found = {}
    for leader, members in groups.items():
        if len(members) == 1 and (rough := _anonymous(leader)) > _LARGE:
            found[leader] = rough
        else:
            found[leader] = sum(map(_share, members))
    return found


def _anonymous(pid: int) -> int:
    """Return the resident anonymous memory of a process; elsewhere than on Linux all that is resident."""
    if sys.platform == "linux":
        with contextlib.suppress(OSError, ValueError, IndexError):
            _, resident, shared, *_ = (_PROC / str(pid) / "statm").read_bytes().split()
            return max(0, int(resident) - int(shared)) * _PAGE
        return 0
    with contextlib.suppress(psutil.Error):
        return int(psutil.Process(pid).memory_info().rss)
    return 0


def _share(pid: int) -> int:
    """Return the part of a process in the anonymous memory that it has, alone or together with others."""
    if sys.platform == "linux":
        with contextlib.suppress(OSError, ValueError, IndexError):
            for line in (_PROC / str(pid) / "smaps_rollup").read_bytes().splitlines():
                if line.startswith(b"Pss_Anon:"):
                    return int(line.split()[1]) << 10
    return _anonymous(pid)  # a kernel before 5.4, or a process that may not be looked into
