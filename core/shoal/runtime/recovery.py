"""Making lost values again."""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Sequence
from typing import TYPE_CHECKING

from shoal.machines.objects import Entry
from shoal.model import messages as m
from shoal.model.errors import ObjectLostError
from shoal.model.ids import new_object_id
from shoal.model.options import ENDLESS
from shoal.runtime import payload as payloads
from shoal.runtime.lineage import BORROWED, STORED, Ancestor, Lineage, Origin
from shoal.runtime.refs import ObjectRef
from shoal.runtime.work import Work

if TYPE_CHECKING:
    from shoal.runtime.owner import Owner

logger = logging.getLogger("shoal")

#: What a generator has "taken" when it only makes again what is missing: it waits for no consumer.
EVERYTHING = 1 << 60


class Recovery:
    """Has lost values of this owner made again by the tasks that made them. Lives on the owner's event loop."""

    def __init__(self, owner: Owner) -> None:
        self._owner = owner
        self._table = owner.table

    def lost(self, object_id: str, payload: m.Payload) -> None:
        """Nobody can read a value of ours where *payload* says; if that is news, begin to make it again."""
        entry = self._table.get(object_id)
        if entry is not None:
            self.unreadable(entry, payload)

    def _make_again(self, entry: Entry, holder: str) -> None:
        """Make the value of an object that *holder* has no more; or let that be known as its value."""
        lineage: Lineage | Origin = entry.lineage or Origin(STORED)
        plan, reason = self._plan(lineage) if isinstance(lineage, Lineage) else ([], lineage.why)
        if reason:
            error = ObjectLostError(
                f"`{entry.object_id}` is lost: `{holder}`, which held it, has it no more; and it cannot be made again: "
                f"{reason}.",
                object_id=entry.object_id,
            )
            self._table.ready(entry.object_id, payloads.from_error(error))
            return
        for step in plan:
            self._lose_siblings(step.work, holder)
            self._run(step)

    def dependency_lost(self, work: Work, payload: m.Payload) -> None:
        """An executor could not read one of the values that *work* depends on: *payload* says which."""
        _, index, path = payload
        entry = self._table.get(work.dependencies[index].id)
        known = entry.payload if entry is not None else None
        if entry is not None and known is not None and known[0] == payloads.SEGMENT and known[2] == path:
            self.unreadable(entry, known)

    def unreadable(self, entry: Entry, payload: m.Payload) -> None:
        """This process, or an executor that works for it, cannot read a value that it owns or borrows."""
        if not self._table.lose(entry.object_id, payload):
            return  # there is another by now
        if entry.owner:
            self._owner.send_to(entry.owner, m.Lost(entry.object_id, payload))
        else:
            self._owner.ownership.free(payload)  # it may be there after all, behind a broken connection
            self._make_again(entry, payload[1])

    def _plan(self, lineage: Lineage) -> tuple[list[Lineage], str]:
        """Return what has to be run, in any order; or why that is not possible."""
        plan: dict[int, Lineage] = {}
        todo = [lineage]
        while todo:
            step = todo.pop()
            if id(step) in plan:
                continue
            if not step.left:
                times = step.work.target.retries
                return [], f"it was lost {times} times before, which uses up the retries of `{step.work.target.name}`"
            plan[id(step)] = step
            needed = [*((ancestor, False) for ancestor in step.ancestors), *((ref, True) for ref in step.nested)]
            looked_at: set[str] = set()
            while needed:
                ancestor, by_ref = needed.pop()
                if ancestor.object_id in looked_at or (ancestor.object_id in self._table and ancestor.payload is None):
                    continue
                if ancestor.payload is not None:
                    if not by_ref or ancestor.object_id not in self._table:
                        needed += [(ref, True) for ref in ancestor.contained]
                elif isinstance(ancestor.lineage, Lineage):
                    todo.append(ancestor.lineage)
                else:
                    name, origin = step.work.target.name, ancestor.lineage or Origin(BORROWED)
                    what = "contains a ref to what is gone, too" if by_ref else "is gone, too"
                    return [], f"an argument of `{name}` {what}: {origin.why}"
                looked_at.add(ancestor.object_id)
        return list(plan.values()), ""

    def _lose_siblings(self, work: Work, holder: str) -> None:
        """What else *work* has made, and *holder* had, is most likely lost as well: take it from the next run."""
        if work.target.num_returns == 1:
            return
        prefix = f"{work.object_id}."
        for entry in self._table.entries():
            payload = entry.payload
            if entry.object_id.startswith(prefix) and payload is not None and payload[:2] == (payloads.SEGMENT, holder):
                self._table.lose(entry.object_id, payload)
                self._owner.ownership.free(payload)

    def _run(self, lineage: Lineage) -> None:
        done = lineage.work
        if self._owner.results.awaited(done):
            return  # it is under way
        if lineage.left != ENDLESS:
            lineage.left -= 1
        refs = [self._depend(ancestor) for ancestor in lineage.ancestors]
        holds = [self._hold(ancestor) for ancestor in lineage.nested]
        yields = MissingValues(self._owner, done) if done.target.streams else None
        work = dataclasses.replace(
            done,
            dependencies=tuple(refs),
            holds=tuple(holds),
            sent=False,
            yields=yields,
            lineage=lineage,
            attempt=done.attempt + 1,
        )
        # The next time has to go on from there.
        lineage.work = dataclasses.replace(done, attempt=work.attempt)
        logger.info("`%s` is run again: what it made is lost", done.target.name)
        self._owner.tasks.submit(work)

    def _depend(self, ancestor: Ancestor) -> ObjectRef:
        if ancestor.payload is None:
            return self._hold(ancestor)
        object_id = new_object_id()  # another process may own the one, and send us refs to it
        self._table.add(object_id, ancestor.payload, [self._hold(ref) for ref in ancestor.contained])
        return ObjectRef(object_id, self._owner.address, self._owner)

    def _hold(self, ancestor: Ancestor) -> ObjectRef:
        """Hold what a ref stands for; if it is there no more, as it was, or until it has been made again."""
        object_id, address = ancestor.object_id, ancestor.address or self._owner.address
        if object_id in self._table:
            self._table.retain(object_id, "" if address == self._owner.address else address)
        elif ancestor.payload is not None:
            self._table.add(object_id, ancestor.payload, [self._hold(ref) for ref in ancestor.contained])
        else:
            self._table.add(object_id).lineage = ancestor.lineage
        return ObjectRef(object_id, address, self._owner)


class MissingValues:
    """Takes those values of a generator that are being made again; see :class:`shoal.runtime.yields.Yields`."""

    taken = EVERYTHING

    def __init__(self, owner: Owner, work: Work) -> None:
        self._table = owner.table
        self._object_id = work.object_id
        self.dropped = False

    def arrived(
        self, index: int, payload: m.Payload, contained: Sequence[ObjectRef] = (), lineage: object = None
    ) -> bool:
        """A value is here; returns whether somebody waits for it."""
        return self._table.ready(f"{self._object_id}.{index}", payload, contained, lineage)

    def ended(self, payload: m.Payload) -> None:
        """No more will come: who still waits for one has it from an earlier run that made more."""
        prefix = f"{self._object_id}."
        for entry in self._table.entries():
            if entry.object_id.startswith(prefix) and entry.payload is None:
                error = (
                    payload
                    if payloads.is_error(payload)
                    else payloads.from_error(
                        ObjectLostError(f"`{entry.object_id}` was not made again.", object_id=entry.object_id)
                    )
                )
                self._table.ready(entry.object_id, error)
