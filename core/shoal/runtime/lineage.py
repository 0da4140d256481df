"""How values were made: enough to make them again when the node that held them is gone.

Lineage is kept by the objects that it could recover, in their owner, and keeps nobody's value alive: of what the work
depended on it holds the small values themselves and, of the large ones, how they were made in turn. That is bounded;
what cannot be made again says why. After Ray's lineage reconstruction (Moritz et al., OSDI 2018; Wang et al., NSDI
2021), with its rule that a task which must not be retried is not made again either.
"""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

from shoal.runtime.payload_kinds import INLINE, SEGMENT
from shoal.runtime.refs import ObjectRef
from shoal.runtime.work import Work

if TYPE_CHECKING:
    from shoal.machines.objects import ObjectTable
    from shoal.model.messages import Payload

#: Works in a row, and bytes of small values in all, that one lineage may hold on to.
MAX_DEPTH, MAX_NBYTES = 1_000, 16 << 20

STORED = "it was stored with `put`, not made by a task"
SMALL = "its owner, which kept it, has let it go"
RETURNED = "it was made by an actor, whose state is not known any more"
NOT_RETRIED = "its task has `max_retries=0`, so it must not run twice"
LARGE_ARGUMENTS = "its task had large arguments, which are not kept: pass them with `put`"
TOO_LONG = "the history of how it was made is too long"
BORROWED = "an argument of its task belonged to another process"


@dataclasses.dataclass(frozen=True, slots=True)
class Origin:
    """Where a value comes from that cannot be made again."""

    #: Why it cannot.
    why: str
    #: What made it, and in which cell.
    name: str = ""
    cell: str | None = None


@dataclasses.dataclass(frozen=True, slots=True)
class Ancestor:
    """Something that work depended on."""

    object_id: str
    #: A small value.
    payload: Payload | None
    #: How a large one was made, or why it cannot be made again.
    lineage: Lineage | Origin | None = None


@dataclasses.dataclass(slots=True, eq=False)
class Lineage:
    """How the results of one work were made."""

    work: Work
    ancestors: tuple[Ancestor, ...]
    #: Refs inside its arguments, and inside small values among them, as ``(object_id, owner's address)``: it can run
    #: again while they are held here, which is not for it to see to.
    nested: tuple[tuple[str, str], ...]
    depth: int
    nbytes: int
    #: How often they may still be made again; -1 for no end.
    left: int


def origin_of(lineage: Lineage | Origin | None) -> tuple[str, str | None]:
    """Return what made a value, and in which cell; "" if nobody has noted it, as of small values that were put."""
    if isinstance(lineage, Lineage):
        return lineage.work.target.name, lineage.work.recipe.cell
    return (lineage.name, lineage.cell) if lineage is not None else ("", None)


def made_by(work: Work) -> Origin:
    """Return where a value comes from that needs no lineage: it is kept with its owner, and goes with it."""
    if not isinstance(work.lineage, Origin):
        return Origin(SMALL, work.target.name, work.recipe.cell)
    return work.lineage


def lineage_of(work: Work, table: ObjectTable) -> Lineage | Origin:
    """Return how the results of *work*, which is ending, could be made again, or why they cannot."""
    if work.lineage is None:
        found = _lineage_of(work, table)
        work.lineage = Origin(found, work.target.name, work.recipe.cell) if isinstance(found, str) else found
    elif isinstance(work.lineage, Lineage):
        work.lineage.work.attempt = work.attempt  # the retries of this time count, too: the next goes on from there
    return work.lineage


def _lineage_of(work: Work, table: ObjectTable) -> Lineage | str:
    target = work.target
    if target.method:
        return RETURNED
    if not target.retries:
        return NOT_RETRIED
    if work.args[0] == SEGMENT:
        return LARGE_ARGUMENTS
    ancestors = []
    nested = list(work.holds)
    depth, nbytes = 1, _nbytes(work.args)
    for ref in work.dependencies:
        entry = table.get(ref.id)
        if entry is None or entry.payload is None:
            return BORROWED
        if entry.payload[0] == INLINE:
            ancestors.append(Ancestor(ref.id, entry.payload))
            nested += [inner for inner in entry.contained if isinstance(inner, ObjectRef)]
            nbytes += _nbytes(entry.payload)
            continue
        made = Origin(BORROWED) if entry.owner else entry.lineage or Origin(STORED)
        ancestors.append(Ancestor(ref.id, None, made))
        if isinstance(made, Lineage):
            depth = max(depth, made.depth + 1)
            nbytes += made.nbytes
    if depth > MAX_DEPTH or nbytes > MAX_NBYTES:
        # Begun anew: what is made from here on can be made again as far as this is still there.
        ancestors = [
            ancestor if ancestor.payload is not None else dataclasses.replace(ancestor, lineage=Origin(TOO_LONG))
            for ancestor in ancestors
        ]
        depth, nbytes = 1, _nbytes(work.args)
    bare = dataclasses.replace(work, dependencies=(), holds=(), yields=None, lineage=None)
    inside = tuple(dict.fromkeys((ref._id, ref._owner_address) for ref in nested))
    return Lineage(bare, tuple(ancestors), inside, depth, nbytes, target.retries)


def _nbytes(payload: Payload) -> int:
    return sum(len(frame) for frame in payload[1:])
