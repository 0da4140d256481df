"""Connection files: how kernels, terminals and the panel find this user's clusters.

Each cluster has a directory in the Jupyter runtime directory, entered by its user alone, with ``connection.json``
and, for clusters with TLS, the key and certificates in files of their own. Whoever keeps the cluster alive (the
head of an embedded one, the driver attached to another) holds a lock on ``alive``. The kernel drops that lock
however the process ends, so a file whose lock is free is *proven* dead, and is removed by whoever notices.
"""

from __future__ import annotations

import contextlib
import dataclasses
import errno
import fcntl
import json
import os
import shutil
import socket
from pathlib import Path
from typing import Any

import psutil

from shoal.model.errors import ConnectError

_CONNECTION = "connection.json"
_LOCK = "alive"
_TLS = {"ca": "ca.pem", "cert": "cert.pem", "key": "key.pem"}


@dataclasses.dataclass(frozen=True, slots=True)
class Connection:
    """What a connection file says. It holds no secret."""

    id: str
    name: str
    #: Address of the Dask scheduler.
    address: str
    #: ``embedded`` (lives and dies with its driver), ``attached`` (a Dask cluster that a driver uses) or ``detached``
    #: (lives without a driver, until it is stopped).
    kind: str
    #: Process id of the driver; of a detached cluster, of the process that keeps it.
    pid: int
    host: str
    #: Unix seconds.
    created: float
    #: Path of the notebook or script of the driver; "" if unknown.
    notebook: str
    python: str
    #: Whether the directory holds TLS files.
    tls: bool = False
    #: Where its keeper is told to scale or stop it (:mod:`shoal.launch.control`); "" for the scheduler's address.
    control: str = ""
    #: Id of the driver to ask that instead, of an attached cluster.
    owner: str = ""

    def to_json(self) -> dict[str, Any]:
        return dataclasses.asdict(self)

    @property
    def directory(self) -> Path:
        return registry_directory() / self.id

    def tls_files(self) -> dict[str, str]:
        """Return the paths of ``ca``, ``cert`` and ``key``; empty for a cluster without TLS."""
        return {role: str(self.directory / name) for role, name in _TLS.items()} if self.tls else {}


class Registration:
    """A cluster's entry while this process keeps it alive. :meth:`remove` ends it."""

    def __init__(self, connection: Connection, lock: int) -> None:
        self.connection = connection
        self._lock = lock

    def remove(self) -> None:
        """Remove the entry; harmless the second time."""
        if self._lock >= 0:
            shutil.rmtree(self.connection.directory, ignore_errors=True)
            os.close(self._lock)
            self._lock = -1


def registry_directory() -> Path:
    """Return the directory of this user's connection files."""
    from jupyter_core.paths import jupyter_runtime_dir

    return Path(jupyter_runtime_dir()) / "shoal"


def prepare_registry() -> Path:
    """Return the directory of this user's connection files, which is there now.

    Raises
    ------
    ConnectError
        It cannot be made, or not be written to.
    """
    top = registry_directory()
    try:
        top.mkdir(mode=0o700, parents=True, exist_ok=True)
        if not os.access(top, os.W_OK | os.X_OK):
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(top))
    except OSError as error:
        raise ConnectError(
            f"The cluster's connection file has no place: `{top}` cannot be written to ({error.strerror}). It is in "
            "Jupyter's runtime directory: let the environment variable `JUPYTER_RUNTIME_DIR` name a directory of yours."
        ) from error
    return top


def register(connection: Connection, tls: dict[str, str] | None = None) -> Registration:
    """Write the entry of a cluster and hold its lock.

    Parameters
    ----------
    tls
        PEM texts of ``ca``, ``cert`` and ``key``.

    Raises
    ------
    ConnectError
        There is no place for it.
    """
    connection = dataclasses.replace(connection, tls=bool(tls))
    top = prepare_registry()
    # Made under a name that nobody lists and moved into place when complete.
    draft = top / f".{connection.id}.{os.getpid()}"
    draft.mkdir(mode=0o700)
    lock = os.open(draft / _LOCK, os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600)
    fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    for role, text in (tls or {}).items():
        _write_private(draft / _TLS[role], text)
    _write_private(draft / _CONNECTION, json.dumps(connection.to_json(), indent=2))
    draft.rename(top / connection.id)
    return Registration(connection, lock)


def list_clusters() -> list[Connection]:
    """Return this user's live clusters, oldest first; entries of dead ones are removed."""
    found = []
    with contextlib.suppress(FileNotFoundError):
        for directory in registry_directory().iterdir():
            if directory.name.startswith("."):
                _remove_dead_draft(directory)
                continue
            connection = _read(directory)
            if connection is not None:
                found.append(connection)
    found.sort(key=lambda connection: connection.created)
    # Several drivers may be attached to one cluster: it is listed once, as what keeps it if there is such.
    found.sort(key=lambda entry: entry.kind == "attached", reverse=True)
    return sorted({entry.address: entry for entry in reversed(found)}.values(), key=lambda entry: entry.created)


def list_damaged() -> dict[str, str]:
    """Return the entries whose connection file cannot be read: by id, what is wrong with it."""
    found = {}
    with contextlib.suppress(FileNotFoundError):
        for directory in registry_directory().iterdir():
            if not directory.name.startswith(".") and directory.is_dir():
                try:
                    _parse(directory)
                except FileNotFoundError:
                    pass  # it is being removed
                except (OSError, ValueError, TypeError) as error:
                    found[directory.name] = (
                        f"Its connection file cannot be read: {error}. It may be of another version of shoal."
                    )
    return found


def remove_damaged(cluster_id: str) -> None:
    """Remove an entry of :func:`list_damaged`."""
    if cluster_id in list_damaged():
        shutil.rmtree(registry_directory() / cluster_id, ignore_errors=True)


def find(cluster_id: str) -> Connection | None:
    """Return the live cluster with this id."""
    if not cluster_id or "/" in cluster_id or cluster_id.startswith("."):
        return None
    return _read(registry_directory() / cluster_id)


def find_by_name(name: str) -> Connection | None:
    """Return the newest live cluster whose id, name or address is *name*."""
    return next((c for c in reversed(list_clusters()) if name in (c.id, c.name, c.address)), None)


def _parse(directory: Path) -> Connection:
    return Connection(**json.loads((directory / _CONNECTION).read_text()))


def _read(directory: Path) -> Connection | None:
    try:
        connection = _parse(directory)
    except (OSError, ValueError, TypeError):
        return None
    if connection.host == socket.gethostname() and _is_dead(directory):
        shutil.rmtree(directory, ignore_errors=True)
        return None
    return connection


def _remove_dead_draft(draft: Path) -> None:
    """Remove what a process has left that was killed while it registered: its process id is in the name."""
    with contextlib.suppress(OSError, ValueError):
        if not psutil.pid_exists(int(draft.name.rpartition(".")[2])):
            shutil.rmtree(draft, ignore_errors=True)


def _is_dead(directory: Path) -> bool:
    try:
        lock = os.open(directory / _LOCK, os.O_RDWR | os.O_CLOEXEC)
    except OSError:
        return True
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    finally:
        os.close(lock)
    return True


def _write_private(path: Path, text: str) -> None:
    descriptor = os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_CLOEXEC, 0o600)
    with os.fdopen(descriptor, "w") as file:
        file.write(text)
