"""The values of a generator, as they come: the owner's side, and the iterator that users hold."""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING

from shoal.model.errors import GetTimeoutError, SerializationError
from shoal.runtime import payload_kinds as payloads
from shoal.runtime.refs import ObjectRef

if TYPE_CHECKING:
    from shoal.model.messages import Payload
    from shoal.runtime.base_owner import BaseOwner


class Yields:
    """What has arrived of one generator and has not been taken.

    The ref of the next value exists before the value does, so that it can be waited for like any other. It becomes
    ready with the value, with the error that ended the generator, or with :data:`~shoal.runtime.payload.NO_MORE`.
    Values arrive on the event loop and are taken on the user's thread.
    """

    def __init__(self, owner: BaseOwner, task_id: str, object_id: str) -> None:
        self._owner = owner
        self.task_id = task_id
        self.object_id = object_id
        self._lock = threading.Lock()
        #: Values that have arrived, and values that were taken.
        self.received = 0
        self.taken = 0
        #: How many there are in all, once known.
        self._total: int | None = None
        #: Values that have arrived ahead of their turn.
        self._ahead: dict[int, ObjectRef] = {}
        #: Nobody wants any more.
        self.dropped = False
        self.next_ref = self._new_ref(0)

    def arrived(
        self, index: int, payload: Payload, contained: Sequence[ObjectRef] = (), lineage: object = None
    ) -> bool:
        """Value number *index* is here; returns whether it is wanted and new (a second attempt repeats the first)."""
        with self._lock:
            if self.dropped or index != self.received:
                return False
            self.received += 1
            if index == self.taken:
                return self._owner.table.ready(self.next_ref.id, payload, contained, lineage)
            self._ahead[index] = self._new_ref(index, payload, contained, lineage)
            return True

    def ended(self, payload: Payload) -> None:
        """The generator has returned, or has failed with an error: that is then its last value."""
        if payloads.is_error(payload):
            self.arrived(self.received, payload)
        with self._lock:
            self._total = self.received
            if self.taken == self._total and not self.dropped:
                self._owner.table.ready(self.next_ref.id, payloads.NO_MORE)

    def take(self, ref: ObjectRef) -> bool:
        """Take the value of *ref*, which is there, and go on to the next; False if another thread has taken it."""
        with self._lock:
            if ref is not self.next_ref:
                return False
            self.taken += 1
            ahead = self._ahead.pop(self.taken, None)
            if ahead is None:
                ahead = self._new_ref(self.taken, payloads.NO_MORE if self.taken == self._total else None)
            self.next_ref = ahead
            return True

    def drop(self) -> None:
        with self._lock:
            self.dropped = True
            self._ahead.clear()

    @property
    def complete(self) -> bool:
        return self._total is not None

    def _new_ref(
        self,
        index: int,
        payload: Payload | None = None,
        contained: Sequence[ObjectRef] = (),
        lineage: object = None,
    ) -> ObjectRef:
        object_id = f"{self.object_id}.{index}"
        self._owner.table.add(object_id, payload, contained).lineage = lineage
        return ObjectRef(object_id, self._owner.address, self._owner)


class ObjectRefGenerator:
    """The values of a remote generator: an iterator of refs, each there as soon as its value is.

    Use it with ``for`` or ``async for``, once. ``next`` waits for the next value; a ref whose value is the exception
    that ended the generator is the last. With the option ``max_pending`` the generator waits for its consumer.
    Several threads may take from it: each value goes to one of them. Dropping the iterator cancels what still runs.
    """

    def __init__(self, owner: BaseOwner, yields: Yields, bounded: bool) -> None:
        self._owner = owner
        self._yields = yields
        self._bounded = bounded
        self._finished = False

    @property
    def task_id(self) -> str:
        return self._yields.task_id

    def next(self, timeout: float | None = None) -> ObjectRef:
        """Return the next ref; waits for *timeout* seconds at most.

        Raises
        ------
        StopIteration
            There are no more.
        GetTimeoutError
            The next value was not there in time; it can be asked for again.
        """
        deadline = None if timeout is None else time.monotonic() + timeout
        while not self._finished:
            ref = self._yields.next_ref
            left = None if deadline is None else max(0.0, deadline - time.monotonic())
            if not self._owner.wait([ref], 1, left):
                raise GetTimeoutError(f"Waited {timeout:g} s for the next value of `{self.task_id}`.", timeout=timeout)
            if self._take(ref):
                return ref
        raise StopIteration

    def completed(self) -> bool:
        """Return whether the generator has ended, whether or not all its values were taken."""
        return self._yields.complete

    def __iter__(self) -> ObjectRefGenerator:
        return self

    def __next__(self) -> ObjectRef:
        return self.next()

    def __aiter__(self) -> ObjectRefGenerator:
        return self

    async def __anext__(self) -> ObjectRef:
        while not self._finished:
            ref = self._yields.next_ref
            await self._owner.wait_async(ref)
            if self._take(ref):
                return ref
        raise StopAsyncIteration

    def _take(self, ref: ObjectRef) -> bool:
        """Take the value that is there, unless what is there is the end, or another consumer was quicker."""
        if self._owner.is_end(ref):
            self._finished = True
            return False
        if not self._yields.take(ref):
            return False
        if self._bounded:
            self._owner.tell_consumed(self._yields)
        return True

    def __repr__(self) -> str:
        return f"<generator of refs {self.task_id}>"

    def _repr_mimebundle_(self, include: object = None, exclude: object = None) -> dict[str, str]:
        # Imported when one is shown: it brings the runtime, and `import shoal` is to be quick.
        from shoal.model.description import describe_safely
        from shoal.runtime.describing import describe_generator

        title = f"generator of refs {self.task_id}"
        return describe_safely(lambda: describe_generator(self._owner, self._yields), title)

    def __reduce__(self) -> tuple[object, ...]:
        raise SerializationError(
            f"`{self!r}` cannot travel: its values arrive here. Pass on the refs that it gives.", path=repr(self)
        )

    def __del__(self) -> None:
        owner = getattr(self, "_owner", None)
        if owner is not None:
            owner.drop_generator_nowait(self._yields)
