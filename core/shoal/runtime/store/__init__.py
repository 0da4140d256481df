"""The object store of a node: one file in shared memory per large value.

A *segment* is a file in a directory that only this user may enter (``/dev/shm`` where there is one). It holds the
frames of one value, each aligned to a cache line. Whoever runs on the node maps it: privately and writable, so that
a reader may write to its arrays without an error and without changing anyone else's copy. Its owner frees it by name;
its memory goes, or is used again, when the last mapping has gone. :mod:`~shoal.runtime.store.room` keeps the store
within its limits. The node agent's template process removes the directory when the node ends, however it ends.
"""

from __future__ import annotations

import contextlib
import dataclasses
import errno
import os
import shutil
import threading
import time
from collections.abc import Sequence

from shoal.runtime.environment import spill_root, store_root
from shoal.runtime.serialization import Frame
from shoal.runtime.store.room import COPY_SUFFIX, Draft, Found, Limits, Room, is_copy, nbytes_of
from shoal.runtime.store.segment import (
    OBJECTS,
    SegmentGone,
    map_segment,
    map_whole,
    segment_nbytes,
    spilled_path,
    split,
)

#: Share of the node's memory that a store may use unless it is told, and of what the file system has left.
MEMORY_SHARE, FREE_SHARE = 0.3, 0.9
#: Share of what is free on disk that it may use there.
DISK_SHARE = 0.5

_rooms: dict[str, Room] = {}
_rooms_lock = threading.Lock()


def default_limits(node_memory: float) -> Limits:
    """Return the limits of a store on a node that has *node_memory* bytes, and never more than there is room for."""
    memory = min(MEMORY_SHARE * node_memory, FREE_SHARE * shutil.disk_usage(store_root()).free)
    directory = spill_root().absolute()
    while not directory.exists():  # it will be made when it is needed
        directory = directory.parent
    disk = DISK_SHARE * shutil.disk_usage(directory).free
    return Limits(int(memory), int(disk))


@dataclasses.dataclass(frozen=True, slots=True)
class Store:
    """A node's directory of segments, and the address of the agent that serves it to other machines."""

    directory: str
    holder: str

    @staticmethod
    def create(node_id: str, holder: str, limits: Limits | None = None) -> Store:
        """Make the directory of a new node, accessible to this user alone."""
        name = f"shoal-{os.getuid()}-{node_id}"
        directory = store_root() / name
        directory.mkdir(mode=0o700)
        if limits is None:
            limits = default_limits(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"))
        Room.create(str(directory), limits, str(spill_root() / f"{name}-spilled"))
        return Store(str(directory), holder)

    @property
    def room(self) -> Room:
        """What this process knows of the store's limits and keeps of its files."""
        return room_of(self.directory)

    def reachable(self) -> bool:
        """Whether this process is on the store's machine (and the store is its user's)."""
        try:
            return os.stat(self.directory).st_uid == os.getuid()
        except OSError:
            return False

    def path(self, name: str) -> str:
        """Return where the segment *name* is."""
        return os.path.join(self.directory, OBJECTS, name)

    def write(self, name: str, frames: Sequence[Frame]) -> tuple[str, tuple[int, ...]]:
        """Write *frames* as segment *name*; return its path and the sizes of the frames in bytes.

        Waits for room if there is none; others may be about to free what they hold.

        Raises
        ------
        ObjectStoreFullError
            No room, and none was made in time.
        OSError
            The store is gone. Nothing is left behind in either case.
        """
        sizes = tuple(nbytes_of(frame) for frame in frames)
        path, room = self.path(name), self.room
        nbytes, deadline = segment_nbytes(sizes), time.monotonic() + room.limits.patience
        while True:
            draft = room.take(nbytes, deadline)
            try:
                draft.fill(frames)
                draft.publish(path)
                return path, sizes
            except BaseException as error:
                draft.discard()
                if not is_full(error):
                    raise
                if time.monotonic() > deadline:
                    raise room.full(nbytes) from None
                room.make_room(nbytes, no_space=True)

    def free(self, name: str) -> None:
        """Nobody holds the object any more; harmless if the segment is gone."""
        with contextlib.suppress(OSError):
            self.room.free(name)

    def free_of(self, owner_id: str) -> None:
        """Free every segment of this owner's."""
        with contextlib.suppress(OSError):
            for found in self.room.segments():
                if found.name.startswith(owner_id + "."):
                    self.free(found.name)

    def tend(self) -> None:
        """Do what is best done in the background, from time to time; harmless if the store is gone."""
        with contextlib.suppress(FileNotFoundError):
            self.room.tend()

    def used(self) -> int:
        """Return the bytes that it has in memory; 0 if it is gone."""
        with contextlib.suppress(OSError):
            return self.room.ledger.read()
        return 0

    def segments(self) -> list[Found]:
        """Return the segments that there are."""
        return self.room.segments()

    def remove(self) -> None:
        """Remove the store, and what it has on disk; harmless if it is gone."""
        with _rooms_lock:
            room = _rooms.pop(self.directory, None)
        if room is not None:
            room.close()
        shutil.rmtree(os.path.realpath(os.path.join(self.directory, "spilled")), ignore_errors=True)
        shutil.rmtree(self.directory, ignore_errors=True)


def room_of(directory: str) -> Room:
    """Return the room of the store at *directory*.

    Raises
    ------
    OSError
        There is no store (any more).
    """
    room = _rooms.get(directory)
    if room is None:
        with _rooms_lock:
            room = _rooms.get(directory)
            if room is None:
                room = _rooms[directory] = Room(directory)
    return room


def store_directory(path: str) -> str:
    """Return the directory of the store that has the segment at *path*."""
    return os.path.dirname(os.path.dirname(path))


def is_here(path: str) -> bool:
    """Whether the segment at *path* is, or was, in a store of this machine."""
    return os.path.isdir(os.path.dirname(path))


def is_segment_here(path: str) -> bool:
    """Whether the segment at *path* is in its store, in memory or on disk."""
    return os.path.exists(path) or os.path.exists(spilled_path(path))


def free_segment(path: str) -> None:
    """Free a segment of a store of this machine; harmless if it, or the store, is gone."""
    with contextlib.suppress(OSError):
        room_of(store_directory(path)).free(os.path.basename(path))


def is_full(error: BaseException) -> bool:
    """Whether a file system has no room, though the store's limit is not reached."""
    return isinstance(error, OSError) and error.errno == errno.ENOSPC


__all__ = [
    "COPY_SUFFIX",
    "Draft",
    "Found",
    "Limits",
    "Room",
    "SegmentGone",
    "Store",
    "default_limits",
    "free_segment",
    "is_copy",
    "is_here",
    "is_segment_here",
    "map_segment",
    "map_whole",
    "segment_nbytes",
    "split",
    "store_directory",
]
