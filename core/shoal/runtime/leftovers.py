"""What is left when every process of a cluster is killed at once: the next one that starts here removes it.

Whoever makes a directory claims it with a lock that ends with the process, however that ends; the lock tells of
processes in other containers too, which a process id would not. But locks may be known to one machine only, where the
directory is seen by several (a shared file system): a claim says whose it is, and other machines' are left to them.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
import socket
import tempfile
import time
from pathlib import Path
from typing import NamedTuple

from shoal.runtime.environment import store_root

_LOCK = ".claimed"
#: Seconds in which a directory may be one whose maker has not locked it yet.
_YOUNG = 10.0
#: Changes with each boot of a machine; the same in all its containers.
_BOOT_ID = Path("/proc/sys/kernel/random/boot_id")
#: Stays, but copies of a machine may share it: it counts together with the host's name.
_MACHINE_ID = Path("/etc/machine-id")


class Claimant(NamedTuple):
    """Whose a directory is."""

    #: Host name and machine id.
    machine: str
    #: "" where that is not known.
    boot: str

    def is_judged_by(self, other: Claimant) -> bool:
        """Whether *other* sees this one's locks: in the same boot, or a later one of the machine, when all are dead."""
        return self.machine == other.machine or (bool(self.boot) and self.boot == other.boot)


def claimant_here() -> Claimant:
    """Return who this process claims for."""
    return Claimant(f"{socket.gethostname()} {_read(_MACHINE_ID)}".strip(), _read(_BOOT_ID))


def _read(path: Path) -> str:
    try:
        return path.read_text().strip()
    except (OSError, UnicodeDecodeError):
        return ""


def claim(directory: str | os.PathLike[str]) -> int:
    """Keep *directory* from being removed as long as the returned file is open: as this process lives, at most."""
    lock = os.open(os.path.join(directory, _LOCK), os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600)
    with contextlib.suppress(OSError):  # a file system without locks: nothing is removed there
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        os.write(lock, "\n".join(claimant_here()).encode())
    return lock


def sweep() -> None:
    """Remove the directories of this user's clusters whose processes were on this machine and are all gone."""
    for place in {store_root(), Path(tempfile.gettempdir())}:
        for directory in place.glob(f"shoal-{os.getuid()}-*"):
            with contextlib.suppress(OSError):
                if _is_left(directory):
                    _remove(directory)


def _is_left(directory: Path) -> bool:
    lock_path = directory / _LOCK
    status = lock_path.lstat()
    if directory.is_symlink() or status.st_uid != os.getuid() or time.time() - status.st_mtime < _YOUNG:
        return False
    lock = os.open(lock_path, os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        return Claimant(*os.read(lock, 4096).decode().split("\n")).is_judged_by(claimant_here())
    except (OSError, UnicodeDecodeError, TypeError):  # locked, or no claim of ours
        return False
    finally:
        os.close(lock)


def _remove(directory: Path) -> None:
    spilled = Path(os.path.realpath(directory / "spilled"))
    if spilled.name == f"{directory.name}-spilled":
        shutil.rmtree(spilled, ignore_errors=True)
    shutil.rmtree(directory, ignore_errors=True)
