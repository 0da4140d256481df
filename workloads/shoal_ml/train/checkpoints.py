"""Checkpoints: directories with a manifest, which are whole or not there.

A checkpoint is drafted in a directory of its own, its files reach the disk, then the manifest, which names each file
with its length and checksum, and only then the directory gets its name. Whoever dies at whatever moment leaves drafts,
which nobody takes for checkpoints.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import os
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from shoal_ml.train.errors import CheckpointError, StorageFullError

MANIFEST = "manifest.json"
#: What rank 0 saves a mapping as.
STATE = "state.pt"
VERSION = 1


class FileEntry(NamedTuple):
    """One file of a checkpoint, as its manifest has it."""

    nbytes: int
    checksum: str


class Checkpoint:
    """A directory with the state of a training run.

    Attributes
    ----------
    path
        The directory.
    report
        Number of the report it came with, 1 or more; 0 for a directory of yours.
    metrics
        Rank 0's metrics of that report.
    """

    def __init__(self, path: str | os.PathLike[str], *, keeper: Any = None) -> None:
        """Open the checkpoint in a directory; *keeper* is held while it is used."""
        self.path = Path(path)
        self._keeper = keeper
        self._manifest = _read_manifest(self.path)
        self.report = int(self._manifest.get("report", 0))
        self.metrics: dict[str, Any] = dict(self._manifest.get("metrics", {}))

    @classmethod
    def from_directory(cls, path: str | os.PathLike[str]) -> Checkpoint:
        """Make one of a directory with files of yours, to be passed to ``report``.

        Each rank may bring its own files; names that several bring must have the same content.
        """
        if not Path(path).is_dir():
            raise CheckpointError(f"`{path}` is no directory.", path=str(path))
        return cls(path)

    @property
    def files(self) -> dict[str, FileEntry]:
        """The files that its manifest names."""
        return {name: FileEntry(*entry) for name, entry in self._manifest.get("files", {}).items()}

    def load(self, *, weights_only: bool = True, map_location: Any = "cpu") -> Any:
        """Return what was passed to ``report``, read by ``torch.load``.

        Parameters
        ----------
        weights_only
            Tensors, numbers, text and containers of these only. Other objects are unpickled, which runs code that the
            file may hold: do so for files that you trust.
        map_location
            Where tensors go.

        Raises
        ------
        CheckpointError
            It is damaged, or holds something else.
        """
        import torch

        path = self.path / STATE
        if not path.exists():
            raise CheckpointError(
                f"`{self.path}` has no `{STATE}`: it was not saved from an object. `load_sharded` reads sharded ones, "
                "`path` leads to files.",
                path=str(self.path),
            )
        self.verify([STATE] if self.files else [])
        return torch.load(path, map_location=map_location, weights_only=weights_only)

    def load_sharded(self, state: dict[str, Any]) -> None:
        """Load a sharded checkpoint in place, by whatever number of ranks; all of them call this.

        *state* is as what was passed to :func:`shoal_ml.train.sharded`: modules, optimizers, tensors.
        """
        from shoal_ml.train.sharding import load_sharded

        load_sharded(self, state)

    def verify(self, names: list[str] | None = None) -> None:
        """Check files against the manifest, all by default.

        Raises
        ------
        CheckpointError
            A file is missing, has another length or another checksum, or there is no manifest.
        """
        if not self._manifest:
            raise CheckpointError(f"`{self.path}` has no `{MANIFEST}`: it is no checkpoint.", path=str(self.path))
        files = self.files
        for name in files if names is None else names:
            path = self.path / name
            if not path.is_file():
                raise CheckpointError(f"Checkpoint `{self.path}` lacks its file `{name}`.", path=str(self.path))
            if FileEntry(path.stat().st_size, checksum(path)) != files[name]:
                raise CheckpointError(
                    f"Checkpoint `{self.path}` is damaged: `{name}` is not as it was written. Take one before it.",
                    path=str(self.path),
                )

    def to_safetensors(self, path: str | os.PathLike[str], key: str | None = None) -> Path:
        """Write the tensors of what :meth:`load` returns as a safetensors file, which cannot hold code.

        Parameters
        ----------
        key
            The part to take, such as ``"model"``; everything by default.

        Raises
        ------
        CheckpointError
            That part does not exist, or is no mapping of names to tensors.
        ImportError
            safetensors is not installed: ``pip install shoal[train]``.
        """
        from shoal_ml.train.exporting import write_safetensors

        return write_safetensors(self, Path(path), key)

    def __repr__(self) -> str:
        return f"<checkpoint of report {self.report}: {self.path}>" if self.report else f"<checkpoint {self.path}>"

    def __reduce__(self) -> tuple[Any, ...]:
        return Checkpoint, (str(self.path),)


def scan(directory: Path) -> dict[str, FileEntry]:
    """Bring the files of a draft to the disk, and return their lengths and checksums."""
    found = {}
    for path in sorted(directory.rglob("*")):
        if path.is_file() and path.name != MANIFEST:
            with open(path, "rb") as file:
                os.fsync(file.fileno())
            found[path.relative_to(directory).as_posix()] = FileEntry(path.stat().st_size, checksum(path))
    return found


def commit(draft: Path, target: Path, about: Mapping[str, Any], files: Mapping[str, FileEntry]) -> Checkpoint:
    """Make a checkpoint of a draft whose files are on the disk."""
    for name, entry in files.items():
        path = draft / name
        if not path.is_file() or path.stat().st_size != entry.nbytes:
            raise CheckpointError(
                f"File `{name}` of a checkpoint has not arrived in `{draft}` as it was written. Is `storage` the same "
                "directory for all ranks? `RunConfig(shared=False)` sends files to the driver instead.",
                path=str(draft),
            )
    manifest = {"version": VERSION, **about, "files": {name: list(entry) for name, entry in files.items()}}
    with explaining_full(target):
        with open(draft / MANIFEST, "w") as file:
            json.dump(manifest, file, indent=1)
            file.flush()
            os.fsync(file.fileno())
        _sync_directory(draft)
        os.rename(draft, target)
        _sync_directory(target.parent)
    return Checkpoint(target)


def checksum(path: Path) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, lambda: hashlib.blake2b(digest_size=16)).hexdigest()


@contextlib.contextmanager
def explaining_full(path: Path) -> Iterator[None]:
    """Say clearly that there is no room for what is written inside."""
    try:
        yield
    except OSError as error:
        if isinstance(error, CheckpointError) or error.errno not in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
            raise
        raise storage_full(path, error) from error
    except RuntimeError as error:
        # torch's writer says so in its own words
        if _is_full(path):
            raise storage_full(path, error) from error
        raise


def storage_full(path: Path, error: BaseException) -> StorageFullError:
    return StorageFullError(
        f"There is no room for a checkpoint in `{path.parent}` ({_free(path):,} bytes are free): {error}. Checkpoints "
        "before it are kept; free some room or let `CheckpointConfig(keep=…)` keep fewer, and `resume` the run.",
        path=str(path),
    )


def _is_full(path: Path) -> bool:
    return _free(path) < 1 << 20


def _free(path: Path) -> int:
    parent = next(one for one in (path, *path.parents) if one.exists())
    return shutil.disk_usage(parent).free


def _read_manifest(path: Path) -> dict[str, Any]:
    try:
        manifest = json.loads((path / MANIFEST).read_text())
    except FileNotFoundError:
        return {}
    except ValueError as error:
        raise CheckpointError(f"`{path / MANIFEST}` cannot be read: {error}.", path=str(path)) from None
    if manifest.get("version") != VERSION:
        raise CheckpointError(f"`{path}` was written by another version of shoal.", path=str(path))
    return dict(manifest)


def _sync_directory(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
