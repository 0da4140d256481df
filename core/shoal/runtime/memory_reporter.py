"""Answers :func:`shoal.memory`: puts together what this process owns, what nodes have, and who holds it."""

from __future__ import annotations

import asyncio
import dataclasses
import gc
import itertools
import time
from collections.abc import Iterable
from typing import TYPE_CHECKING

from shoal.machines.objects import Entry
from shoal.model import messages as m
from shoal.model.cells import cell_name
from shoal.model.errors import ObjectStoreFullError, ShoalError
from shoal.model.memory import MemoryReport, ObjectUse, StoreUse
from shoal.runtime import payload as payloads
from shoal.runtime.holders import Held, Holders, find_holders
from shoal.runtime.lineage import origin_of
from shoal.runtime.store import COPY_SUFFIX, segment_nbytes
from shoal.runtime.variables import get_namespace
from shoal.runtime.work import CREATE, Work

if TYPE_CHECKING:
    from shoal.runtime.base_owner import BaseOwner
    from shoal.runtime.owner import Owner

#: Segments that a node lists.
MAX_SEGMENTS = 10_000
#: Seconds that the release of what was forgotten may take.
SETTLE = 2.0

#: What a node has answered, by its address; None for one that has not.
Stores = dict[str, "m.SegmentList | None"]


class StoreAsker:
    """Asks nodes what is in their stores. Lives on the owner's event loop."""

    def __init__(self, owner: Owner) -> None:
        self._owner = owner
        self._requests = itertools.count(1)
        self._answers: dict[int, asyncio.Future[m.SegmentList]] = {}

    async def ask(self, seconds: float) -> Stores:
        """Return what each node answers within *seconds*; executors know of no node but their own."""
        own = self._owner.store
        nodes = list(self._owner.stores) or ([own.holder] if own is not None else [])
        found = await asyncio.gather(*(self._ask(node, seconds) for node in nodes))
        return dict(zip(nodes, found, strict=True))

    def answered(self, message: m.SegmentList) -> None:
        answer = self._answers.get(message.request)
        if answer is not None and not answer.done():
            answer.set_result(message)

    async def _ask(self, node: str, seconds: float) -> m.SegmentList | None:
        request = next(self._requests)
        answer = self._answers[request] = asyncio.get_running_loop().create_future()
        try:
            self._owner.peers.send(node, m.ListSegments(request, MAX_SEGMENTS), agent=True)
            return await asyncio.wait_for(answer, seconds)
        except TimeoutError:
            return None
        finally:
            del self._answers[request]


def report(owner: BaseOwner, limit: int, seconds: float) -> MemoryReport:
    """Make the report of what this process owns and of all stores; not on the event loop's own thread."""
    holders = find_holders(get_namespace())
    stores, processes = owner.ask_stores(seconds)
    rows = _Rows(owner, holders, processes, stores).rows()
    rows.sort(key=lambda row: (-row.nbytes, row.object_id))
    history = {name for held in (*holders.refs.values(), *holders.segments.values()) for name in held.history}
    return MemoryReport(
        tuple(
            StoreUse(node, *found.memory, *found.disk) if found else StoreUse(node) for node, found in stores.items()
        ),
        tuple(rows[:limit]),
        (len(rows) - len(rows[:limit]), sum(row.nbytes for row in rows[limit:])),
        history_holds=any(name in history for row in rows[:limit] for name in row.held_by),
    )


def release(owner: BaseOwner, limit: int, seconds: float) -> MemoryReport:
    """Let go of what the notebook keeps of its own accord, and report as :func:`report` does; not on the loop."""
    before = _nbytes(report(owner, 0, seconds))
    get_namespace().forget_history()
    gc.collect()
    deadline, last = time.monotonic() + SETTLE, 0
    while True:
        # Refs are dropped, segments freed and nodes' books made up by others, in their time.
        time.sleep(0.05)
        found = report(owner, limit, seconds)
        released = before - _nbytes(found)
        if 0 < released == last or time.monotonic() > deadline:
            return dataclasses.replace(found, released=max(0, released))
        last = released


def _nbytes(found: MemoryReport) -> int:
    return sum(use.nbytes for use in found.objects) + found.more[1]


def name_holders(owner: BaseOwner, error: ObjectStoreFullError) -> ObjectStoreFullError:
    """Say of the segments that fill a store what they are, as far as this process knows."""
    try:
        holders = find_holders(get_namespace())
    except Exception:  # whatever is wrong with the variables, the store is full
        holders = Holders({}, {}, [])
    rows = _Rows(owner, holders, {}, {})
    known = {
        _name(entry.payload[2]): row
        for entry in owner.table.entries()
        if entry.payload is not None and entry.payload[0] == payloads.SEGMENT and (row := rows.of_entry(entry))
    }
    text = str(error)
    for name, _, _ in error.holders:
        row = known.get(name.removesuffix(COPY_SUFFIX))
        if row is not None:
            made = f"made by `{row.made_by}`" + (f" in {row.cell}" if row.cell else "")
            text = text.replace(name, "; ".join([made, *(f"held by {who}" for who in row.held_by)]))
    return ObjectStoreFullError(text, needed=error.needed, limit=error.limit, holders=error.holders)


class _Rows:
    """Joins what is known of each value here with what nodes say of its segment."""

    def __init__(
        self,
        owner: BaseOwner,
        holders: Holders,
        processes: dict[str, str],
        stores: Stores,
    ) -> None:
        self._owner = owner
        self._refs = holders.refs
        self._cut = holders.cut
        self._mapped = {_name(path): held for path, held in holders.segments.items()}
        self._processes = processes
        #: Where each segment is, by name: node, bytes, place, whether it is mapped.
        self._places: dict[str, list[tuple[str, int, str, bool]]] = {}
        for node, found in stores.items():
            for name, nbytes, where, mapped in found.segments if found is not None else ():
                self._places.setdefault(name, []).append((node, nbytes, where, mapped))
        #: What holds objects here beside variables, by object.
        self._users: dict[str, list[str]] = {}
        self._nbytes: dict[str, int] = {}

    def rows(self) -> list[ObjectUse]:
        entries = self._owner.table.entries()
        works = self._owner.works()
        self._note_users(entries, works)
        rows = [row for entry in entries if (row := self.of_entry(entry)) is not None]
        for work in works:
            if work.args[0] == payloads.SEGMENT:
                name = _name(work.args[2])
                nodes, where, mapped = self._take(name, "memory")
                cell = _cell(work.recipe.cell)
                held = f"arguments of `{work.target.name}`"
                nbytes = segment_nbytes(work.args[3])
                rows.append(
                    ObjectUse("", nbytes, where, nodes, work.target.name, cell, "", (held,), mapped, segment=name)
                )
        rows += [self._of_segment(name) for name in list(self._places)]
        return rows

    def _note_users(self, entries: Iterable[Entry], works: Iterable[Work]) -> None:
        def note(ref: object, user: str) -> None:
            users = self._users.setdefault(getattr(ref, "id", ""), [])
            if user not in users:
                users.append(user)

        for work in works:
            kind = "actor" if work.target.method == CREATE else "task"
            for ref in (*work.dependencies, *work.holds):
                note(ref, f"an argument of {kind} `{work.target.name}`")
        for entry in entries:
            for held in entry.contained:
                note(held, f"the value {entry.object_id}")

    def of_entry(self, entry: Entry) -> ObjectUse | None:
        payload, object_id = entry.payload, entry.object_id
        made_by, cell = origin_of(entry.lineage)
        work = self._owner.results.maker(object_id)
        if work is not None:
            made_by, cell = work.target.name, work.recipe.cell
        nodes: tuple[str, ...] = ()
        nbytes, where, mapped, segment = 0, "pending", False, ""
        held = self._holders_of(entry)
        if payload is not None and payload[0] == payloads.SEGMENT:
            segment = _name(payload[2])
            nbytes = segment_nbytes(payload[3])
            nodes, where, mapped = self._take(segment, "memory")
            nodes = nodes or (payload[1],)
            held += [name for name in _names(self._mapped.pop(segment, None), " (its memory)") if name not in held]
        elif payload is not None:
            nbytes = sum(len(part) for part in payload[1:] if isinstance(part, bytes | bytearray | memoryview))
            where = "failed" if payloads.is_error(payload) else "inline"
            if where == "inline" and (not entry.owner and payload in (payloads.NONE, payloads.NO_MORE)):
                return None  # actors' lives and ends of generators are no values
        owner = self._process(entry.owner) if entry.owner else ""
        return ObjectUse(object_id, nbytes, where, nodes, made_by, _cell(cell), owner, tuple(held), mapped, segment)

    def _holders_of(self, entry: Entry) -> list[str]:
        held = _names(self._refs.get(entry.object_id))
        held += self._users.get(entry.object_id, [])
        held += [self._process(process) for process, count in (entry.borrowers or {}).items() if count > 0]
        if not held and entry.local > 0:
            rest = f", of those looked at ({', '.join(self._cut[:3])} hold too much)" if self._cut else ""
            held.append(f"this process, by no variable{rest}")
        return held

    def _of_segment(self, name: str) -> ObjectUse:
        """Return what is known of a segment that belongs to no value of ours."""
        nodes, where, mapped = self._take(name, "memory")
        nbytes = self._nbytes[name]
        owner_id = name.partition(".")[0]
        held = _names(self._mapped.pop(name.removesuffix(COPY_SUFFIX), None), " (its memory)")
        if where == "leaving":
            where = "freed"
        elif name.endswith(COPY_SUFFIX):
            where = "copy"
        owner = "" if owner_id == self._owner.owner_id else self._process(owner_id)
        return ObjectUse("", nbytes, where, nodes, "", None, owner, tuple(held), mapped, name.removesuffix(COPY_SUFFIX))

    def _take(self, name: str, unknown: str) -> tuple[tuple[str, ...], str, bool]:
        """Return the nodes that have a segment, where, and whether it is mapped; it is dealt with then."""
        places = [*self._places.pop(name, []), *self._places.pop(name + COPY_SUFFIX, [])]
        if not places:
            return (), unknown, False
        self._nbytes[name] = places[0][1]
        return tuple(place[0] for place in places), places[0][2], any(place[3] for place in places)

    def _process(self, process: str) -> str:
        return self._processes.get(process, process)


def _names(held: Held | None, more: str = "") -> list[str]:
    return [name + more for name in (*held.variables, *held.history)] if held is not None else []


def _name(path: str) -> str:
    return path.rpartition("/")[2]


def _cell(tag: str | None) -> str | None:
    return cell_name(tag) if tag is not None else None


async def name_processes(owner: Owner) -> dict[str, str]:
    """Return what each executor is called, by its id."""
    try:
        rows = await owner.controller.ask(lambda request: m.Ask(request, "processes", ()))
    except ShoalError:
        return {}
    return {
        executor_id: f"actor `{label}` on {node_id}" if label else f"a task's process on {node_id}"
        for executor_id, label, node_id in rows
    }
