"""Streams to other processes, by address: opened on first use, shared by everything that talks to that process."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

from shoal.model.errors import ConnectError
from shoal.model.messages import PROTOCOL_VERSION, Message, PeerHello
from shoal.runtime.scope import Scope
from shoal.transport.comms import Security, connect, listen
from shoal.transport.local import LocalStream, connect_local, listen_local
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
        self._streams: dict[str, Stream] = {}
        #: Messages for a peer whose stream is being opened, and the future that says how that ended.
        self._opening: dict[str, tuple[list[Message], asyncio.Future[bool]]] = {}
        self._incoming: set[Stream] = set()
        self._listener: Any = None
        self._local_listener: asyncio.Server | None = None
        self.address = ""
        self._hello: PeerHello | None = None

    async def start(self, host: str, like_address: str, owner_id: str, job_id: str) -> None:
        """Listen on a free port of *host* with the protocol of *like_address*, and for peers on this machine."""
        self._listener, self.address = await listen(host, like_address, self._security, self._accept)
        self._local_listener = await listen_local(self.address, self._accept_local)
        self._hello = PeerHello(PROTOCOL_VERSION, owner_id, job_id, self.address)

    def stream(self, address: str) -> Stream | None:
        """Return the open stream to *address*, if there is one."""
        return self._streams.get(address)

    def send(self, address: str, message: Message, *, agent: bool = False) -> None:
        """Send *message* to the process at *address*; ``agent`` says that a Dask worker answers there."""
        stream = self._streams.get(address)
        if stream is not None:
            stream.send_nowait(message)
        else:
            self._begin(address, agent)[0].append(message)

    def watch(self, address: str) -> None:
        """See to it that ``on_lost`` is called when the process at *address* ends, or has ended."""
        if address not in self._streams:
            self._begin(address, agent=False)

    async def reach(self, address: str) -> bool:
        """Open the stream to *address* unless it is open; returns whether it is then."""
        return address in self._streams or await asyncio.shield(self._begin(address, agent=False)[1])

    async def close(self, timeout: float) -> None:
        if self._listener is not None:
            self._listener.stop()
        if self._local_listener is not None:
            self._local_listener.close()
        streams = {*self._streams.values(), *self._incoming}
        await asyncio.gather(*(stream.close(timeout) for stream in streams))

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
            self._opening.pop(address)[1].set_result(False)
            self._on_lost(address, "")
            return
        except asyncio.CancelledError:
            self._opening.pop(address)[1].set_result(False)
            raise
        stream.address = address
        if self._hello is not None:
            stream.send_nowait(self._hello)
        self._streams[address] = stream
        queued, opened = self._opening.pop(address)
        for message in queued:
            stream.send_nowait(message)
        opened.set_result(True)
        try:
            await stream.run()
        finally:
            self._ended(stream)

    async def _connect(self, address: str, agent: bool) -> Stream:
        if not agent:
            local = await connect_local(address, lambda: LocalStream(self._answer, self._after_batch))
            if local is not None:
                return local
        comm = await connect(address, self._security, CONNECT_TIMEOUT, to_dask_server=agent)
        return Stream(comm, self._answer, self._after_batch)

    async def _accept(self, comm: Comm) -> None:
        """Serve a peer that connected to us over a Dask comm."""
        await self._serve(Stream(comm, self._greeting, self._after_batch))

    def _accept_local(self) -> LocalStream:
        """As :meth:`_accept`, for a peer on this machine."""
        stream = LocalStream(self._greeting, self._after_batch)
        self._scope.start(self._serve(stream))
        return stream

    def _answer(self, stream: Stream, message: Message) -> None:
        """Handle what a peer that we connected to sends: first its own greeting, which says who it is."""
        if isinstance(message, PeerHello):
            stream.peer_id = message.owner_id
            stream.hand_to(self._on_message)
        else:
            self._on_message(stream, message)

    def _greeting(self, stream: Stream, message: Message) -> None:
        """Handle what a peer that connected to us sends; after its greeting the stream is used both ways."""
        if stream.address:
            self._on_message(stream, message)
        elif isinstance(message, PeerHello) and message.protocol == PROTOCOL_VERSION:
            stream.peer_id = message.owner_id
            stream.address = message.address
            stream.hand_to(self._on_message)
            if self._hello is not None:
                stream.send_nowait(self._hello)
            if stream.address not in self._streams and stream.address not in self._opening:
                self._streams[stream.address] = stream
        else:
            stream.abort()

    async def _serve(self, stream: Stream) -> None:
        self._incoming.add(stream)
        try:
            await stream.run()
        finally:
            self._incoming.discard(stream)
            self._ended(stream)

    def _ended(self, stream: Stream) -> None:
        if self._streams.get(stream.address) is stream:
            del self._streams[stream.address]
        if stream.address:
            self._on_lost(stream.address, stream.peer_id)
