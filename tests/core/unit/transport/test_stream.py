"""Streams over comms of Dask: two in one loop, over loopback TCP."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable
from typing import Any

import msgpack
import pytest

from shoal.errors import ConnectError
from shoal.model.messages import Message, Recall, Refused, pack
from shoal.transport.comms import Security, address_host, connect, listen
from shoal.transport.stream import MAX_BATCH, Comm, Stream

TIMEOUT = 10.0


class End:
    """One side of a connection: its stream, what it has received, and how its run ended."""

    def __init__(self, comm: Comm, on_message: Callable[[Stream, Message], None] | None = None) -> None:
        self.received: list[Message] = []
        self.batches: list[int] = []
        self._news = asyncio.Event()
        self._on_message = on_message
        self.stream = Stream(comm, self._message, self._after_batch)
        self.run = asyncio.create_task(self.stream.run())

    def _message(self, stream: Stream, message: Message) -> None:
        self.received.append(message)
        self._news.set()
        if self._on_message is not None:
            self._on_message(stream, message)

    def _after_batch(self) -> None:
        self.batches.append(len(self.received))

    async def wait_for(self, count: int) -> list[Message]:
        while len(self.received) < count:
            self._news.clear()
            await self._news.wait()
        return self.received


def with_two_ends(
    check: Callable[[End, End], Awaitable[None]], on_message: Callable[[Stream, Message], None] | None = None
) -> None:
    """Run *check* with the two ends of a connection; ``on_message`` belongs to the second."""

    async def main() -> None:
        accepted: asyncio.Future[End] = asyncio.get_running_loop().create_future()

        async def serve(comm: Comm) -> None:
            end = End(comm, on_message)
            accepted.set_result(end)
            with contextlib.suppress(Exception):  # the test looks at it
                await end.run

        listener, address = await listen("127.0.0.1", "tcp://", Security(), serve)
        try:
            ours = End(await connect(address, Security(), 5.0))
            theirs = await accepted
            await check(ours, theirs)
            ours.stream.abort()
            theirs.stream.abort()
            await asyncio.gather(ours.run, theirs.run, return_exceptions=True)
        finally:
            listener.stop()

    asyncio.run(asyncio.wait_for(main(), TIMEOUT))


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


def test_closing_sends_what_is_queued_and_ends_both_sides() -> None:
    async def check(ours: End, theirs: End) -> None:
        for number in range(100):
            ours.stream.send_nowait(Recall("x" * 1_000 + str(number)))
        await ours.stream.close()
        await asyncio.gather(ours.run, theirs.run)
        assert len(theirs.received) == 100
        assert ours.stream.closed and theirs.stream.closed

    with_two_ends(check)


def test_the_end_of_one_side_is_the_end_of_the_other() -> None:
    async def check(ours: End, theirs: End) -> None:
        ours.stream.send_nowait(Recall("lost or not"))
        theirs.stream.abort()
        await asyncio.gather(ours.run, theirs.run)
        ours.stream.send_nowait(Recall("too late"))
        await ours.stream.drain()
        await ours.stream.close()

    with_two_ends(check)


def test_drain_waits_until_everything_has_left() -> None:
    async def check(ours: End, theirs: End) -> None:
        await ours.stream.drain()
        for _ in range(20):
            ours.stream.send_nowait(Refused("x" * 100_000))
        await ours.stream.drain()
        ours.stream.abort()
        assert len(await theirs.wait_for(20)) == 20

    with_two_ends(check)


@pytest.mark.parametrize(
    "garbage",
    [b"garbage", b"", msgpack.packb([[9999]]), msgpack.packb([{}]), pack([Recall("a")])[:-1]],
    ids=["text", "nothing", "unknown kind", "nonsense", "cut short"],
)
def test_garbage_ends_the_stream_and_is_no_message(garbage: bytes) -> None:
    async def check(ours: End, theirs: End) -> None:
        await ours.stream._comm.write(garbage)  # type: ignore[union-attr]
        await asyncio.wait([theirs.run])
        assert theirs.received == []
        assert theirs.stream.closed
        await ours.run

    with_two_ends(check)


def test_what_is_no_frame_ends_the_stream() -> None:
    async def check(ours: End, theirs: End) -> None:
        await ours.stream._comm.write({"op": "identity"})  # type: ignore[union-attr]
        await asyncio.gather(theirs.run, ours.run)
        assert theirs.received == []

    with_two_ends(check)


def refuse(stream: Stream, message: Message) -> None:
    raise KeyError("a message that cannot be handled")


def test_a_message_that_cannot_be_handled_ends_the_stream() -> None:
    async def check(ours: End, theirs: End) -> None:
        ours.stream.send_nowait(Recall("a"))
        await asyncio.wait([theirs.run])
        await ours.run
        assert theirs.stream.closed

    with_two_ends(check, refuse)


def test_run_ends_as_for_a_lost_peer_when_a_message_cannot_be_handled() -> None:
    async def check(ours: End, theirs: End) -> None:
        ours.stream.send_nowait(Recall("a"))
        await theirs.run

    with_two_ends(check, refuse)


def test_a_message_that_cannot_be_packed_ends_the_stream() -> None:
    async def check(ours: End, theirs: End) -> None:
        ours.stream.send_nowait(Refused(object()))
        await asyncio.wait_for(ours.run, 0.3)

    with_two_ends(check)


def test_nobody_at_an_address_is_an_error_that_names_it() -> None:
    async def main() -> Any:
        with pytest.raises(ConnectError, match=r"127\.0\.0\.1:9") as caught:
            await connect("tcp://127.0.0.1:9", Security(), 0.1)
        return caught.value.__dict__["address"]

    assert asyncio.run(asyncio.wait_for(main(), TIMEOUT)) == "tcp://127.0.0.1:9"


def test_the_host_of_an_address() -> None:
    assert address_host("tls://10.0.0.4:8786") == "10.0.0.4"
