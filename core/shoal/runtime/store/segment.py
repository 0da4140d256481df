"""Segments: files that hold the frames of one value, and how they are read.

Whoever reads a segment holds a shared lock on its file as long as it is mapped; whoever wants to write over it, move
it to disk or give its memory back needs the exclusive one. The kernel keeps both, so a reader that dies lets go of
what it had. A lock says nothing about the *name*: a file may have been freed, and used again for another object,
between being opened and being locked, so a reader looks at the name once more when it has the lock.
"""

from __future__ import annotations

import fcntl
import mmap
import os
import threading
import time
import weakref
from collections.abc import Sequence

from shoal.runtime.serialization import Frame

#: Frames begin at multiples of the first; those of the second size or more at a page, as copying there is fastest.
ALIGNMENT, LARGE, PAGE = 64, 1 << 20, 4096
#: What this process has mapped, by mapping: where the segment was then.
_mappings: weakref.WeakKeyDictionary[mmap.mmap, str] = weakref.WeakKeyDictionary()
_mappings_lock = threading.Lock()
#: Seconds that a reader waits for a segment which is on its way to disk.
LOCK_TIMEOUT = 60.0
#: In the directory of a node's store: segments in memory, those on disk (a link), and what the rest is for is said
#: in :mod:`shoal.runtime.store.room`.
OBJECTS, SPILLED = "objects", "spilled"


class SegmentGone(Exception):
    """The segment was freed, its node has ended, or its file is damaged; the text says which."""


def map_segment(path: str, sizes: Sequence[int]) -> list[Frame]:
    """Map a segment of this machine, in memory or on disk, and return its frames: private, writable views.

    Raises
    ------
    SegmentGone
        It is not there, or too short.
    """
    descriptor = open_locked(path)
    try:
        nbytes = segment_nbytes(sizes)
        if os.fstat(descriptor).st_size < nbytes:
            raise SegmentGone(f"the file of `{os.path.basename(path)}` is damaged: it is too short")
        if not any(sizes):
            return [b"" for _ in sizes]
        try:
            # The mapping keeps a duplicate of the descriptor, and with it the lock, until the last view of it goes.
            mapping = mmap.mmap(descriptor, nbytes, access=mmap.ACCESS_COPY)
            with _mappings_lock:
                _mappings[mapping] = path
            whole = memoryview(mapping)
        except OSError:  # no more descriptors or address space: a copy needs neither
            whole = memoryview(bytearray(_read(descriptor, 0, nbytes)))
        return split(whole, sizes)
    finally:
        os.close(descriptor)


def mappings() -> list[tuple[mmap.mmap, str]]:
    """Return what this process has mapped, and where each segment was then."""
    with _mappings_lock:
        return list(_mappings.items())


def map_whole(path: str) -> memoryview:
    """Map a segment for whoever passes its bytes on, without looking into them; read-only.

    Raises
    ------
    SegmentGone
        It is not there.
    OSError
        There are no more descriptors, or no address space.
    """
    descriptor = open_locked(path)
    try:
        return memoryview(mmap.mmap(descriptor, 0, access=mmap.ACCESS_READ))
    finally:
        os.close(descriptor)


def open_locked(path: str) -> int:
    """Open a segment for reading, with a shared lock on it, and note that it was used.

    Raises
    ------
    SegmentGone
        It is neither in memory nor on disk.
    """
    places = (path, spilled_path(path))
    # Twice, because it may be moved from the first place to the second while we look.
    for place in (*places, *places):
        try:
            descriptor = os.open(place, os.O_RDONLY | os.O_CLOEXEC)
        except FileNotFoundError:
            continue
        except OSError as error:
            raise SegmentGone(f"`{place}` cannot be opened: {error.strerror}") from None
        try:
            if wait_for_lock(descriptor, exclusive=False) and is_named(descriptor, place):
                os.utime(descriptor)
                return descriptor
        except BaseException:
            os.close(descriptor)
            raise
        os.close(descriptor)
    raise SegmentGone(f"`{os.path.basename(path)}` was freed, or its node has ended")


def try_lock(descriptor: int, *, exclusive: bool) -> bool:
    """Lock a file, for all descriptors that were duplicated from this one, unless somebody else has."""
    try:
        fcntl.flock(descriptor, (fcntl.LOCK_EX if exclusive else fcntl.LOCK_SH) | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def wait_for_lock(descriptor: int, *, exclusive: bool, timeout: float = LOCK_TIMEOUT) -> bool:
    """As :func:`try_lock`, for *timeout* seconds; no lock of ours is held for longer than a copy takes."""
    pause, deadline = 0.0001, time.monotonic() + timeout
    while not try_lock(descriptor, exclusive=exclusive):
        if time.monotonic() > deadline:
            return False
        time.sleep(pause)
        pause = min(2 * pause, 0.01)
    return True


def unlock(descriptor: int) -> None:
    fcntl.flock(descriptor, fcntl.LOCK_UN)


def is_named(descriptor: int, path: str) -> bool:
    """Whether the open file is still the one at *path*."""
    try:
        there = os.stat(path)
    except OSError:
        return False
    return os.path.samestat(os.fstat(descriptor), there)


def spilled_path(path: str) -> str:
    """Return where a segment is when it is not in memory."""
    objects, name = os.path.split(path)
    return os.path.join(os.path.dirname(objects), SPILLED, name)


def split(whole: memoryview, sizes: Sequence[int]) -> list[Frame]:
    """Cut the bytes of a segment into its frames."""
    positions, _ = layout(sizes)
    return [whole[position : position + size] for position, size in zip(positions, sizes, strict=True)]


def segment_nbytes(sizes: Sequence[int]) -> int:
    return layout(sizes)[1]


def layout(sizes: Sequence[int]) -> tuple[list[int], int]:
    """Return where the frames of these sizes begin in a segment, and how long it is."""
    positions = []
    end = 0
    for size in sizes:
        position = _round_up(end, PAGE if size >= LARGE else ALIGNMENT)
        positions.append(position)
        end = _round_up(position + size, ALIGNMENT)
    return positions, end


def _round_up(position: int, unit: int) -> int:
    return -(-position // unit) * unit


def _read(descriptor: int, offset: int, length: int) -> bytes:
    """Read as much of *length* bytes as there is."""
    pieces = []
    while length > 0:
        piece = os.pread(descriptor, length, offset)
        if not piece:
            break
        pieces.append(piece)
        offset += len(piece)
        length -= len(piece)
    return pieces[0] if len(pieces) == 1 else b"".join(pieces)
