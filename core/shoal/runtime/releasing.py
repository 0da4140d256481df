"""Letting go of one value on demand: its bytes leave the object stores, though refs to it are still around.

A person looks at what fills the stores, and says of a value that nobody needs it. Its owner alone may agree: not while
somebody else holds a ref, or work or another value needs it. Variables keep their refs, and who reads one is told what
has happened to its value. Arrays that were read before stay as they are: their memory goes with the last of them.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from typing import TYPE_CHECKING

from shoal.machines.objects import Entry
from shoal.model.amounts import format_nbytes
from shoal.model.errors import ObjectLostError, ShoalError
from shoal.runtime import payload as payloads
from shoal.runtime.store import segment_nbytes

if TYPE_CHECKING:
    from shoal.runtime.owner import Owner

#: Seconds for the owner's loop to do it.
TIMEOUT = 5.0


def release_object(owner: Owner, object_id: str) -> int:
    """Let go of a value that this process owns; returns its bytes. Not on the event loop's own thread.

    Raises
    ------
    ShoalError
        It is not there, not ours, too small to be in a store, or needed; the message says by whom.
    """
    users = _users_of(owner, object_id)  # before the rest: it looks at everything
    return asyncio.run_coroutine_threadsafe(_release(owner, object_id, users), owner.loop).result(TIMEOUT)


async def _release(owner: Owner, object_id: str, users: list[str]) -> int:
    entry = owner.table.get(object_id)
    if entry is None or entry.owner or entry.payload is None:
        raise ShoalError(f"`{object_id}` is no value of this process (any more).")
    payload = entry.payload
    if payload[0] != payloads.SEGMENT:
        raise ShoalError(f"`{object_id}` takes no room in an object store.")
    others = sum(count > 0 for count in (entry.borrowers or {}).values())
    users = [*users, *([f"{others} other process{'es' * (others != 1)}"] if others else [])]
    if users:
        raise ShoalError(f"`{object_id}` is needed by {', '.join(users)}: it can be released when that has ended.")
    nbytes = segment_nbytes(payload[3])
    if not owner.table.lose(object_id, payload):
        raise ShoalError(f"`{object_id}` has just changed.")
    said = f"`{object_id}` ({format_nbytes(nbytes)}) was released on demand. Run what made it again to have it back."
    entry.contained = ()
    owner.table.ready(object_id, payloads.from_error(ObjectLostError(said, object_id=object_id)))
    owner.ownership.free(payload)
    return nbytes


def _users_of(owner: Owner, object_id: str) -> list[str]:
    """Say which work and which values of this process need a value."""
    users = [
        f"`{work.target.name}`, which has not ended"
        for work in owner.works()
        if _has(object_id, (*work.dependencies, *work.holds))
    ]
    return users + [f"the value `{entry.object_id}`" for entry in owner.table.entries() if _contains(entry, object_id)]


def _contains(entry: Entry, object_id: str) -> bool:
    return bool(entry.contained) and _has(object_id, entry.contained)


def _has(object_id: str, refs: Iterable[object]) -> bool:
    return any(getattr(ref, "id", "") == object_id for ref in refs)


__all__ = ["release_object"]
