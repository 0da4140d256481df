"""What is left when every process of a cluster is killed at once: the next one that starts here removes it.

Whoever makes a directory claims it with a lock that ends with the process, however that ends; the lock tells of
processes in other containers too, which a process id would not.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
import tempfile
import time
from pathlib import Path

from shoal.runtime.environment import store_root

_LOCK = ".claimed"
#: Seconds in which a directory may be one whose maker has not locked it yet.
_YOUNG = 10.0


def claim(directory: str | os.PathLike[str]) -> int:
    """Keep *directory* from being removed as long as the returned file is open: as this process lives, at most."""
    lock = os.open(os.path.join(directory, _LOCK), os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600)
    with contextlib.suppress(OSError):  # a file system without locks: nothing is removed there
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    return lock


def sweep() -> None:
    """Remove the directories of this user's clusters on this machine whose processes are all gone."""
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
        return True
    except OSError:
        return False
    finally:
        os.close(lock)


def _remove(directory: Path) -> None:
    spilled = Path(os.path.realpath(directory / "spilled"))
    if spilled.name == f"{directory.name}-spilled":
        shutil.rmtree(spilled, ignore_errors=True)
    shutil.rmtree(directory, ignore_errors=True)
