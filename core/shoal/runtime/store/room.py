"""Room in a node's store: who needs it makes it.

No process keeps the store. What there is lies in its directory, who uses what is known by locks on the files, and how
much there is by the ledger; so whoever runs on the node can write a segment, and whoever finds no room for it moves
the segments that were used least recently, and that nobody has mapped, to disk. A process that dies in the middle of
it leaves a file that nobody has locked, which the next one takes away.

===============  =========================================================================================
``objects/``     segments, by name
``drafts/``      segments being written; their writers hold them locked
``leaving/``     segments whose object was freed: as soon as nobody maps them they go, or become warm
``warm/``        files of freed segments: writing over memory that is there already is several times faster
``spilled``      link to the directory on disk: segments moved there, by name, which are mapped from there
``layout.json``  the limits
``ledger``       bytes in the first four, see :mod:`shoal.runtime.store.ledger`
``spilling``     locked by who makes room
===============  =========================================================================================
"""

from __future__ import annotations

import contextlib
import dataclasses
import errno
import json
import mmap
import os
import threading
import time
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

from shoal.model.amounts import format_nbytes
from shoal.model.errors import ObjectStoreFullError
from shoal.runtime.serialization import Frame
from shoal.runtime.store.ledger import Account, Ledger
from shoal.runtime.store.segment import OBJECTS, SPILLED, is_named, layout, try_lock, unlock

DRAFTS, LEAVING, WARM, LAYOUT, LEDGER, SPILLING = "drafts", "leaving", "warm", "layout.json", "ledger", "spilling"
#: In the order in which a file moves from one to the next.
IN_MEMORY = (DRAFTS, OBJECTS, LEAVING, WARM)
#: Ends the names of segments that are copies of another node's: they need not be kept.
COPY_SUFFIX = ".copy"
#: Ends the names of files that are on their way to disk.
DRAFT_SUFFIX = ".draft"

#: Segments from this size on that take a warm file are written through a mapping, which is kept for the next. In a new
#: file that would be twice as slow: mapping its pages clears them first.
MAPPED_NBYTES = 4 << 20
#: Mappings kept, and bytes copied before other threads get their turn where the copy itself does not let them.
MAX_MAPPINGS, PIECE = 32, 8 << 20
#: A warm file is used for segments that need a quarter of it or more.
WASTE = 4
#: Files smaller than this are not kept warm, nor in all more than this share of the limit, nor for longer than that.
WARM_NBYTES, WARM_SHARE, WARM_SECONDS = 64 << 10, 0.25, 10.0
#: When more than the first share of the limit is in use, segments are moved to disk until it is less than the second.
HIGH, LOW = 0.8, 0.7
#: Freeing more than this at once takes long enough to be left to :meth:`Room.tend`.
SLOW_NBYTES = 64 << 20
#: How many of the biggest segments an error names.
NAMED = 5


@dataclasses.dataclass(frozen=True)
class Limits:
    """How much a store may hold."""

    #: Bytes in memory, and on disk.
    memory: int
    disk: int
    #: Seconds that a write waits for room before it fails.
    patience: float = 10.0


class Found(NamedTuple):
    """A file of the store."""

    path: str
    name: str
    nbytes: int
    used_at: float
    inode: int


class Draft:
    """A segment being written: give it its bytes, then its name; without that it goes."""

    def __init__(self, room: Room, path: str, descriptor: int, nbytes: int, warm_nbytes: int = 0) -> None:
        self._room = room
        self._path = path
        self._descriptor = descriptor
        self.nbytes = nbytes
        # Of a file with a hole, a mapping might find no memory, which ends the process.
        self.is_mapped = MAPPED_NBYTES <= nbytes <= warm_nbytes

    def fill(self, frames: Sequence[Frame]) -> None:
        """Write *frames*, each aligned.

        Raises
        ------
        OSError
            The file system is full (``ENOSPC``), though the limit is not reached.
        """
        positions, _ = layout([nbytes_of(frame) for frame in frames])
        if not self.is_mapped:
            for position, frame in zip(positions, frames, strict=True):
                self.write(position, frame)
            return
        with self._room.mapping(self._descriptor, self.nbytes) as target:
            for position, frame in zip(positions, frames, strict=True):
                copy(frame, target[position : position + nbytes_of(frame)])

    def write(self, position: int, data: Frame) -> None:
        """Write some of it, making room if the file system is full before the limit is reached.

        Raises
        ------
        OSError
            No room could be made (``ENOSPC``).
        """
        size = nbytes_of(data)
        view = memoryview(data).cast("B") if size else memoryview(b"")
        written = 0
        while written < size:
            try:
                written += os.pwrite(self._descriptor, view[written:], position + written)
            except OSError as error:
                if error.errno != errno.ENOSPC or not self._room.make_room(size - written, no_space=True):
                    raise

    def publish(self, path: str) -> None:
        """Make it the segment at *path*, complete as it is; readers come as soon as it has the name.

        Raises
        ------
        FileExistsError
            There is one of this name. Discard the draft then.
        """
        os.utime(self._descriptor)
        os.link(self._path, path)
        os.unlink(self._path)
        unlock(self._descriptor)  # for the duplicate that a mapping may hold, too
        os.close(self._descriptor)

    def discard(self) -> None:
        """It will not be finished."""
        with contextlib.suppress(OSError), self._room.ledger.changing() as account:
            remove(self._path, self._descriptor, account)
        os.close(self._descriptor)


class Room:
    """See the module's description. For any thread of any process of the store's user."""

    def __init__(self, directory: str) -> None:
        self.directory = directory
        with open(os.path.join(directory, LAYOUT), encoding="utf-8") as file:
            self.limits = Limits(**json.load(file))
        self.ledger = Ledger(os.path.join(directory, LEDGER))
        self._spilled = os.path.join(directory, SPILLED)
        self._numbers = iter(range(1 << 62))
        #: Mappings of files that this process has written, by inode: a mapping keeps the file's number from being
        #: given to another.
        self._mappings: OrderedDict[int, tuple[mmap.mmap, int]] = OrderedDict()
        self._mappings_lock = threading.Lock()
        #: What kept segments from being moved to disk the last time.
        self._trouble = ""

    @staticmethod
    def create(directory: str, limits: Limits, spill: str) -> Room:
        """Lay out a new store in an empty *directory*; *spill* is the directory on disk, made when first used."""
        for name in IN_MEMORY:
            os.mkdir(os.path.join(directory, name), 0o700)
        os.symlink(spill, os.path.join(directory, SPILLED))
        Ledger.create(os.path.join(directory, LEDGER)).close()
        with open(os.path.join(directory, SPILLING), "xb"):
            pass
        with open(os.path.join(directory, LAYOUT), "x", encoding="utf-8") as file:
            json.dump(dataclasses.asdict(limits), file)
        return Room(directory)

    # -- writing -------------------------------------------------------------------------------------------------

    def take(self, nbytes: int, deadline: float) -> Draft:
        """Return a draft of *nbytes*, making room if need be, and waiting for it until *deadline* (monotonic).

        Raises
        ------
        ObjectStoreFullError
            There was none. The error names the biggest segments.
        OSError
            The store is gone.
        """
        if nbytes > self.limits.memory:
            size, whole = format_nbytes(nbytes), format_nbytes(self.limits.memory)
            raise ObjectStoreFullError(
                f"A value of {size} is larger than the whole object store of its node ({whole}). Split it, or start "
                "the cluster with a larger `object_store_memory`.",
                needed=nbytes,
                limit=self.limits.memory,
                holders=(),
            )
        while True:
            with self.ledger.changing() as account:
                draft = self._take_warm(nbytes, account) or self._create(nbytes, account)
            if draft is not None:
                return draft
            if not self.make_room(nbytes):
                if time.monotonic() > deadline:
                    raise self.full(nbytes)
                time.sleep(0.02)

    def _take_warm(self, nbytes: int, account: Account) -> Draft | None:
        """Take a warm file: the smallest that is large enough, or else the largest, which grows."""
        if nbytes < WARM_NBYTES:
            return None
        best: Found | None = None
        for found in self._files(WARM):
            larger = found.nbytes >= nbytes
            if found.nbytes > WASTE * nbytes or (
                not larger and account.used + nbytes - found.nbytes > self.limits.memory
            ):
                continue
            if best is None or (
                (found.nbytes < best.nbytes) if larger and best.nbytes >= nbytes else found.nbytes > best.nbytes
            ):
                best = found
        if best is None:
            return None
        path = self._new_draft()
        os.rename(best.path, path)
        descriptor = os.open(path, os.O_RDWR | os.O_CLOEXEC)
        # Somebody who opened it long ago, under its old name, may have it locked for a moment.
        if not try_lock(descriptor, exclusive=True):
            os.rename(path, os.path.join(self.directory, LEAVING, best.name))
            os.close(descriptor)
            return None
        if best.nbytes != nbytes:
            os.ftruncate(descriptor, nbytes)
            account.used += nbytes - best.nbytes
        return Draft(self, path, descriptor, nbytes, best.nbytes)

    def _create(self, nbytes: int, account: Account) -> Draft | None:
        if account.used + nbytes > self.limits.memory:
            for found in sorted(self._files(WARM), key=lambda found: found.used_at):
                self._remove_if_free(found.path, account)
                if account.used + nbytes <= self.limits.memory:
                    break
            else:
                return None
        path = self._new_draft()
        descriptor = os.open(path, os.O_CREAT | os.O_EXCL | os.O_RDWR | os.O_CLOEXEC, 0o600)
        try_lock(descriptor, exclusive=True)
        os.ftruncate(descriptor, nbytes)
        account.used += nbytes
        return Draft(self, path, descriptor, nbytes)

    def _new_draft(self) -> str:
        return os.path.join(self.directory, DRAFTS, f"{os.getpid()}.{next(self._numbers)}")

    @contextlib.contextmanager
    def mapping(self, descriptor: int, nbytes: int) -> Iterator[memoryview]:
        """Map a draft for writing; this process keeps the mapping, as faulting its pages in takes most of the time."""
        inode = os.fstat(descriptor).st_ino
        with self._mappings_lock:
            mapping, size = self._mappings.pop(inode, (None, 0))
        if mapping is None or size < nbytes:
            mapping, size = (
                mmap.mmap(descriptor, nbytes, flags=mmap.MAP_SHARED | getattr(mmap, "MAP_POPULATE", 0)),
                nbytes,
            )
        view = memoryview(mapping)
        try:
            yield view
        finally:
            view.release()
        with self._mappings_lock:
            self._mappings[inode] = (mapping, size)
            if len(self._mappings) > MAX_MAPPINGS:
                self._mappings.popitem(last=False)

    # -- freeing -------------------------------------------------------------------------------------------------

    def free(self, name: str) -> None:
        """Nobody holds the object any more: its segment goes as soon as nobody maps it."""
        leaving = os.path.join(self.directory, LEAVING, name)
        with contextlib.suppress(OSError):
            os.rename(os.path.join(self.directory, OBJECTS, name), leaving)
            self._settle(leaving, patient=False)
        with contextlib.suppress(OSError):
            os.unlink(os.path.join(self._spilled, name))

    def _settle(self, path: str, *, patient: bool) -> None:
        """Make a segment that was freed warm, or remove it; if it is mapped, or removing it takes long, later."""
        descriptor = os.open(path, os.O_RDWR | os.O_CLOEXEC)
        try:
            if not try_lock(descriptor, exclusive=True) or not is_named(descriptor, path):
                return
            nbytes = os.fstat(descriptor).st_size
            if nbytes >= WARM_NBYTES and self._warm_nbytes() + nbytes <= WARM_SHARE * self.limits.memory:
                os.utime(descriptor)
                os.rename(path, os.path.join(self.directory, WARM, os.path.basename(path)))
            elif patient or nbytes < SLOW_NBYTES:
                with self.ledger.changing() as account:
                    remove(path, descriptor, account)
        finally:
            os.close(descriptor)

    def _remove_if_free(self, path: str, account: Account) -> bool:
        """Remove a file that nobody has locked; returns whether it was."""
        try:
            descriptor = os.open(path, os.O_RDWR | os.O_CLOEXEC)
        except OSError:
            return False
        try:
            if not try_lock(descriptor, exclusive=True) or not is_named(descriptor, path):
                return False
            remove(path, descriptor, account)
            return True
        finally:
            os.close(descriptor)

    # -- making room ---------------------------------------------------------------------------------------------

    def make_room(self, nbytes: int, *, no_space: bool = False) -> bool:
        """Move segments to disk until *nbytes* more fit; returns whether there is more room than before.

        With *no_space* the file system, not the limit, says that it is full: what is there now is all that fits.
        One process does it at a time; for the others it is as if there were more room: they look again.
        """
        with self._alone() as alone:
            if not alone:
                time.sleep(0.005)
                return True
            if no_space:
                return self._shrink(max(0, min(self.limits.memory, self.ledger.read()) - nbytes), keep_warm=False)
            return self._shrink(max(0, self.limits.memory - nbytes), keep_warm=True)

    def tend(self) -> None:
        """Do what is best done in the background, from time to time: see the constants above."""
        now = time.time()
        with self.ledger.changing() as account:
            for found in (*self._files(WARM), *self._files(DRAFTS)):
                # Drafts of living writers are locked.
                if now - found.used_at > WARM_SECONDS:
                    self._remove_if_free(found.path, account)
            # A file that moves on while we look is seen twice rather than not at all.
            files = {found.inode: found.nbytes for place in IN_MEMORY for found in self._files(place)}
            used = account.used = sum(files.values())
        self._settle_all()
        if used > HIGH * self.limits.memory:
            with self._alone() as alone:
                if alone:
                    self._shrink(int(LOW * self.limits.memory), keep_warm=False)

    def _settle_all(self) -> None:
        for found in self._files(LEAVING):
            with contextlib.suppress(OSError):
                self._settle(found.path, patient=True)

    def _shrink(self, goal: int, *, keep_warm: bool) -> bool:
        """Get the bytes in use down to *goal*; returns whether they are fewer than before.

        With *keep_warm* those of warm files count as free: a writer waits who will take them, or remove them itself.
        """
        self._trouble = ""
        before = self.ledger.read() - (self._warm_nbytes() if keep_warm else 0)
        self._settle_all()
        warm = self._warm_nbytes() if keep_warm else 0
        if not keep_warm:
            with self.ledger.changing() as account:
                for found in sorted(self._files(WARM), key=lambda found: found.used_at):
                    if account.used <= goal:
                        break
                    self._remove_if_free(found.path, account)
        spilled = 0
        for found in self._files(SPILLED):
            if found.name.endswith(DRAFT_SUFFIX):  # of somebody who died: we are alone
                with contextlib.suppress(OSError):
                    os.unlink(found.path)
            else:
                spilled += found.nbytes
        # What is a copy of another node's goes first: it costs nothing.
        candidates = sorted(self._files(OBJECTS), key=lambda found: (not is_copy(found.name), found.used_at))
        for found in candidates:
            if self.ledger.read() - warm <= goal or self._trouble:
                break
            if is_copy(found.name):
                with contextlib.suppress(OSError), self.ledger.changing() as account:
                    self._remove_if_free(found.path, account)
            elif spilled + found.nbytes > self.limits.disk:
                self._trouble = f"the {format_nbytes(self.limits.disk)} that it may use on disk are full"
            elif self._spill(found, keep_warm=keep_warm):
                spilled += found.nbytes
                warm += found.nbytes if keep_warm and found.nbytes >= WARM_NBYTES else 0
        return self.ledger.read() - warm < before

    def _spill(self, found: Found, *, keep_warm: bool) -> bool:
        """Move a segment to disk, unless it is mapped; returns whether it was moved. Its file may become warm."""
        try:
            descriptor = os.open(found.path, os.O_RDWR | os.O_CLOEXEC)
        except OSError:
            return False  # freed meanwhile
        target = os.path.join(self._spilled, found.name)
        try:
            if not try_lock(descriptor, exclusive=True) or not is_named(descriptor, found.path):
                return False
            try:
                os.makedirs(os.path.realpath(self._spilled), mode=0o700, exist_ok=True)
                copy_to_disk(descriptor, found.nbytes, target)
            except OSError as error:
                self._trouble = f"`{os.path.realpath(self._spilled)}` cannot be written to: {error.strerror}"
                return False
            # Its owner may free it in this moment, and has then renamed the file before it removes what is on disk:
            # either we find the old name gone, or it finds our copy.
            with contextlib.suppress(FileNotFoundError), self.ledger.changing() as account:
                if is_named(descriptor, found.path):
                    if keep_warm and found.nbytes >= WARM_NBYTES:
                        os.utime(descriptor)
                        os.rename(found.path, os.path.join(self.directory, WARM, found.name))
                    else:
                        remove(found.path, descriptor, account)
                    return True
                os.unlink(target)
            return False
        finally:
            os.close(descriptor)

    @contextlib.contextmanager
    def _alone(self) -> Iterator[bool]:
        """Whether no other process makes room now; until the end of the ``with`` none does."""
        descriptor = os.open(os.path.join(self.directory, SPILLING), os.O_RDWR | os.O_CLOEXEC)
        try:
            yield try_lock(descriptor, exclusive=True)
        finally:
            os.close(descriptor)

    # -- what there is -------------------------------------------------------------------------------------------

    def full(self, nbytes: int) -> ObjectStoreFullError:
        """Return the error of a write that found no room."""
        used = self.ledger.read()
        biggest = sorted([*self._files(OBJECTS), *self._files(LEAVING)], key=lambda found: -found.nbytes)[:NAMED]
        holders = tuple((found.name, found.nbytes, is_locked(found.path)) for found in biggest)
        why = self._trouble or "what is in it is mapped by running code, which holds arrays or tensors of it"
        lines = "".join(
            f"\n  {format_nbytes(size):>10}  {name}{'  (mapped)' if mapped else ''}" for name, size, mapped in holders
        )
        return ObjectStoreFullError(
            f"There is no room for {format_nbytes(nbytes)} in the object store of this node: {format_nbytes(used)} of "
            f"{format_nbytes(self.limits.memory)} are in use, and nothing can be moved to disk: {why}. "
            f"`shoal.memory()` shows who holds what." + (f" The biggest:{lines}" if lines else ""),
            needed=nbytes,
            limit=self.limits.memory,
            holders=holders,
        )

    def segments(self) -> list[Found]:
        """Return the segments that there are: those in memory, then those on disk."""
        return [*self._files(OBJECTS), *(f for f in self._files(SPILLED) if not f.name.endswith(DRAFT_SUFFIX))]

    def inventory(self, most: int) -> tuple[list[tuple[str, int, str, bool]], tuple[int, int]]:
        """Return the *most* biggest segments, each as ``(name, bytes, where, mapped)``, and how many more and how big.

        Where is ``memory``, ``disk`` or, for one that was freed and is still mapped, ``leaving``.
        """
        places = (("memory", OBJECTS), ("disk", SPILLED), ("leaving", LEAVING))
        rows = [
            (found, where)
            for where, place in places
            for found in self._files(place)
            if not found.name.endswith(DRAFT_SUFFIX)
        ]
        rows.sort(key=lambda row: -row[0].nbytes)
        listed = [(found.name, found.nbytes, where, is_locked(found.path)) for found, where in rows[:most]]
        # What was freed and is not mapped is as good as gone.
        listed = [row for row in listed if row[2] != "leaving" or row[3]]
        return listed, (len(rows[most:]), sum(found.nbytes for found, _ in rows[most:]))

    def usage(self) -> tuple[int, int]:
        """Return the bytes in memory, and those on disk."""
        return self.ledger.read(), sum(found.nbytes for found in self._files(SPILLED))

    def _warm_nbytes(self) -> int:
        return sum(found.nbytes for found in self._files(WARM))

    def _files(self, place: str) -> list[Found]:
        found = []
        with contextlib.suppress(OSError), os.scandir(os.path.join(self.directory, place)) as entries:
            for entry in entries:
                with contextlib.suppress(FileNotFoundError):
                    status = entry.stat()
                    found.append(Found(entry.path, entry.name, status.st_size, status.st_mtime, status.st_ino))
        return found

    def close(self) -> None:
        """Let go of what this process keeps of it."""
        with self._mappings_lock:
            self._mappings.clear()
        self.ledger.close()


def remove(path: str, descriptor: int, account: Account) -> None:
    """Remove a file that the caller has locked; its memory goes now, even if a former writer still maps it."""
    nbytes = os.fstat(descriptor).st_size
    os.unlink(path)
    os.ftruncate(descriptor, 0)
    account.used -= nbytes


def copy(source: Frame, target: memoryview) -> None:
    """Copy bytes within memory: all at once, which is faster than in pieces, and lets other threads run if it can."""
    import ctypes

    size = nbytes_of(source)
    if not size:
        return
    view = memoryview(source).cast("B")
    begin: Any = source
    if not isinstance(source, bytes):
        if view.readonly:  # nobody tells its address
            for at in range(0, size, PIECE):
                target[at : at + PIECE] = view[at : at + PIECE]
            return
        begin = ctypes.addressof(ctypes.c_char.from_buffer(view))
    ctypes.memmove(ctypes.addressof(ctypes.c_char.from_buffer(target)), begin, size)


def copy_to_disk(descriptor: int, nbytes: int, target: str) -> None:
    """Copy a file; what is at *target* is complete, or nothing.

    Raises
    ------
    OSError
        There is no room, or it may not be written.
    """
    draft = target + DRAFT_SUFFIX
    out = os.open(draft, os.O_CREAT | os.O_TRUNC | os.O_WRONLY | os.O_CLOEXEC, 0o600)
    try:
        if os.fstat(descriptor).st_size < nbytes:
            raise OSError(errno.EIO, "the segment ended before its size")
        with mmap.mmap(descriptor, nbytes, access=mmap.ACCESS_READ) as mapping, memoryview(mapping) as whole:
            done = 0
            while done < nbytes:
                with whole[done : done + PIECE] as piece:
                    done += os.write(out, piece)
        os.rename(draft, target)
    except BaseException:
        os.unlink(draft)
        raise
    finally:
        os.close(out)


def is_locked(path: str) -> bool:
    """Whether somebody maps, or moves, the segment at *path*."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return False
    try:
        return not try_lock(descriptor, exclusive=True)
    finally:
        os.close(descriptor)


def is_copy(name: str) -> bool:
    return name.endswith(COPY_SUFFIX)


def nbytes_of(frame: Frame) -> int:
    return frame.nbytes if isinstance(frame, memoryview) else len(frame)
