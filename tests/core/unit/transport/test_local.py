"""Streams between processes of one user: two in one loop, over a real socket of the kernel."""

from __future__ import annotations

import asyncio
import logging
import os
import socket
import struct
from collections.abc import Awaitable, Callable

import pytest

from shoal.model.messages import Message, Recall, Refused, pack
from shoal.transport import local
from shoal.transport.local import LocalStream, connect_local, listen_local
from shoal.transport.stream import MAX_BATCH, Stream

pytestmark = pytest.mark.skipif(not local.AVAILABLE, reason="there are no such sockets here")
TIMEOUT = 10.0


class Watched(LocalStream):
    """Says when it is connected."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        self.connected.set()

    connected: asyncio.Event


class End:
    """One side of a connection, and what it has received."""

    def __init__(self, on_message: Callable[[Stream, Message], None] | None = None) -> None:
        self.received: list[Message] = []
        self.batches: list[int] = []
        self._news = asyncio.Event()
        self._on_message = on_message
        self.stream = Watched(self._message, lambda: self.batches.append(len(self.received)))
        self.stream.connected = asyncio.Event()

    def _message(self, stream: Stream, message: Message) -> None:
        self.received.append(message)
        self._news.set()
        if self._on_message is not None:
            self._on_message(stream, message)

    async def wait_for(self, count: int) -> list[Message]:
        while len(self.received) < count:
            self._news.clear()
            await self._news.wait()
        return self.received


def new_address() -> str:
    return f"tls://127.0.0.1:test-{os.getpid()}-{os.urandom(4).hex()}"


def in_loop(check: Callable[[], Awaitable[None]]) -> None:
    async def main() -> None:
        await asyncio.wait_for(check(), TIMEOUT)

    asyncio.run(main())


def with_two_ends(
    check: Callable[[End, End], Awaitable[None]], on_message: Callable[[Stream, Message], None] | None = None
) -> None:
    async def main() -> None:
        address = new_address()
        ours, theirs = End(), End(on_message)
        server = await listen_local(address, lambda: theirs.stream)
        assert server is not None
        try:
            assert await connect_local(address, lambda: ours.stream) is ours.stream
            await theirs.stream.connected.wait()
            await check(ours, theirs)
        finally:
            ours.stream.abort()
            theirs.stream.abort()
            server.close()
            await asyncio.gather(ours.stream.run(), theirs.stream.run())

    in_loop(main)


def with_raw_peer(check: Callable[[socket.socket, End], Awaitable[None]]) -> None:
    """Run *check* with a plain socket in the place of the peer."""

    async def main() -> None:
        address = new_address()
        end = End()
        server = await listen_local(address, lambda: end.stream)
        assert server is not None
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as peer:
            peer.setblocking(False)
            await asyncio.get_running_loop().sock_connect(peer, local._name(address))
            await check(peer, end)
        await end.stream.run()
        server.close()

    in_loop(main)


def frame(data: bytes) -> bytes:
    return struct.pack("<Q", len(data)) + data


def test_messages_arrive_in_order_both_ways() -> None:
    there, back = [Recall(f"there-{n}") for n in range(500)], [Refused(f"back-{n}") for n in range(500)]

    async def check(ours: End, theirs: End) -> None:
        for message, answer in zip(there, back, strict=True):
            ours.stream.send_nowait(message)
            theirs.stream.send_nowait(answer)
        assert await theirs.wait_for(500) == there
        assert await ours.wait_for(500) == back

    with_two_ends(check)


def test_what_gathers_leaves_as_one_batch() -> None:
    async def check(ours: End, theirs: End) -> None:
        for number in range(MAX_BATCH + 10):
            ours.stream.send_nowait(Recall(str(number)))
        await theirs.wait_for(MAX_BATCH + 10)
        assert theirs.batches == [MAX_BATCH, MAX_BATCH + 10]

    with_two_ends(check)


def test_an_answer_may_be_sent_while_a_message_is_handled() -> None:
    async def check(ours: End, theirs: End) -> None:
        ours.stream.send_nowait(Recall("question"))
        assert await ours.wait_for(1) == [Refused("answer")]

    with_two_ends(check, lambda stream, _: stream.send_nowait(Refused("answer")))


def test_what_is_queued_before_the_connection_leaves_with_it() -> None:
    async def check() -> None:
        address = new_address()
        ours, theirs = End(), End()
        theirs.stream.send_nowait(Recall("a"))
        await asyncio.sleep(0)  # a turn of the loop, in which it tries to write
        server = await listen_local(address, lambda: theirs.stream)
        assert server is not None
        await connect_local(address, lambda: ours.stream)
        try:
            assert await asyncio.wait_for(ours.wait_for(1), 0.3) == [Recall("a")]
        finally:
            ours.stream.abort()
            theirs.stream.abort()
            server.close()
            await asyncio.gather(ours.stream.run(), theirs.stream.run())

    in_loop(check)


def test_large_messages_pass_in_spite_of_a_full_socket() -> None:
    async def check(ours: End, theirs: End) -> None:
        for _ in range(20):
            ours.stream.send_nowait(Refused("x" * 1_000_000))
        assert len(await theirs.wait_for(20)) == 20
        await ours.stream.drain()

    with_two_ends(check)


@pytest.mark.parametrize(
    "nbytes",
    [
        10,
        220_000,
        1_000_000,
        10_000_000,
    ],
)
def test_closing_sends_what_is_queued(nbytes: int) -> None:
    async def check(ours: End, theirs: End) -> None:
        ours.stream.send_nowait(Refused("x" * nbytes))
        ours.stream.send_nowait(Recall("last"))
        await ours.stream.close(timeout=5.0)
        await theirs.stream.run()
        assert theirs.received[-1:] == [Recall("last")]

    with_two_ends(check)


def test_closing_towards_a_peer_that_does_not_read_takes_no_longer_than_allowed() -> None:
    async def check(peer: socket.socket, end: End) -> None:
        peer.sendall(frame(pack([Recall("a")])))
        await end.wait_for(1)
        end.stream.send_nowait(Refused("x" * 10_000_000))
        await end.stream.close(timeout=0.05)
        assert end.stream.closed

    with_raw_peer(check)


def test_the_end_of_one_side_is_the_end_of_the_other() -> None:
    async def check(ours: End, theirs: End) -> None:
        theirs.stream.send_nowait(Recall("a"))
        await ours.wait_for(1)
        theirs.stream.abort()
        await asyncio.gather(ours.stream.run(), theirs.stream.run())
        ours.stream.send_nowait(Recall("too late"))
        await ours.stream.drain()
        assert ours.stream.closed

    with_two_ends(check)


def test_messages_may_come_in_any_pieces() -> None:
    async def check(peer: socket.socket, end: End) -> None:
        data = frame(pack([Recall("a")])) + frame(pack([Recall("b"), Recall("c")]))
        loop = asyncio.get_running_loop()
        for position in range(len(data)):
            await loop.sock_sendall(peer, data[position : position + 1])
        assert await end.wait_for(3) == [Recall("a"), Recall("b"), Recall("c")]

    with_raw_peer(check)


@pytest.mark.parametrize(
    "data",
    [frame(b"garbage"), frame(b""), frame(pack([Recall("a")]))[:-1] + b"\xc1"],
    ids=["text", "nothing", "damaged"],
)
def test_garbage_ends_the_stream_and_is_no_message(data: bytes, caplog: pytest.LogCaptureFixture) -> None:
    async def check(peer: socket.socket, end: End) -> None:
        await asyncio.get_running_loop().sock_sendall(peer, data)
        await end.stream.run()
        assert end.received == []
        assert end.stream.closed

    with caplog.at_level(logging.CRITICAL, "asyncio"):
        with_raw_peer(check)


def test_half_a_message_is_no_message() -> None:
    async def check(peer: socket.socket, end: End) -> None:
        await asyncio.get_running_loop().sock_sendall(peer, frame(pack([Recall("a")]))[:-1])
        peer.shutdown(socket.SHUT_WR)
        await end.stream.run()
        assert end.received == []

    with_raw_peer(check)


def test_a_message_that_cannot_be_handled_ends_the_stream(caplog: pytest.LogCaptureFixture) -> None:
    def refuse(stream: Stream, message: Message) -> None:
        raise KeyError("unknown")

    async def check(ours: End, theirs: End) -> None:
        ours.stream.send_nowait(Recall("a"))
        await asyncio.gather(ours.stream.run(), theirs.stream.run())

    with caplog.at_level(logging.CRITICAL, "asyncio"):
        with_two_ends(check, refuse)


def test_nothing_is_delivered_after_an_abort() -> None:
    async def check(ours: End, theirs: End) -> None:
        for number in range(3):
            ours.stream.send_nowait(Recall(str(number)))
            await ours.stream.drain()
        await theirs.stream.run()
        assert len(theirs.received) == 1

    with_two_ends(check, lambda stream, _: stream.abort())


def test_a_message_that_cannot_be_packed_ends_the_stream(caplog: pytest.LogCaptureFixture) -> None:
    async def check(ours: End, theirs: End) -> None:
        ours.stream.send_nowait(Refused(object()))
        await asyncio.wait_for(ours.stream.run(), 0.3)

    with caplog.at_level(logging.CRITICAL, "asyncio"):
        with_two_ends(check)


def test_the_peer_is_asked_for_by_user(monkeypatch: pytest.MonkeyPatch) -> None:
    """A peer of another user cannot be made here, so this process takes itself for another user's."""

    async def check(peer: socket.socket, end: End) -> None:
        await asyncio.get_running_loop().sock_sendall(peer, frame(pack([Recall("a")])))
        await end.stream.run()
        assert end.received == []

    user = os.getuid()
    monkeypatch.setattr(local, "_is_own_user", lambda connection: peer_uid(connection) == user + 1)
    with_raw_peer(check)


def peer_uid(connection: socket.socket) -> int:
    data = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("3i"))
    return int(struct.unpack("3i", data)[1])


def test_the_kernel_vouches_for_this_user() -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        assert local._is_own_user(ours)
        assert peer_uid(ours) == os.getuid()


def test_nobody_at_an_address_is_no_error() -> None:
    async def main() -> None:
        assert await connect_local(new_address(), lambda: End().stream) is None

    in_loop(main)


def test_a_listener_leaves_no_file() -> None:
    assert local._name("tls://127.0.0.1:1").startswith("\0shoal-")


def test_whoever_stops_running_a_stream_closes_it() -> None:
    """An owner that ends while a connection is being made cancels what runs it, and knows no more of it."""

    async def check(ours: End, theirs: End) -> None:
        running = asyncio.create_task(ours.stream.run())
        await asyncio.sleep(0)
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)
        await theirs.stream.run()  # ends, because the other end is closed
        assert ours.stream.closed

    with_two_ends(check)
