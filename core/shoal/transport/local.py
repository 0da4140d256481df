"""Streams between processes of one user on one machine, without TLS because the kernel vouches for the peer.

A process that listens at ``tls://HOST:PORT`` also listens on a Unix socket in Linux's abstract namespace that is
named after that address. Each side asks the kernel for the other's user (``SO_PEERCRED``) and hangs up unless it is
its own. Such a socket leaves no file behind, and belongs to one network namespace, as the address does. A round
trip costs a fifth of one over TLS (``docs/decisions/003-local-streams.md``). Where there are no such sockets
(macOS, another machine, another user), streams go over ``distributed.comm`` as always.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import socket
import struct
import sys
from collections.abc import Callable

from shoal.model.messages import pack, unpack
from shoal.transport.stream import MAX_BATCH, MessageHandler, Stream

logger = logging.getLogger("shoal")
_LENGTH = struct.Struct("<Q")
_CREDENTIALS = struct.Struct("3i")
AVAILABLE = sys.platform == "linux"


class LocalStream(asyncio.Protocol, Stream):
    """A stream whose frames come straight from the event loop: no task switch for a message in or out."""

    def __init__(self, on_message: MessageHandler, after_batch: Callable[[], None] | None = None) -> None:
        Stream.__init__(self, None, on_message, after_batch)
        self._loop = asyncio.get_running_loop()
        self._transport: asyncio.Transport | None = None
        self._buffer = bytearray()
        self._write_due = False
        self._paused = False
        self._ended = self._loop.create_future()

    @property
    def peer_address(self) -> str:
        return self.address or "a local peer"

    async def run(self) -> None:
        try:
            await asyncio.shield(self._ended)
        finally:  # cancelled, maybe, by an owner that ends while the connection was being made
            self.abort()

    def abort(self) -> None:
        self._closed = True
        if self._transport is not None:
            self._transport.abort()

    def _wake_writer(self) -> None:
        if not self._write_due and not self._paused:
            self._write_due = True
            self._loop.call_soon(self._write_outbox)

    def _write_outbox(self) -> None:
        self._write_due = False
        outbox, transport = self._outbox, self._transport
        while (outbox or self._beat_due) and not self._paused and not self._closed and transport is not None:
            self._beat_due = False
            batch = [outbox.popleft() for _ in range(min(len(outbox), MAX_BATCH))]
            try:
                data = pack(batch)
            except (ValueError, TypeError, OverflowError):
                logger.exception("a message to %s cannot be packed", self.peer_address)
                self.abort()
                return
            transport.write(_LENGTH.pack(len(data)) + data)
        if not outbox and not self._paused:
            self._drained.set()

    # -- asyncio.Protocol ----------------------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        # Paused until the system has taken everything: then drained means what it says.
        transport.set_write_buffer_limits(high=0)
        if self._closed or not _is_own_user(transport.get_extra_info("socket")):
            self.abort()
        elif self._outbox:
            self._wake_writer()

    def data_received(self, data: bytes) -> None:
        buffer = self._buffer
        if self._closed:  # the rest of what a refused peer sent
            return
        buffer += data
        position = 0
        while len(buffer) - position >= _LENGTH.size:
            (length,) = _LENGTH.unpack_from(buffer, position)
            end = position + _LENGTH.size + length
            if len(buffer) < end:
                break
            frame = bytes(memoryview(buffer)[position + _LENGTH.size : end])
            position = end
            self._handle(unpack(frame))
        if position:
            del buffer[:position]

    def pause_writing(self) -> None:
        self._paused = True

    def resume_writing(self) -> None:
        self._paused = False
        self._wake_writer()

    def connection_lost(self, exc: Exception | None) -> None:
        self._closed = True
        self._drained.set()
        if not self._ended.done():
            self._ended.set_result(None)


async def listen_local(address: str, make_stream: Callable[[], LocalStream]) -> asyncio.Server | None:
    """Listen for local peers of *address*; None where that is not possible."""
    if not AVAILABLE:
        return None
    loop = asyncio.get_running_loop()
    return await loop.create_unix_server(make_stream, _name(address))


async def stop_listening(server: asyncio.Server) -> None:
    """Accept nobody any more; when this returns, every connection accepted before has its stream.

    A server that is closed in the middle of accepting one would forget its socket, and the peer would wait.
    """
    loop = asyncio.get_running_loop()
    for listening in server.sockets:
        loop.remove_reader(listening.fileno())
    for _ in range(2):  # one turn for what the system has reported, one for the task that makes the stream
        await asyncio.sleep(0)
    server.close()


async def connect_local(address: str, make_stream: Callable[[], LocalStream]) -> LocalStream | None:
    """Connect to the process that listens at *address*; None if it is not on this machine, or not ours."""
    if not AVAILABLE:
        return None
    loop = asyncio.get_running_loop()
    with contextlib.suppress(OSError):
        _, stream = await loop.create_unix_connection(make_stream, _name(address))
        if not stream.closed:
            return stream
    return None


def _name(address: str) -> str:
    return f"\0shoal-{os.getuid()}-{address}"


def _is_own_user(connection: socket.socket) -> bool:
    credentials = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size)
    _, uid, _ = _CREDENTIALS.unpack(credentials)
    return bool(uid == os.getuid())
