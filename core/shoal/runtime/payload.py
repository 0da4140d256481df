"""Payloads: how a value, or the error in its place, travels in messages.

========  ==========================================  ==============================================
kind      fields                                      meaning
========  ==========================================  ==============================================
``"i"``   frames…                                     the value itself
``"s"``   holder, path, sizes                         a segment in the store of *holder*'s node
``"e"``   pickled error                               the task failed with this error
``"m"``   payloads…                                   the values of a task with several returns
``"n"``                                               a generator has no more values
``"l"``   index, path                                 the work did not begin, or cannot: this dependency is lost
========  ==========================================  ==============================================
"""

from __future__ import annotations

import os
import pickle
from typing import Any

from shoal.model.errors import ObjectLostError
from shoal.model.messages import Payload
from shoal.runtime import remote_errors
from shoal.runtime.payload_kinds import END, ERROR, INLINE, LOST, MANY, NO_MORE, SEGMENT, is_error
from shoal.runtime.serialization import Frame, dumps, loads, total_nbytes
from shoal.runtime.store import SegmentGone, Store, free_segment, is_here, map_segment, split

#: Values up to this many bytes travel inside messages and stay with their owner.
INLINE_LIMIT = 100 * 1024


def from_frames(frames: list[Frame], store: Store | None, name: str) -> Payload:
    """Make the payload of serialized *frames*: inline, or as segment *name* if large and this node has a store."""
    if len(frames) == 1 and len(frames[0]) <= INLINE_LIMIT:
        return INLINE, frames[0]
    if store is None or total_nbytes(frames) <= INLINE_LIMIT:
        return (INLINE, *(bytes(frame) for frame in frames))
    try:
        path, sizes = store.write(name, frames)
    except FileNotFoundError:  # the node has just ended; without it there are only messages
        return from_frames(frames, None, name)
    return (SEGMENT, store.holder, path, sizes)


def from_error(error: BaseException) -> Payload:
    """Make the payload of a failed task."""
    return (ERROR, remote_errors.dump(error))


def load(payload: Payload, fetched: memoryview | None = None) -> Any:
    """Return the value, or raise the error.

    Parameters
    ----------
    fetched
        The segment's bytes if they had to be fetched from another machine.

    Raises
    ------
    ObjectLostError
        The segment is gone.
    """
    kind = payload[0]
    if kind == INLINE:
        if len(payload) == 2:
            return pickle.loads(payload[1])
        # Each reader gets buffers of its own, which it may write to.
        return loads([payload[1], *(bytearray(part) for part in payload[2:])])
    if kind == ERROR:
        raise remote_errors.load(payload[1])
    _, _, path, sizes = payload
    if fetched is not None:
        return loads(split(fetched, sizes))
    try:
        return loads(map_segment(path, sizes))
    except SegmentGone as error:
        raise ObjectLostError(
            f"The stored value `{os.path.basename(path)}` is lost: {error}.", object_id=path
        ) from None


def free(payload: Payload) -> str | None:
    """Release what a payload names; returns the holder's address if another machine has to do it."""
    if payload[0] != SEGMENT:
        return None
    _, holder, path, _ = payload
    if is_here(path):
        free_segment(path)
        return None
    return str(holder)


EMPTY_ARGUMENTS: Payload = (INLINE, dumps(((), {}))[0][0])
NONE: Payload = (INLINE, dumps(None)[0][0])

__all__ = [
    "EMPTY_ARGUMENTS",
    "END",
    "ERROR",
    "INLINE",
    "INLINE_LIMIT",
    "LOST",
    "MANY",
    "NONE",
    "NO_MORE",
    "SEGMENT",
    "free",
    "from_error",
    "from_frames",
    "is_error",
    "load",
]
