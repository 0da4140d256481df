"""Streams to other processes, by address: opened on first use, shared by everything that talks to that process."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

from shoal.model.errors import ConnectError
from shoal.model.messages import PROTOCOL_VERSION, Message, PeerHello
from shoal.runtime.links import Links
from shoal.runtime.scope import Scope
from shoal.transport.comms import Security, connect, listen
from shoal.transport.local import LocalStream, connect_local, listen_local, stop_listening
from shoal.transport.stream import Comm, Stream

CONNECT_TIMEOUT = 10.0


class Peers:
    """All streams between this process and its peers (owners, executors, agents).

    ``send`` never waits: messages queue while the stream is being opened. ``on_message(stream, message)`` gets
    everything but greetings and ``after_batch()`` follows each batch; ``on_lost(address, owner_id)`` is called once
    when a stream ends, or could not be opened.
    """

    def __init__(
        self,
        security: Security,
        scope: Scope,
        on_message: Callable[[Stream, Message], None],
        on_lost: Callable[[str, str], None],
        after_batch: Callable[[], None],
    ) -> None:
        self._security = security
        self._scope = scope
        self._on_message = on_message
        self._on_lost = on_lost
        self._after_batch = after_batch
        self._links: Links[Stream] = Links(on_message, on_lost)
        #: Messages for a peer whose stream is being opened, and the future that says how that ended.
        self._opening: dict[str, tuple[list[Message], asyncio.Future[bool]]] = {}
        self._streams: set[Stream] = set()
        self._listener: Any = None
        self._local_listener: asyncio.Server | None = None
        self.address = ""
        #: What a greeting says, but for the losses; none where nobody listens.
        self._hello: PeerHello | None = None

    async def start(self, host: str, like_address: str, owner_id: str, job_id: str) -> None:
        """Listen on a free port of *host* with the protocol of *like_address*, and for peers on this machine."""
        self._listener, self.address = await listen(host, like_address, self._security, self._accept)
        self._local_listener = await listen_local(self.address, self._accept_local)
        self._hello = PeerHello(PROTOCOL_VERSION, owner_id, job_id, self.address, 0)

    def stream(self, address: str) -> Stream | None:
        """Return the open stream to *address*, if there is one."""
        return self._links.get(address)

    def streams(self) -> list[Stream]:
        """Return every stream that is open, whoever has opened it."""
        return list(self._streams)

    def send(self, address: str, message: Message, *, agent: bool = False) -> None:
        """Send *message* to the process at *address*; ``agent`` says that a Dask worker answers there."""
        stream = self._links.get(address)
        if stream is not None:
            stream.send_nowait(message)
        else:
            self._begin(address, agent)[0].append(message)

    def watch(self, address: str) -> None:
        """See to it that ``on_lost`` is called when the process at *address* ends, or has ended."""
        if self._links.get(address) is None:
            self._begin(address, agent=False)

    async def reach(self, address: str) -> bool:
        """Open the stream to *address* unless it is open; returns whether it is then."""
        return self._links.get(address) is not None or await asyncio.shield(self._begin(address, agent=False)[1])

    async def close(self, timeout: float) -> None:
        if self._listener is not None:
            self._listener.stop()
        if self._local_listener is not None:
            await stop_listening(self._local_listener)
        await asyncio.gather(*(stream.close(timeout) for stream in self._streams))

    def _begin(self, address: str, agent: bool) -> tuple[list[Message], asyncio.Future[bool]]:
        opening = self._opening.get(address)
        if opening is None:
            opening = self._opening[address] = ([], asyncio.get_running_loop().create_future())
            self._scope.start(self._open(address, agent))
        return opening

    async def _open(self, address: str, agent: bool) -> None:
        try:
            stream = await self._connect(address, agent)
        except ConnectError:
            if self._opened(address, False):
                self._on_lost(address, "")
            return
        except asyncio.CancelledError:
            self._opened(address, False)
            raise
        if self._links.get(address) is not None:  # the peer was faster
            stream.abort()
            return
        self._links.opened(address, stream)
        self._greet(stream)
        self._opened(address, True)
        await self._run(stream)

    def _opened(self, address: str, there: bool) -> bool:
        """The peer at *address* can be reached, or cannot; returns whether somebody waited for that."""
        queued, opened = self._opening.pop(address, ([], None))
        if opened is None:
            return False
        stream = self._links.get(address)
        if stream is not None:
            for message in queued:
                stream.send_nowait(message)
        opened.set_result(there)
        return True

    def _greet(self, stream: Stream) -> None:
        if self._hello is not None:
            stream.send_nowait(self._hello._replace(losses=self._links.losses(stream.address)))

    async def _connect(self, address: str, agent: bool) -> Stream:
        if not agent:
            local = await connect_local(address, lambda: LocalStream(self._answer, self._after_batch))
            if local is not None:
                return local
        comm = await connect(address, self._security, CONNECT_TIMEOUT, to_dask_server=agent)
        return Stream(comm, self._answer, self._after_batch)

    async def _accept(self, comm: Comm) -> None:
        """Serve a peer that connected to us over a Dask comm."""
        await self._run(Stream(comm, self._greeting, self._after_batch))

    def _accept_local(self) -> LocalStream:
        """As :meth:`_accept`, for a peer on this machine."""
        stream = LocalStream(self._greeting, self._after_batch)
        self._streams.add(stream)  # at once: `_run` may be cancelled before it begins, and then does nothing at all
        self._scope.start(self._run(stream))
        return stream

    def _answer(self, stream: Stream, message: Message) -> None:
        """Handle what a peer that we connected to sends: first its own greeting, unless a Dask worker answers."""
        if isinstance(message, PeerHello):
            self._links.greeted(stream, message)
        else:
            self._on_message(stream, message)

    def _greeting(self, stream: Stream, message: Message) -> None:
        """Handle what a peer that connected to us sends; after its greeting the stream is used both ways."""
        if stream.address:  # the rest of the batch
            stream.handle(message)
        elif isinstance(message, PeerHello) and message.protocol == PROTOCOL_VERSION:
            leads = self._links.greeted(stream, message)
            self._greet(stream)
            if leads:
                self._opened(message.address, True)
        else:
            stream.abort()

    async def _run(self, stream: Stream) -> None:
        self._streams.add(stream)
        try:
            await stream.run()
        finally:
            self._streams.discard(stream)
            self._links.ended(stream)
