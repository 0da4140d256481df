"""How values were made: enough to make them again when the node that held them is gone.

Lineage is kept by the objects that it could recover, in their owner, and keeps no large value alive: of what the work
depended on, or had refs to, it holds the small values themselves and, of the large ones, how they were made in turn.
That is bounded; what cannot be made again says why. After Ray's lineage reconstruction (Moritz et al., OSDI 2018; Wang
et al., NSDI 2021), with its rule that a task which must not be retried is not made again either.
"""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

from shoal.runtime.payload_kinds import INLINE, SEGMENT
from shoal.runtime.refs import ObjectRef
from shoal.runtime.work import CREATE, Work

if TYPE_CHECKING:
    from shoal.machines.objects import Entry, ObjectTable
    from shoal.model.messages import Payload

#: Works in a row, and bytes of small values in all, that one lineage may hold on to.
MAX_DEPTH, MAX_NBYTES = 1_000, 16 << 20
#: Small values in small values that are kept.
MAX_LEVELS = 32
#: What each ref counts as, in bytes.
_REF_NBYTES = 200

STORED = "it was stored with `put`, not made by a task"
SMALL = "its owner, which kept it, has let it go"
RETURNED = "it was made by an actor, whose state is not known any more"
NOT_RETRIED = "its task has `max_retries=0`, so it must not run twice"
LARGE_ARGUMENTS = "its task had large arguments, which are not kept: pass them with `put`"
TOO_LONG = "the history of how it was made is too long"
BORROWED = "an argument of its task belonged to another process"
PENDING = "it was not there yet when the task that had a ref to it ended"
LIFE = "it was an actor, which has ended"


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
    """Something that work depended on, or had a ref to."""

    object_id: str
    #: A small value.
    payload: Payload | None
    #: How a large one was made, or why it cannot be made again.
    lineage: Lineage | Origin | None = None
    #: Of a ref's owner.
    address: str = ""
    #: Refs inside a small value.
    contained: tuple[Ancestor, ...] = ()


@dataclasses.dataclass(slots=True, eq=False)
class Lineage:
    """How the results of one work were made."""

    work: Work
    ancestors: tuple[Ancestor, ...]
    #: What the refs inside its arguments stand for: a task finds them under the same ids when it runs again.
    nested: tuple[Ancestor, ...]
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
        why = LIFE if work.target.method == CREATE else SMALL
        return Origin(why, work.target.name, work.recipe.cell)
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
    survey = _Survey(table)
    ancestors = [survey.dependency(ref) for ref in work.dependencies]
    if None in ancestors:
        return BORROWED
    kept = tuple(ancestor for ancestor in ancestors if ancestor is not None)
    nested = tuple(survey.nested(ref) for ref in dict.fromkeys(work.holds))
    depth, nbytes = survey.depth, survey.nbytes + _nbytes(work.args)
    if depth > MAX_DEPTH or nbytes > MAX_NBYTES:
        # Begun anew: what is made from here on can be made again as far as this is still there.
        nested = tuple(map(_without_past, nested))
        depth, nbytes = 1, _nbytes(work.args) + sum(_nbytes(ancestor.payload or ()) for ancestor in kept)
        if nbytes <= MAX_NBYTES:
            kept = tuple(
                _without_past(ancestor)
                if ancestor.payload is None
                else dataclasses.replace(ancestor, contained=tuple(map(_without_past, ancestor.contained)))
                for ancestor in kept
            )
        else:
            kept, nbytes = tuple(map(_without_past, kept)), _nbytes(work.args)
    bare = dataclasses.replace(work, dependencies=(), holds=(), yields=None, lineage=None)
    return Lineage(bare, kept, nested, depth, nbytes, target.retries)


class _Survey:
    """Looks at what one work was given, while all of it is here, and adds up what of it is kept."""

    def __init__(self, table: ObjectTable) -> None:
        self.depth, self.nbytes = 1, 0
        self._table = table
        self._nested: dict[str, Ancestor] = {}

    def dependency(self, ref: ObjectRef) -> Ancestor | None:
        """Return what to keep of a value that work depended on; None if that is not to be had here."""
        entry = self._table.get(ref._id)
        if entry is None or entry.payload is None:
            return None
        if entry.payload[0] == INLINE:
            return Ancestor(ref._id, entry.payload, contained=self._inside(entry, 1))
        return Ancestor(ref._id, None, Origin(BORROWED) if entry.owner else self._past(entry))

    def nested(self, ref: ObjectRef, level: int = 0) -> Ancestor:
        """Return what to keep of what a ref in the arguments stands for, or in a value *level* values further in."""
        known = self._nested.get(ref._id)
        if known is None:
            self.nbytes += _REF_NBYTES
            known = self._nested[ref._id] = self._look(ref, self._table.get(ref._id), level)
        return known

    def _look(self, ref: ObjectRef, entry: Entry | None, level: int) -> Ancestor:
        past: Lineage | Origin
        if entry is None or entry.owner:
            past = Origin(BORROWED)
        elif entry.payload is None:
            past = Origin(PENDING)
        elif entry.payload[0] == SEGMENT:
            past = self._past(entry)
        elif isinstance(entry.lineage, Origin) and entry.lineage.why == LIFE:
            past = entry.lineage
        elif level == MAX_LEVELS:
            past = Origin(TOO_LONG)
        else:
            contained = self._inside(entry, level + 1)
            return Ancestor(ref._id, entry.payload, address=ref._owner_address, contained=contained)
        return Ancestor(ref._id, None, past, ref._owner_address)

    def _inside(self, entry: Entry, level: int) -> tuple[Ancestor, ...]:
        """Return the same for the refs in a small value, which is kept."""
        assert entry.payload is not None
        self.nbytes += _nbytes(entry.payload)
        return tuple(self.nested(ref, level) for ref in entry.contained if isinstance(ref, ObjectRef))

    def _past(self, entry: Entry) -> Lineage | Origin:
        past: Lineage | Origin = entry.lineage or Origin(STORED)
        if isinstance(past, Lineage):
            self.depth = max(self.depth, past.depth + 1)
            self.nbytes += past.nbytes
        return past


def _without_past(ancestor: Ancestor) -> Ancestor:
    return Ancestor(ancestor.object_id, None, Origin(TOO_LONG), ancestor.address)


def _nbytes(payload: Payload | tuple[()]) -> int:
    return sum(len(frame) for frame in payload[1:])
