"""What a process owns and borrows: the I/O shell of the object table.

It tells owners who holds their objects, answers borrowers when a value is ready, and releases the copies of what
nobody holds any more.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from shoal.machines import objects
from shoal.model import messages as m
from shoal.model.errors import ObjectLostError, OwnerDiedError
from shoal.runtime import payload as payloads
from shoal.runtime.context import get_current
from shoal.runtime.peers import Peers
from shoal.runtime.refs import ObjectRef
from shoal.transport.stream import Stream

if TYPE_CHECKING:
    from shoal.runtime.owner import Owner


class Ownership:
    """See the module's description. Lives on the owner's event loop, except for what its name says otherwise."""

    def __init__(self, owner: Owner, peers: Peers, on_freed: Callable[[str], None]) -> None:
        """``on_freed(object_id)`` is called for each object of ours that nobody holds any more."""
        self.table = owner.table
        self._owner = owner
        self._owner_id = owner.config.owner_id
        self._peers = peers
        self._on_freed = on_freed
        #: Borrowers that were named by others, by address.
        self._borrowers: dict[str, str] = {}

    def hold_from_any_thread(self, object_id: str, owner_address: str, location: m.Payload | None = None) -> ObjectRef:
        """Make a ref that has arrived inside a value."""
        if owner_address == self._peers.address:
            self._hold_own(object_id)
        else:
            context = get_current()
            task_id = "" if context is None else context.task_id
            if self.table.retain(object_id, owner_address, brought_by=task_id, payload=location) and not task_id:
                self._owner.inbox.put(self._tell_borrow, (object_id, owner_address, 1))
        return ObjectRef(object_id, owner_address, self._owner)

    def hold_counted(self, object_id: str, owner_address: str) -> ObjectRef:
        """Hold an object for which its owner already counts us once more."""
        if owner_address == self._peers.address:
            self._hold_own(object_id)
        else:
            self.table.retain_counted(object_id, owner_address)
        return ObjectRef(object_id, owner_address, self._owner)

    def _hold_own(self, object_id: str) -> None:
        if self.table.retain(object_id, ""):
            self.table.ready(object_id, _released(object_id))

    def drop(self, object_id: str) -> None:
        """Let one ref go."""
        self.carry_out(self.table.release(object_id))

    def hand_over(self, contained: Sequence[ObjectRef], receiver: str, address: str) -> tuple[tuple[str, str], ...]:
        """Have the owners of refs in a value that is about to be sent count *receiver* as a borrower."""
        for ref in contained:
            if ref._owner_address == self._peers.address:
                self.carry_out(self.table.borrow(ref.id, receiver, 1))
            elif ref._owner_address != address:
                self.table.pass_on(ref.id)
                self._peers.send(ref._owner_address, m.Borrow(ref.id, receiver, 1, address))
        return tuple((ref.id, ref._owner_address) for ref in contained)

    def retained(self, task_id: str) -> tuple[tuple[str, str], ...]:
        """Return the borrowed objects that a task brought and that are still held now that it ends."""
        found, actions = self.table.count_uncounted(task_id)
        self.carry_out(actions)
        return tuple((entry.object_id, entry.owner) for entry in found)

    def count_retained_by(self, peer_id: str, address: str, retained: Sequence[tuple[str, str]]) -> None:
        """A peer goes on holding objects that we gave it for the time of a task."""
        for object_id, owner_address in retained:
            if owner_address == self._peers.address:
                self.carry_out(self.table.borrow(object_id, peer_id, 1))
            else:
                self.table.pass_on(object_id)
                self._peers.send(owner_address, m.Borrow(object_id, peer_id, 1, address))

    def borrow_retained(self, task_id: str) -> None:
        """Tell the owners of such objects ourselves, where nobody else does."""
        found, actions = self.table.count_uncounted(task_id)
        for entry in found:
            self._tell_borrow((entry.object_id, entry.owner, 1))
        self.carry_out(actions)

    def locate(self, entry: objects.Entry) -> None:
        """Ask the owner of a borrowed object for its value."""
        if entry.payload is None:
            self._peers.send(entry.owner, m.Locate(entry.object_id))

    def answer_locate(self, stream: Stream, object_id: str) -> None:
        """A borrower wants to know the value as soon as there is one."""
        entry = self.table.get(object_id)
        if entry is None:
            stream.send_nowait(m.Located(object_id, _released(object_id), ()))
            return

        def answer(entry: objects.Entry) -> None:
            if stream.closed:  # nobody would let go what is handed over
                return
            assert entry.payload is not None
            refs = [ref for ref in entry.contained if isinstance(ref, ObjectRef)]
            stream.send_nowait(
                m.Located(object_id, entry.payload, self.hand_over(refs, stream.peer_id, stream.address))
            )

        self.when_there(entry, answer)

    def when_there(self, entry: objects.Entry, go_on: Callable[[objects.Entry], None]) -> None:
        """Call *go_on* on the loop when the value is there; it may come on a user's thread, and be lost by then."""

        def look(entry: objects.Entry) -> None:
            if entry.payload is None:
                self.when_there(entry, go_on)
            else:
                go_on(entry)

        self.table.when_ready(entry, lambda entry: self._owner.inbox.put(look, entry))

    def located(self, message: m.Located) -> None:
        """An owner has answered."""
        refs = [self.hold_counted(inner, owner) for inner, owner in message.contained]
        self.table.ready(message.object_id, message.payload, refs)

    def borrowed(self, message: m.Borrow) -> None:
        """Somebody holds an object of ours, or has let it go."""
        if message.borrower != self._owner_id:
            if message.change > 0:  # it may have ended, or may end before it has a word for us
                self._borrowers[message.address] = message.borrower
                self._peers.watch(message.address)
            self.carry_out(self.table.borrow(message.object_id, message.borrower, message.change))

    def peer_lost(self, address: str, peer_id: str) -> None:
        """A process has ended: what it owned is lost, what it borrowed is let go."""
        for entry in self.table.entries():
            if entry.owner == address and entry.payload is None:
                object_id = entry.object_id
                error = OwnerDiedError(f"The process that owned `{object_id}` is gone.", object_id=object_id)
                self.table.ready(object_id, payloads.from_error(error))
        self.table.owner_gone(address)
        peer_id = self._borrowers.pop(address, peer_id)
        if peer_id:
            self.carry_out(self.table.borrower_gone(peer_id))

    def carry_out(self, actions: list[objects.Action]) -> None:
        for action in actions:
            if isinstance(action, objects.LetGo):
                self._tell_borrow((action.object_id, action.owner, -action.counts))
                continue
            self._on_freed(action.object_id)
            if action.awaited is not None:
                self.table.give_up(action.awaited, _released(action.object_id))
            if action.payload is not None:
                self.free(action.payload)

    def free(self, payload: m.Payload) -> None:
        """Release the copy that a payload names."""
        if payload[0] == payloads.MANY:
            for part in payload[1:]:
                self.free(part)
            return
        if payload[0] == payloads.SEGMENT:
            self._owner.cell_memory.touch()
        holder = payloads.free(payload)
        if holder is not None:
            self._peers.send(holder, m.FreeSegment(payload[2]), agent=True)

    def free_all(self) -> None:
        """Release what this process owns: it is about to end."""
        for entry in self.table.entries():
            if not entry.owner and entry.payload is not None:
                payloads.free(entry.payload)

    def fail_all(self, payload: m.Payload) -> None:
        """Nothing pending can be finished: give every waiting ref this error."""
        for entry in self.table.entries():
            if entry.payload is None:
                self.table.ready(entry.object_id, payload)

    def _tell_borrow(self, change: tuple[str, str, int]) -> None:
        object_id, owner_address, amount = change
        if not self._owner.closing:
            self._peers.send(owner_address, m.Borrow(object_id, self._owner_id, amount, self._peers.address))


def _released(object_id: str) -> m.Payload:
    return payloads.from_error(ObjectLostError(f"`{object_id}` was released by its owner.", object_id=object_id))
