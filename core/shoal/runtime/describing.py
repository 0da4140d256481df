"""What refs and generators of refs are, as far as this process knows: no other process is asked, nothing is fetched."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

from shoal.model.amounts import format_nbytes
from shoal.model.cells import cell_name
from shoal.model.description import Description
from shoal.model.errors import ClusterLostError, NotInitializedError, ObjectLostError, OwnerDiedError
from shoal.runtime import payload as payloads
from shoal.runtime.lineage import origin_of
from shoal.runtime.store import is_here, segment_nbytes

#: Errors that say that the value itself is gone, or whoever had it.
_LOST = (ClusterLostError, NotInitializedError, ObjectLostError, OwnerDiedError)

#: Seconds for the event loop to take in what was submitted just before.
MOMENT = 0.05

if TYPE_CHECKING:
    from shoal.machines.objects import Entry
    from shoal.model.messages import Payload
    from shoal.runtime.base_owner import BaseOwner
    from shoal.runtime.refs import ObjectRef
    from shoal.runtime.work import Work
    from shoal.runtime.yields import Yields


def describe_ref(ref: ObjectRef) -> Description:
    """Describe an object: ``pending``, ``ready``, ``failed`` or ``lost``."""
    owner, title = ref._owner, f"ref {ref.id}"
    entry = owner.table.get(ref.id)
    if owner.closing or entry is None:
        return Description(title, "lost", (("reason", "the session that it belongs to has ended"),))
    work = owner.results.maker(ref.id)
    if work is None and entry.payload is None and not entry.owner:  # submitted in this very moment
        with contextlib.suppress(TimeoutError):
            owner.catch_up(MOMENT)
        work = owner.results.maker(ref.id)
    return Description(title, *_state(owner, entry, work))


def describe_generator(owner: BaseOwner, yields: Yields) -> Description:
    """Describe a generator of refs: ``running``, ``ended`` or ``lost``."""
    title = f"generator of refs {yields.task_id}"
    if owner.closing or (not yields.complete and owner.lost):
        return Description(title, "lost", (("reason", owner.lost or "its session has ended"),))
    received = f"{yields.received} have arrived, {yields.taken} were taken"
    facts = [("values", received), *_maker(owner.results.maker(yields.object_id), None)]
    return Description(title, "ended" if yields.complete else "running", tuple(facts))


def _state(owner: BaseOwner, entry: Entry, work: Work | None) -> tuple[str, tuple[tuple[str, str], ...]]:
    payload, made = entry.payload, _maker(work, entry)
    if entry.owner:
        made.append(("owner", f"the process at {entry.owner}"))
    if payload is None:
        if owner.lost:
            return "lost", (("reason", owner.lost), *made)
        if work is not None:
            made.append(("progress", "sent to an executor" if work.sent else "waits to be sent"))
        return "pending", tuple(made)
    if payloads.is_error(payload):
        error = _error_in(payload)
        state = "lost" if isinstance(error, _LOST) else "failed"
        return state, (("error", _first_line(error)), *made)
    if payload[0] == payloads.SEGMENT and not is_here(payload[2]) and owner.has_left(payload[1]):
        return "lost", (("reason", "its node has left; `shoal.get` has it made again, or says why not"), *made)
    size, where = _size_and_place(payload)
    return "ready", (("size", size), ("place", where), *made)


def _error_in(payload: Payload) -> BaseException:
    try:
        payloads.load(payload)
    except BaseException as error:  # whatever user code raised
        return error
    raise AssertionError("an error's payload raises")


def _first_line(error: BaseException) -> str:
    return f"{type(error).__name__}: {error}".splitlines()[0][:200]


def _size_and_place(payload: Payload) -> tuple[str, str]:
    if payload[0] != payloads.SEGMENT:
        nbytes = sum(len(part) for part in payload[1:] if isinstance(part, bytes | bytearray | memoryview))
        return format_nbytes(nbytes), "in this process"
    where = "object store of this machine" if is_here(payload[2]) else f"object store of {payload[1]}"
    return format_nbytes(segment_nbytes(payload[3])), where


def _maker(work: Work | None, entry: Entry | None) -> list[tuple[str, str]]:
    """Say what makes or has made it, as far as somebody has noted it."""
    if work is not None:
        name, cell = work.target.name, work.recipe.cell
    else:
        name, cell = origin_of(entry.lineage if entry is not None else None)
    if not name:
        return []
    where = f" in {cell_name(cell)}" if cell and cell_name(cell) != name else ""
    return [("made by", f"`{name}`{where}")]
