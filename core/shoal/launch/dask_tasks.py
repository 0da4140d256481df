"""What runs in Dask workers for :mod:`shoal.launch.dask_interop`: two small Dask tasks, one each way.

The node agent lives in the same process, and with it the node's store is at hand.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Callable
from typing import Any

from distributed.diagnostics.plugin import WorkerPlugin
from distributed.worker import Worker, get_worker
from distributed.worker_state_machine import SecedeEvent

from shoal.machines.objects import Entry
from shoal.model.errors import ConnectError, SerializationError, ShoalError
from shoal.model.ids import random_id
from shoal.model.messages import Payload
from shoal.runtime import payload as payloads
from shoal.runtime.agent_plugin import AgentPlugin
from shoal.runtime.owner import Owner, OwnerConfig
from shoal.runtime.refs import ObjectRef
from shoal.runtime.serialization import dumps
from shoal.runtime.store import Store
from shoal.transport.comms import address_host

#: Seconds after which a task that waits for a value no longer counts as one that uses a thread of its Dask worker.
MOMENT = 0.1
#: Ids and owners' addresses of the refs inside a value.
Contained = tuple[tuple[str, str], ...]


def store_key(object_id: str) -> str:
    """Return the key of the Dask task that stores a value as the object *object_id*."""
    return f"shoal-store-{object_id}"


def load_key(object_id: str) -> str:
    """Return the key of the Dask task whose result is the value of *object_id*."""
    return f"shoal-load-{object_id}"


class Stored:
    """Result of :func:`store`: where the value is.

    Dask pickles it to send it to the driver, where it arrives as a payload and the refs inside the value. That is how
    the driver takes the copy over. If Dask drops the result before (it was cancelled, the driver has ended), the copy
    goes with it: nobody else knows of it.
    """

    def __init__(
        self,
        payload: Payload,
        contained: list[ObjectRef],
        receiver: str,
        address: str,
        loop: asyncio.AbstractEventLoop,
    ) -> None:
        self._payload = payload
        self._contained = contained
        self._receiver = receiver
        self._address = address
        self._loop = loop
        self._taken = False

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[Any, ...]]:
        if not self._taken:  # pickled once more, it is still the same driver's
            self._taken = True
            for ref in self._contained:
                self._hand_over(ref)
        contained = tuple((ref.id, ref._owner_address) for ref in self._contained)
        return tuple, ((self._payload, contained),)

    def _hand_over(self, ref: ObjectRef) -> None:
        """Have the driver counted as a borrower, unless it is in this process and owns or borrows the object itself."""
        owner = ref._owner
        if isinstance(owner, Owner) and owner.owner_id != self._receiver:
            owner.inbox.put(self._count_driver, ref)

    def _count_driver(self, ref: ObjectRef) -> None:
        assert isinstance(ref._owner, Owner)
        ref._owner.ownership.hand_over([ref], self._receiver, self._address)

    def __del__(self) -> None:
        if not self._taken:
            # Perhaps in the garbage collector, on any thread: take no lock here.
            with contextlib.suppress(RuntimeError):  # the worker has ended, and its store with it
                self._loop.call_soon_threadsafe(payloads.free, self._payload)


def store(value: Any, object_id: str, receiver: str, address: str) -> Stored:
    """Put *value* into this node's store, for the owner *receiver* at *address*; small ones stay as they are."""
    worker = get_worker()
    frames, contained = dumps(value, "value of the Dask task")
    payload = payloads.from_frames(frames, _store_of(worker), f"{receiver}.{object_id}")
    loop: Any = worker.loop
    return Stored(payload, contained, receiver, address, loop.asyncio_loop)


async def load(object_id: str, owner_address: str) -> Any:
    """Return the value of an object as soon as it is ready.

    This process borrows the object meanwhile, as one does that has got a ref inside a value. A task that waits gives
    its place in the Dask worker to others.
    """
    begin, worker = time.monotonic(), get_worker()
    owner = await Borrower.of(worker).owner()
    ref = owner.hold(object_id, owner_address)
    waiting = asyncio.ensure_future(owner.wait_async(ref))
    try:
        await asyncio.wait([waiting], timeout=MOMENT)
        if not waiting.done():
            secede = SecedeEvent(
                key=load_key(object_id),
                compute_duration=time.monotonic() - begin,
                stimulus_id=f"shoal-waits-{object_id}",
            )
            worker.handle_stimulus(secede)
        payload, has_refs = _look_at(await waiting)
        if has_refs:
            raise SerializationError(
                f"The value of `{object_id}` contains refs, which Dask cannot keep alive: get their values first, and "
                "put those into it.",
                path=object_id,
            )
        if payload is not None and payloads.is_error(payload):
            payloads.load(payload)
        try:
            [value] = await asyncio.to_thread(owner.get, [ref], None)
        except Exception as error:  # it could not be read
            raise error.with_traceback(None) from None
        return value
    finally:
        waiting.cancel()
        # Dask keeps an exception together with the frames that it came through: they must not keep the object.
        del ref, waiting


def _look_at(entry: Entry) -> tuple[Payload | None, bool]:
    """Return an object's payload, and whether there are refs in its value."""
    return entry.payload, bool(entry.contained)


class Borrower(WorkerPlugin):
    """Holds objects in this process for as long as :func:`load` needs them; ends with its Dask worker."""

    name = "shoal-borrower"

    def __init__(self, worker: Worker) -> None:
        self._worker = worker
        self._starting: asyncio.Task[Owner] | None = None

    @staticmethod
    def of(worker: Worker) -> Borrower:
        """Return the worker's own; made when it is first needed."""
        found = worker.plugins.get(Borrower.name)
        if not isinstance(found, Borrower):
            found = worker.plugins[Borrower.name] = Borrower(worker)
        return found

    async def owner(self) -> Owner:
        """Return the runtime that borrows, once it is up."""
        starting = self._starting
        if starting is None or (starting.done() and starting.exception() is not None):
            starting = self._starting = asyncio.create_task(self._start())
        return await asyncio.shield(starting)

    async def _start(self) -> Owner:
        worker = self._worker
        config = OwnerConfig(
            owner_id=random_id("dask"),
            job_id="",
            controller=worker.scheduler.address,
            security=worker.security,
            host=address_host(worker.address),
            is_driver=False,
            store=_store_of(worker),
        )
        owner = Owner(config)
        await owner.start()
        return owner

    async def teardown(self, worker: Worker) -> None:
        """Let everything go."""
        if self._starting is not None:
            with contextlib.suppress(ShoalError, OSError):  # it never came up
                await (await self._starting).close()


def _store_of(worker: Worker) -> Store:
    plugin = worker.plugins.get(AgentPlugin.name)
    found = plugin.store if isinstance(plugin, AgentPlugin) else None
    if found is None:
        raise ConnectError(f"The Dask worker `{worker.address}` has no node agent of shoal.", address=worker.address)
    return found


__all__ = ["Borrower", "Contained", "Stored", "load", "load_key", "store", "store_key"]
