"""The object table of one process: which objects it owns or borrows, where their values are, and who holds them.

The process that makes a ref *owns* the object: it knows the value or its location and frees it when nobody holds it
any more. Any other process that holds a ref is a *borrower* and has told the owner so. An object is held by

- refs in this process (``local``): the user's, those of work in flight, and those of objects whose value contains a
  ref to it,
- borrowers, counted by process, because a borrower's "let go" can overtake the word of whoever handed it the ref:
  counts may pass through -1 and only their coming to rest at zero matters.

The protocol follows the ownership design of Ray (Wang et al., NSDI 2021), with borrows reported when a task ends.
Refs are made on any thread, so one lock guards the table; refs are dropped inside the garbage collector, where
taking a lock could deadlock, so drops go through the I/O shell's inbox and arrive here later.
"""

from __future__ import annotations

import dataclasses
import threading
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

if TYPE_CHECKING:
    from shoal.model.messages import Payload


class Watcher(Protocol):
    """Is called with an entry that is ready, on any thread; not any more once it is over."""

    over: bool

    def __call__(self, entry: Entry, /) -> None: ...


@dataclasses.dataclass(slots=True)
class Entry:
    """One object as this process sees it."""

    object_id: str
    #: Address of the owner; "" if this process owns the object.
    owner: str
    payload: Payload | None = None
    local: int = 0
    #: How often the owner counts this process as a borrower, once it has heard all that is under way to it; 0 while a
    #: task that brought the ref is still running here.
    counts: int = 1
    #: That task.
    brought_by: str = ""
    #: It has passed the object on: then it stays to the task's end and is counted, as what we say of others may come
    #: to the owner later than the word of whoever holds the object for the task's time that it has let go.
    passed_on: bool = False
    #: We owned it and had let it go when a ref to it came back, from somebody whom we did not count (any more).
    released: bool = False
    #: Counts by process; made when there is the first.
    borrowers: dict[str, int] | None = None
    #: Refs inside this object's value; they hold their objects while this entry lives.
    contained: tuple[object, ...] = ()
    #: How a large value of ours was made, or why it cannot be made again: the I/O shell's business.
    lineage: Any = None
    #: Called once with the entry when the value is ready; may be called on any thread.
    waiters: list[Callable[[Entry], None]] | None = None

    @property
    def held(self) -> bool:
        return self.local > 0 or bool(self.borrowers) or self.passed_on


class Free(NamedTuple):
    """This process owned the object and nobody holds it: release the copy that ``payload`` names."""

    object_id: str
    payload: Payload | None
    #: Somebody waits for its value who is not counted (any more).
    awaited: Entry | None = None


class LetGo(NamedTuple):
    """This process borrowed the object and no longer holds it: tell the owner."""

    object_id: str
    owner: str
    #: How often it counts us.
    counts: int


Action = Free | LetGo


class ObjectTable:
    """See the module's description. Thread-safe; its actions are to be carried out by the caller."""

    def __init__(self) -> None:
        self._entries: dict[str, Entry] = {}
        #: By the task that brought them.
        self._uncounted: dict[str, dict[str, Entry]] = {}
        self._lock = threading.Lock()

    def __len__(self) -> int:
        return len(self._entries)

    def __contains__(self, object_id: str) -> bool:
        return object_id in self._entries

    def get(self, object_id: str) -> Entry | None:
        return self._entries.get(object_id)

    def entries(self) -> list[Entry]:
        with self._lock:
            return list(self._entries.values())

    def add(self, object_id: str, payload: Payload | None = None, contained: Iterable[object] = ()) -> Entry:
        """Own a new object, held by one local ref."""
        # Nobody knows of it yet, and putting it into the dict is one step: no lock.
        entry = self._entries[object_id] = Entry(object_id, "", payload, 1, contained=tuple(contained))
        return entry

    def retain(self, object_id: str, owner: str, *, brought_by: str = "", payload: Payload | None = None) -> bool:
        """Hold one more local ref; returns whether this process has just become a borrower.

        The owner is then to be told, unless the ref was *brought_by* a task: it learns of it when the task ends.
        *payload* is where the value was when the ref set out. Of what this process owns, returns whether it had been
        released.
        """
        with self._lock:
            entry = self._entries.get(object_id)
            new = entry is None
            if entry is None:
                counts, released = int(not brought_by), not owner
                entry = Entry(object_id, owner, payload, counts=counts, brought_by=brought_by, released=released)
                self._entries[object_id] = entry
                if brought_by:
                    self._uncounted.setdefault(brought_by, {})[object_id] = entry
            entry.local += 1
            return new

    def retain_counted(self, object_id: str, owner: str) -> None:
        """Hold one more local ref, for which the owner counts us once more.

        That may be once too often. It hears so when we let go, not before: our word could come ahead of that count,
        and cancel another that is all that the owner knows of us.
        """
        with self._lock:
            entry = self._entries.get(object_id)
            if entry is None:
                entry = self._entries[object_id] = Entry(object_id, owner, counts=0)
            elif not entry.counts:
                self._forget_uncounted(entry)
            entry.local += 1
            entry.counts += 1
            entry.passed_on = False

    def pass_on(self, object_id: str) -> None:
        """The owner of a borrowed object is being told of another borrower."""
        with self._lock:
            entry = self._entries.get(object_id)
            if entry is not None and not entry.counts and entry.brought_by:
                entry.passed_on = True

    def count_uncounted(self, task_id: str) -> tuple[list[Entry], list[Action]]:
        """Return the borrowed objects that a task has brought and their owners do not know of; they count from now on.

        The actions are for those that nobody holds any more.
        """
        if not self._uncounted:
            return [], []
        with self._lock:
            found = list(self._uncounted.pop(task_id, {}).values())
            actions: list[Action] = []
            for entry in found:
                entry.counts, entry.passed_on = 1, False
                actions += self._check(entry)
            return found, actions

    def release(self, object_id: str) -> list[Action]:
        """Drop one local ref."""
        with self._lock:
            entry = self._entries.get(object_id)
            if entry is None:
                return []
            entry.local -= 1
            return self._check(entry)

    def borrow(self, object_id: str, borrower: str, change: int) -> list[Action]:
        """A borrower holds the object (+1) or has let it go (-1)."""
        with self._lock:
            entry = self._entries.get(object_id)
            if entry is None or entry.released:
                return []
            borrowers = entry.borrowers
            if borrowers is None:
                borrowers = entry.borrowers = {}
            count = borrowers.get(borrower, 0) + change
            if count:
                borrowers[borrower] = count
            else:
                borrowers.pop(borrower, None)
            return self._check(entry)

    def borrower_gone(self, borrower: str) -> list[Action]:
        """A process has ended, and every borrow of its with it."""
        with self._lock:
            actions: list[Action] = []
            for entry in list(self._entries.values()):
                if entry.borrowers and entry.borrowers.pop(borrower, 0):
                    actions += self._check(entry)
            return actions

    def owner_gone(self, owner: str) -> None:
        """A process has ended, or was cut off: it does not count us any more, nor is it to hear that we let go."""
        with self._lock:
            for entry in self._entries.values():
                if entry.owner == owner and entry.counts:
                    entry.counts, entry.brought_by = 0, ""

    def ready(self, object_id: str, payload: Payload, contained: Iterable[object] = (), lineage: Any = None) -> bool:
        """The value has come. Returns whether anybody still holds the object and it had none yet."""
        with self._lock:
            entry = self._entries.get(object_id)
            if entry is None or entry.payload is not None:
                return False
            entry.payload = payload
            # Of a value that was lost, somebody may still be reading a copy, and hold its refs by our leave.
            entry.contained += tuple(contained)
            entry.lineage = lineage
            waiters, entry.waiters = entry.waiters, None
        for waiter in waiters or ():
            waiter(entry)
        return True

    def give_up(self, entry: Entry, payload: Payload) -> None:
        """Tell who waits for an object that is not in the table any more."""
        with self._lock:
            entry.payload = payload
            waiters, entry.waiters = entry.waiters, None
        for waiter in waiters or ():
            waiter(entry)

    def lose(self, object_id: str, payload: Payload) -> bool:
        """The value cannot be read where *payload* says; returns whether that is what was known, and is no more."""
        with self._lock:
            entry = self._entries.get(object_id)
            if entry is None or entry.payload != payload:
                return False
            entry.payload = None
            return True

    def when_ready(self, entry: Entry, waiter: Callable[[Entry], None]) -> None:
        """Call *waiter* as soon as the value is there: now, or on the thread that brings it."""
        with self._lock:
            if entry.payload is None:
                if entry.waiters is None:
                    entry.waiters = [waiter]
                else:
                    entry.waiters.append(waiter)
                return
        waiter(entry)

    def watch(self, entries: Iterable[Entry], watcher: Watcher) -> None:
        """Call *watcher* with each of *entries* when it is ready, until it is ``over``.

        One that is over is forgotten when the next comes, so that leaving costs nothing.
        """
        already = []
        with self._lock:
            for entry in entries:
                if entry.payload is not None:
                    already.append(entry)
                elif entry.waiters is None:
                    entry.waiters = [watcher]
                else:
                    entry.waiters = [waiter for waiter in entry.waiters if not getattr(waiter, "over", False)]
                    entry.waiters.append(watcher)
        for entry in already:
            watcher(entry)

    def forget_waiter(self, entry: Entry, waiter: Callable[[Entry], None]) -> None:
        with self._lock:
            if entry.waiters and waiter in entry.waiters:
                entry.waiters.remove(waiter)

    def _check(self, entry: Entry) -> list[Action]:
        if entry.held or self._entries.get(entry.object_id) is not entry:
            return []
        del self._entries[entry.object_id]
        if not entry.owner:
            return [Free(entry.object_id, entry.payload, entry if entry.waiters else None)]
        if entry.counts:
            return [LetGo(entry.object_id, entry.owner, entry.counts)]
        self._forget_uncounted(entry)
        return []

    def _forget_uncounted(self, entry: Entry) -> None:
        brought = self._uncounted.get(entry.brought_by, {})
        brought.pop(entry.object_id, None)
        if not brought:
            self._uncounted.pop(entry.brought_by, None)
