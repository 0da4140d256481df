"""Dask's values as objects of ours, and the other way round, without a detour through the driver.

From Dask, a small Dask task on the worker that has the value puts it into that node's store and returns where it is;
the driver owns the object from then on. To Dask, a small Dask task, on the node that has the value if that is known,
borrows the object, maps its memory (or has it fetched), and lets it go. Both tasks are in
:mod:`shoal.launch.dask_tasks`; this is the driver's side.

A Dask future belongs to the client that made it: that one has told, or is about to tell, the scheduler of it, and no
other can get its value. So what comes from Dask is stored through the client that made it, and what goes there belongs
to the client that user code works with, if that is connected to our cluster. For all else, the link has its own.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import contextlib
import threading
import warnings
from collections.abc import Coroutine
from typing import Any

from dask.delayed import Delayed, delayed
from distributed import Client, Future
from distributed.versions import VersionMismatchWarning

from shoal.launch import dask_tasks
from shoal.launch.dask_parts import Part, clients_of, compute_here, parts_of
from shoal.model.errors import ConnectError, NotInitializedError, OptionError, TaskCancelledError
from shoal.model.ids import new_object_id
from shoal.model.messages import Payload
from shoal.runtime import payload as payloads
from shoal.runtime.base_owner import BaseOwner
from shoal.runtime.inline import InlineOwner
from shoal.runtime.lineage import Origin
from shoal.runtime.owner import Owner
from shoal.runtime.refs import ObjectRef

#: Seconds in which the scheduler answers a new client, and in which that client closes.
CONNECT_TIMEOUT, CLOSE_TIMEOUT = 10.0, 5.0
#: What is there already is stored before Dask does other work: it may then let its own copy go.
PRIORITY = 1
#: Why a value that is lost with its node is not made again.
FROM_DASK = Origin("Dask made it, not a task of shoal's", "Dask")


class DaskLink:
    """An owner's line to Dask. For any thread."""

    def __init__(self, owner: Owner) -> None:
        self._owner = owner
        self._lock = threading.Lock()
        self._client: Client | None = None
        self._closed = False
        #: Coroutines that wait for Dask's work, on the loops of its clients.
        self._followed: set[concurrent.futures.Future[None]] = set()

    def store(self, given: Any) -> ObjectRef | list[ObjectRef]:
        """Make objects of what :func:`shoal.from_dask` was given."""
        parts = parts_of(given)
        clients = [client or self.client for client in clients_of(given, parts)]
        for client in set(clients):
            self._check(client)
        refs = [_add(self._owner) for _ in parts]
        for client in set(clients):
            chosen = [index for index, its in enumerate(clients) if its is client]
            self._store_with(client, [parts[index] for index in chosen], [refs[index] for index in chosen])
        return refs[0] if isinstance(given, Future) else refs

    def load(self, ref: ObjectRef, client: Client | None) -> Future[Any]:
        """Return a Dask future of what *ref* refers to; see :meth:`shoal.ObjectRef.to_dask`."""
        if client is None:
            client = self._client_in_use()
        elif not isinstance(client, Client):
            raise TypeError(f"`client` must be a Dask client, or None, not {type(client).__name__}.")
        else:
            self._check(client)
        where: dict[str, Any] = {}
        entry = self._owner.table.get(ref.id)
        if entry is not None and entry.payload is not None and entry.payload[0] == payloads.SEGMENT:
            where = {"workers": [entry.payload[1]], "allow_other_workers": True}
        future = client.submit(
            dask_tasks.load, ref.id, ref._owner_address, key=dask_tasks.load_key(ref.id), pure=False, **where
        )
        self._follow(client, _keep_until_done(ref, future))
        return future

    def close(self) -> None:
        """Wait for nothing any more; the link's own client closes, and its futures are cancelled."""
        with self._lock:
            self._closed = True
            client, self._client = self._client, None
        for followed in list(self._followed):
            followed.cancel()
        if client is not None:
            with contextlib.suppress(OSError, TimeoutError):  # its scheduler may be gone
                client.close(CLOSE_TIMEOUT)

    @property
    def client(self) -> Client:
        """The link's own client, made when it is first needed.

        Raises
        ------
        ConnectError
            The scheduler does not answer.
        """
        with self._lock:
            if self._closed:
                raise NotInitializedError("The session has ended, and with it its line to Dask.")
            if self._client is None or not _address_of(self._client):
                config = self._owner.config
                with warnings.catch_warnings():
                    # Dask has a table of its own; ours said what follows from it when the cluster was joined.
                    warnings.simplefilter("ignore", VersionMismatchWarning)
                    try:
                        self._client = Client(
                            config.controller,
                            security=config.security,
                            timeout=CONNECT_TIMEOUT,
                            set_as_default=False,
                            name="shoal",
                        )
                    except (OSError, TimeoutError) as error:
                        raise ConnectError(
                            f"The Dask scheduler at `{config.controller}` does not answer: {error}",
                            address=config.controller,
                        ) from error
            return self._client

    def _client_in_use(self) -> Client:
        """Return the client that Dask's own functions would use here, if it is one of our cluster, else the link's."""
        try:
            client = Client.current()
        except ValueError:  # there is none
            return self.client
        return client if self._is_ours(client) else self.client

    def _check(self, client: Client) -> None:
        if self._is_ours(client):
            return
        theirs, ours = _address_of(client), self._owner.config.controller
        if not theirs:
            text = "The Dask client that this belongs to is closed: compute it with another, or leave `client` out."
        else:
            text = (
                f"This belongs to the Dask cluster at `{theirs}`, and shoal uses the one at `{ours}`. Compute it there,"
                " or call `shoal.shutdown()`, and `shoal.init()` with the other one."
            )
        raise OptionError(text, option="client")

    def _is_ours(self, client: Client) -> bool:
        """Whether *client* is connected to the scheduler that our controller is in."""
        address = _address_of(client)
        if not address:
            return False
        if client is self._client or address == self._owner.config.controller:
            return True
        # One scheduler can have several addresses, but only one id.
        return bool(client.scheduler_info(n_workers=1)["id"] == self.client.scheduler_info(n_workers=1)["id"])

    def _store_with(self, client: Client, parts: list[Part], refs: list[ObjectRef]) -> None:
        """Have the parts stored through one client."""
        owner = self._owner
        later: list[tuple[ObjectRef, Any]] = []
        for part, ref in zip(parts, refs, strict=True):
            key = dask_tasks.store_key(ref.id)
            arguments = (part, ref.id, owner.owner_id, owner.address)
            if isinstance(part, Delayed):
                later.append((ref, delayed(dask_tasks.store, pure=False)(*arguments, dask_key_name=key)))
            else:
                future = client.submit(dask_tasks.store, *arguments, key=key, pure=False, priority=PRIORITY)
                self._follow(client, self._settle(ref.id, future), ref)
        if later:  # in one graph: what parts have in common is computed once
            futures = client.compute([stored for _, stored in later])
            for (ref, _), future in zip(later, futures, strict=True):
                self._follow(client, self._settle(ref.id, future), ref)

    def _follow(self, client: Client, coroutine: Coroutine[Any, Any, None], ref: ObjectRef | None = None) -> None:
        """Run *coroutine* on the client's loop; if it makes what *ref* refers to, cancelling that stops it."""
        loop: Any = client.loop
        followed = asyncio.run_coroutine_threadsafe(coroutine, loop.asyncio_loop)
        self._followed.add(followed)
        followed.add_done_callback(self._followed.discard)
        if ref is not None:
            object_id, stoppers = ref.id, self._owner.stoppers
            stoppers[object_id] = followed.cancel
            followed.add_done_callback(lambda _: stoppers.pop(object_id, None))

    async def _settle(self, object_id: str, future: Future[Any]) -> None:
        """Hand what *future* comes to on to whoever has a ref to it."""
        contained: dask_tasks.Contained = ()
        try:
            error = await future.exception(asynchronous=True)
            if error is None:
                payload, contained = await future.client.gather(future, asynchronous=True)
            else:
                payload = payloads.from_error(error.with_traceback(await future.traceback()))
        except asyncio.CancelledError:  # by `shoal.cancel`; or the loop ends, because the client was closed
            if not self._closed:
                self._deliver_soon(object_id, _cancelled(f"`{object_id}` was cancelled.", future), ())
            raise
        except concurrent.futures.CancelledError as error:  # Dask's
            payload = _cancelled(f"Dask cancelled what was to become `{object_id}`: {error}", future)
        except Exception as error:  # boundary: whatever Dask raises becomes the ref's error
            payload = payloads.from_error(error)
        # Dask keeps its result, and the refs inside, as long as we have the future: until we hold them ourselves.
        await asyncio.wrap_future(self._deliver_soon(object_id, payload, contained))

    def _deliver_soon(
        self, object_id: str, payload: Payload, contained: dask_tasks.Contained
    ) -> concurrent.futures.Future[None]:
        return asyncio.run_coroutine_threadsafe(self._deliver(object_id, payload, contained), self._owner.loop)

    async def _deliver(self, object_id: str, payload: Payload, contained: dask_tasks.Contained) -> None:
        owner = self._owner
        refs = [owner.ownership.hold_counted(*ref) for ref in contained]
        if not owner.table.ready(object_id, payload, refs, FROM_DASK):
            owner.ownership.free(payload)


async def _keep_until_done(ref: ObjectRef, future: Future[Any]) -> None:
    """Hold *ref* until Dask has its value, or will not get it."""
    await future.exception(asynchronous=True)


def store_here(owner: InlineOwner, given: Any) -> ObjectRef | list[ObjectRef]:
    """As :meth:`DaskLink.store`, in a process that has no cluster: Dask's threaded scheduler computes it here.

    If a part fails, that is the error of all.
    """
    parts = parts_of(given)
    clients = clients_of(given, parts)
    try:
        refs = [owner.put(value) for value in compute_here(parts, clients)]
    except Exception as error:  # boundary: user code
        payload = payloads.from_error(error)
        owner.keep_error(payload, error)
        refs = [_add(owner, payload) for _ in parts]
    return refs[0] if isinstance(given, Future) else refs


def _add(owner: BaseOwner, payload: Payload | None = None) -> ObjectRef:
    """Own a new object."""
    owner.check_usable()
    object_id = new_object_id()
    owner.table.add(object_id, payload)
    return ObjectRef(object_id, owner.address, owner)


def _address_of(client: Client) -> str:
    """Return the address of the client's scheduler; "" if it is closed."""
    closed = client.scheduler is None or client.status in ("closing", "closed")
    return "" if closed else str(client.scheduler.address)  # type: ignore[union-attr]


def _cancelled(text: str, future: Future[Any]) -> Payload:
    return payloads.from_error(TaskCancelledError(text, task_id=str(future.key)))


__all__ = ["DaskLink", "store_here"]
