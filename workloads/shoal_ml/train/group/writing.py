"""How a rank writes its part of a checkpoint."""

from __future__ import annotations

import concurrent.futures
import shutil
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import shoal
from shoal_ml.train.checkpoints import STATE, Checkpoint, explaining_full, scan
from shoal_ml.train.group.reports import Saved
from shoal_ml.train.sharding import Sharded


class CheckpointWriter:
    """Writes what one rank passes to ``report``.

    Parameters
    ----------
    rank
        The rank.
    drafts
        Directory where all ranks draft one checkpoint, ``drafts / number``; None if this rank cannot write there.
    asynchronous
        Whether to write in the background; at most one checkpoint is being written.
    send
        Called with the number and what was written in the background.
    """

    def __init__(self, rank: int, drafts: Path | None, asynchronous: bool, send: Callable[[int, Saved], None]) -> None:
        self._rank = rank
        self._drafts = drafts
        self._send = send
        self._pool = concurrent.futures.ThreadPoolExecutor(1, "shoal-checkpoint") if asynchronous else None
        self._under_way: concurrent.futures.Future[None] | None = None

    def write(self, number: int, value: Any) -> Saved | None:
        """Write a checkpoint; returns its files, or None if they are sent later."""
        if self._pool is None:
            return self._write(number, value)
        self.finish()
        copied = copy_to_host(value)
        self._under_way = self._pool.submit(lambda: self._send(number, self._write(number, copied)))
        return None

    def has_part(self, value: Any) -> bool:
        """Whether this rank writes something of *value*: one object is saved by rank 0 alone."""
        return value is not None and (self._rank == 0 or isinstance(value, (Checkpoint, Sharded)))

    def finish(self) -> None:
        """Wait for what is being written, and raise what went wrong with it."""
        if self._under_way is not None:
            under_way, self._under_way = self._under_way, None
            under_way.result()

    def close(self) -> None:
        """Let the thread go."""
        if self._pool is not None:
            self._pool.shutdown()

    def _write(self, number: int, value: Any) -> Saved:
        if self._drafts is None:
            with tempfile.TemporaryDirectory(prefix="shoal-checkpoint-") as directory:
                return self._write_into(Path(directory), value, keeps=False)
        return self._write_into(self._drafts / str(number), value, keeps=True)

    def _write_into(self, directory: Path, value: Any, *, keeps: bool) -> Saved:
        with explaining_full(directory):
            # The others may be writing there too: what this rank wrote is found in a directory of its own first.
            directory.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryDirectory(prefix=".rank-", dir=directory) as own:
                save(Path(own), value)
                files = scan(Path(own))
                if not keeps:
                    return Saved(files, shoal.put(read_all(Path(own), files)))
                for name in files:
                    (directory / name).parent.mkdir(parents=True, exist_ok=True)
                    (Path(own) / name).replace(directory / name)
        return Saved(files)


def save(directory: Path, value: Any) -> None:
    """Write *value* as files into a directory."""
    if isinstance(value, Checkpoint):
        shutil.copytree(value.path, directory, dirs_exist_ok=True, ignore=shutil.ignore_patterns("manifest.json"))
    elif isinstance(value, Sharded):
        value.save(directory)
    else:
        import torch

        torch.save(value, directory / STATE)


def read_all(directory: Path, names: Any) -> dict[str, Any]:
    """Return the content of files as arrays, which travel without being copied."""
    import numpy as np

    return {name: np.fromfile(directory / name, dtype=np.uint8) for name in names}


def write_all(directory: Path, content: Mapping[str, Any]) -> None:
    """Write what :func:`read_all` has returned."""
    for name, array in content.items():
        path = directory / name
        path.parent.mkdir(parents=True, exist_ok=True)
        with explaining_full(directory), open(path, "wb") as file:
            file.write(memoryview(array))


def copy_to_host(value: Any) -> Any:
    """Return a copy of a state that training does not change any more."""
    if isinstance(value, Sharded):
        return value.staged()
    import copy

    import torch

    if isinstance(value, torch.Tensor):
        return value.detach().to("cpu", copy=True)
    if isinstance(value, Mapping):
        return {name: copy_to_host(one) for name, one in value.items()}
    if isinstance(value, (list, tuple)) and type(value) in (list, tuple):
        return type(value)(copy_to_host(one) for one in value)
    return value if isinstance(value, Checkpoint) else copy.deepcopy(value)
