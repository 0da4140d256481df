"""Large bytes beside a batch of messages: Dask's comms write such frames as they are, without another copy."""

from __future__ import annotations

from typing import Any

from distributed.protocol.serialize import Serialized

#: From this size on it is worth a frame of its own.
BULK_NBYTES = 64 << 10


def join(batch: bytes, data: bytes | memoryview) -> object:
    """Return what a comm is to write: the packed *batch*, whose last message is without its *data*."""
    return [batch, Serialized({}, [data])]


def take_apart(frame: Any) -> tuple[bytes, memoryview | bytes | None]:
    """Undo :func:`join` for what a comm has read; a plain batch comes back with None.

    Raises
    ------
    ValueError
        It is neither.
    """
    if isinstance(frame, bytes):
        return frame, None
    if isinstance(frame, tuple | list) and len(frame) == 2:
        batch, data = frame
        if isinstance(batch, bytes) and isinstance(data, Serialized) and len(data.frames) == 1:
            return batch, data.frames[0]
    raise ValueError("neither a batch of messages nor one with bulk")
