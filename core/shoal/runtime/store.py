"""The object store of a node: one file in shared memory per large value.

A *segment* is a file in a directory that only this user may enter (``/dev/shm`` where there is one). It holds the
frames of one value, each aligned to a cache line. Whoever runs on the node maps it: privately and writable, so that
a reader may write to its arrays without an error and without changing anyone else's copy. Files are removed by name
as soon as the owner frees the object; the kernel keeps the memory until the last mapping goes. The node agent's
template process removes the directory when the node ends, however it ends.
"""

from __future__ import annotations

import contextlib
import dataclasses
import mmap
import os
import shutil
import tempfile
from collections.abc import Sequence
from pathlib import Path

from shoal.runtime.serialization import Frame

_ALIGNMENT = 64


def default_root() -> Path:
    """Where stores live: shared memory if there is any, else the temporary directory; ``SHOAL_STORE_DIR`` overrides."""
    chosen = os.environ.get("SHOAL_STORE_DIR")
    if chosen:
        return Path(chosen)
    shared = Path("/dev/shm")
    return shared if os.access(shared, os.W_OK) else Path(tempfile.gettempdir())


@dataclasses.dataclass(frozen=True, slots=True)
class Store:
    """A node's directory of segments, and the address of the agent that serves it to other machines."""

    directory: str
    holder: str

    @staticmethod
    def create(node_id: str, holder: str) -> Store:
        """Make the directory of a new node, accessible to this user alone."""
        directory = default_root() / f"shoal-{os.getuid()}-{node_id}"
        directory.mkdir(mode=0o700)
        return Store(str(directory), holder)

    def reachable(self) -> bool:
        """Whether this process is on the store's machine (and the store is its user's)."""
        try:
            return os.stat(self.directory).st_uid == os.getuid()
        except OSError:
            return False

    def write(self, name: str, frames: Sequence[Frame]) -> tuple[str, tuple[int, ...]]:
        """Write *frames* as segment *name*; return its path and the sizes of the frames in bytes.

        Raises
        ------
        OSError
            No room, or the store is gone. Nothing is left behind.
        """
        sizes = tuple(_nbytes(frame) for frame in frames)
        path = os.path.join(self.directory, name)
        descriptor = os.open(path, os.O_CREAT | os.O_EXCL | os.O_RDWR | os.O_CLOEXEC, 0o600)
        try:
            position = 0
            for frame, size in zip(frames, sizes, strict=True):
                view = memoryview(frame).cast("B") if size else memoryview(b"")
                written = 0
                while written < size:
                    written += os.pwrite(descriptor, view[written:], position + written)
                position += _padded(size)
            os.ftruncate(descriptor, position)
        except BaseException:
            os.unlink(path)
            raise
        finally:
            os.close(descriptor)
        return path, sizes

    def remove(self) -> None:
        """Remove the directory and all in it."""
        shutil.rmtree(self.directory, ignore_errors=True)

    def remove_of(self, owner_id: str) -> None:
        """Remove every segment that *owner_id* wrote."""
        try:
            names = os.listdir(self.directory)
        except OSError:
            return
        for name in names:
            if name.startswith(owner_id + "."):
                unlink_quietly(os.path.join(self.directory, name))


def map_segment(path: str, sizes: Sequence[int]) -> list[Frame]:
    """Map a segment of this machine and return its frames: private, writable views.

    Raises
    ------
    FileNotFoundError
        The segment is not on this machine, or was freed.
    """
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        if not any(sizes):
            return [b"" for _ in sizes]
        mapping = mmap.mmap(descriptor, 0, access=mmap.ACCESS_COPY)
    finally:
        os.close(descriptor)
    return split(memoryview(mapping), sizes)


def split(whole: memoryview, sizes: Sequence[int]) -> list[Frame]:
    """Cut the bytes of a segment into its frames."""
    frames: list[Frame] = []
    position = 0
    for size in sizes:
        frames.append(whole[position : position + size])
        position += _padded(size)
    return frames


def segment_nbytes(sizes: Sequence[int]) -> int:
    return sum(_padded(size) for size in sizes)


def read_range(path: str, offset: int, length: int) -> bytes | None:
    """Read part of a segment for another machine; None if it is gone."""
    try:
        with open(path, "rb") as file:
            file.seek(offset)
            return file.read(length)
    except OSError:
        return None


def unlink_quietly(path: str) -> None:
    """Remove a segment; one that is gone already is fine."""
    with contextlib.suppress(OSError):
        os.unlink(path)


def _nbytes(frame: Frame) -> int:
    return frame.nbytes if isinstance(frame, memoryview) else len(frame)


def _padded(size: int) -> int:
    return -(-size // _ALIGNMENT) * _ALIGNMENT
