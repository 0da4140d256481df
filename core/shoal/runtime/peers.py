"""Streams to other processes, by address: opened on first use, shared by everything that talks to that process."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

from shoal.model.errors import ConnectError
from shoal.model.messages import PROTOCOL_VERSION, Message, PeerHello
from shoal.runtime.scope import Scope
from shoal.transport.comms import Security, connect, listen
from shoal.transport.stream import Comm, Stream

CONNECT_TIMEOUT = 10.0


class Peers:
    """All streams between this process and its peers (owners, executors, agents).

    ``send`` never waits: messages queue while the stream is being opened. ``on_message(stream, message)`` gets everything
    but greetings; ``on_lost(address, owner_id)`` is called once when a stream ends, or could not be opened.
    """

    def __init__(
        self,
        security: Security,
        scope: Scope,
        on_message: Callable[[Stream, Message], None],
        on_lost: Callable[[str, str], None],
    ) -> None:
        self._security = security
        self._scope = scope
        self._on_message = on_message
        self._on_lost = on_lost
        self._streams: dict[str, Stream] = {}
        #: Messages for a peer whose stream is being opened, and the future that says how that ended.
        self._opening: dict[str, tuple[list[Message], asyncio.Future[bool]]] = {}
        self._incoming: set[Stream] = set()
        self._listener: Any = None
        self.address = ""
        self._hello: PeerHello | None = None

    async def start(self, host: str, like_address: str, owner_id: str, job_id: str) -> None:
        """Listen on a free port of *host* with the protocol of *like_address*."""
        self._listener, self.address = await listen(host, like_address, self._security, self._accept)
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

    async def reach(self, address: str) -> bool:
        """Open the stream to *address* unless it is open; returns whether it is then."""
        return address in self._streams or await asyncio.shield(self._begin(address, agent=False)[1])

    async def close(self, timeout: float) -> None:
        if self._listener is not None:
            self._listener.stop()
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
            comm = await connect(address, self._security, CONNECT_TIMEOUT, to_dask_server=agent)
        except ConnectError:
            self._opening.pop(address)[1].set_result(False)
            self._on_lost(address, "")
            return
        except asyncio.CancelledError:
            self._opening.pop(address)[1].set_result(False)
            raise
        stream = Stream(comm, self._on_message)
        stream.address = address
        if self._hello is not None:
            stream.send_nowait(self._hello)
        self._streams[address] = stream
        queued, opened = self._opening.pop(address)
        for message in queued:
            stream.send_nowait(message)
        opened.set_result(True)
        await self._run(address, stream)

    async def _run(self, address: str, stream: Stream) -> None:
        try:
            await stream.run()
        finally:
            if self._streams.get(address) is stream:
                del self._streams[address]
            self._on_lost(address, stream.peer_id)

    async def _accept(self, comm: Comm) -> None:
        """Serve a peer that connected to us; after its greeting the stream is used both ways."""
        address = ""

        def on_message(stream: Stream, message: Message) -> None:
            nonlocal address
            if address:
                self._on_message(stream, message)
            elif isinstance(message, PeerHello) and message.protocol == PROTOCOL_VERSION:
                stream.peer_id = message.owner_id
                stream.address = address = message.address
                if address not in self._streams and address not in self._opening:
                    self._streams[address] = stream
            else:
                stream.abort()

        stream = Stream(comm, on_message)
        self._incoming.add(stream)
        try:
            await stream.run()
        finally:
            self._incoming.discard(stream)
            if self._streams.get(address) is stream:
                del self._streams[address]
            if address:
                self._on_lost(address, stream.peer_id)
