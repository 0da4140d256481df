"""One stream leads to each peer: the choice alone, and real processes' streams that are opened at the same moment."""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from distributed.security import Security

from shoal.model.messages import PROTOCOL_VERSION, Message, PeerHello, Recall
from shoal.runtime.links import Links
from shoal.runtime.peers import Peers
from shoal.runtime.scope import Scope
from shoal.transport.local import AVAILABLE
from shoal.transport.stream import Stream

PEER = "tls://peer:1"
TIMEOUT = 10.0


class End:
    """One end of a connection, as far as the choice sees it."""

    def __init__(self) -> None:
        self.peer_id = self.address = ""
        self.aborted = False
        self.handler: Callable[..., None] | None = None

    def abort(self) -> None:
        self.aborted = True

    def hand_to(self, on_message: Callable[..., None]) -> None:
        self.handler = on_message


class Watched:
    """The choice, and what it has told."""

    def __init__(self) -> None:
        self.heard: list[tuple[End, Any]] = []
        self.lost: list[tuple[str, str]] = []
        self.links: Links[End] = Links(lambda *what: self.heard.append(what), lambda *who: self.lost.append(who))

    def open(self) -> End:
        end = End()
        self.links.opened(PEER, end)
        return end

    def greet(self, end: End, losses: int = 0, peer_id: str = "it") -> bool:
        return self.links.greeted(end, PeerHello(PROTOCOL_VERSION, peer_id, "job", PEER, losses))


def test_what_comes_over_the_other_stream_counts_as_come_over_ours() -> None:
    watched = Watched()
    ours, theirs = watched.open(), End()
    assert not watched.greet(theirs)
    assert watched.links.get(PEER) is ours
    assert ours.peer_id == "it"  # known before its answer to our greeting comes
    assert theirs.handler is not None
    theirs.handler(theirs, "news")
    assert watched.heard == [(ours, "news")]


@pytest.mark.parametrize("first", ["ours", "theirs"])
def test_both_streams_end_together_and_the_peer_is_lost_once(first: str) -> None:
    watched = Watched()
    ours, theirs = watched.open(), End()
    watched.greet(theirs)
    ended, other = (ours, theirs) if first == "ours" else (theirs, ours)
    watched.links.ended(ended)
    assert other.aborted
    watched.links.ended(other)
    assert watched.lost == [(PEER, "it")]
    assert watched.links.get(PEER) is None


def test_who_has_seen_a_stream_end_is_heard_over_the_next() -> None:
    watched = Watched()
    broken, back = End(), End()
    assert watched.greet(broken)
    assert watched.greet(back, losses=1)
    assert broken.aborted
    assert watched.links.get(PEER) is back
    assert watched.lost == [(PEER, "it")]
    watched.links.ended(broken)
    assert watched.links.get(PEER) is back
    assert watched.links.losses(PEER) == 1


def test_another_process_at_the_address_of_one_that_ended() -> None:
    watched = Watched()
    old, new = End(), End()
    watched.greet(old)
    assert watched.greet(new, peer_id="another")
    assert old.aborted
    assert watched.lost == [(PEER, "it")]


def test_a_stream_that_ends_before_any_greeting_is_nobodys() -> None:
    watched = Watched()
    watched.links.ended(End())
    assert watched.lost == []


# -- with real streams -----------------------------------------------------------------------------------------------


class Process:
    """What a process has heard of its peers."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.scope = Scope(name)
        self.heard: list[tuple[Stream, Message]] = []
        self.lost: list[tuple[str, str]] = []
        self.on_message: Callable[[Stream, Message], None] = lambda *_: None
        self.peers = Peers(Security(), self.scope, self._message, lambda *who: self.lost.append(who), lambda: None)

    def _message(self, stream: Stream, message: Message) -> None:
        self.heard.append((stream, message))
        self.on_message(stream, message)

    async def start(self) -> None:
        await self.peers.start("127.0.0.1", "tcp://127.0.0.1", self.name, "job")

    async def close(self) -> None:
        await self.peers.close(1.0)
        await self.scope.close()


async def until(true: Callable[[], bool]) -> None:
    while not true():  # noqa: ASYNC110 (anything may make it true)
        await asyncio.sleep(0.001)


def run(scene: Callable[[Process, Process], Awaitable[None]]) -> None:
    async def main() -> None:
        one, other = Process("one"), Process("other")
        await one.start()
        await other.start()
        try:
            await asyncio.wait_for(scene(one, other), TIMEOUT)
        finally:
            await one.close()
            await other.close()

    asyncio.run(main())


@pytest.mark.parametrize("same_machine", [True, False])
def test_two_that_connect_at_once_hear_each_other_in_order(same_machine: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    if not same_machine:

        async def nowhere(*_: object) -> None:
            return None

        monkeypatch.setattr("shoal.runtime.peers.connect_local", nowhere)

    async def scene(one: Process, other: Process) -> None:
        def answer(stream: Stream, message: Message) -> None:
            stream.send_nowait(Recall(f"answer to {message[0]}"))
            other.peers.send(one.peers.address, Recall(f"word after {message[0]}"))

        other.on_message = answer
        for number in range(100):
            one.peers.send(other.peers.address, Recall(str(number)))
            other.peers.send(one.peers.address, Recall("aside"))
            if number % 10 == 0:
                await asyncio.sleep(0)
        await until(lambda: len(one.heard) == 300)
        said = [message[0] for _, message in one.heard if message[0] != "aside"]
        assert said == [text for number in range(100) for text in (f"answer to {number}", f"word after {number}")]
        assert len({stream for stream, _ in other.heard}) == 1
        assert not one.lost
        assert not other.lost

    run(scene)


def test_the_end_of_a_process_is_told_once_however_many_streams_lead_to_it() -> None:
    async def scene(one: Process, other: Process) -> None:
        for first, second in ((one, other), (other, one)):
            first.peers.send(second.peers.address, Recall("hello"))
        await until(lambda: bool(one.heard and other.heard))
        await other.close()
        await until(lambda: bool(one.lost))
        await asyncio.sleep(0.05)
        assert one.lost == [(other.peers.address, "other")]

    run(scene)


def test_nobody_answers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("shoal.runtime.peers.CONNECT_TIMEOUT", 0.2)

    async def scene(one: Process, other: Process) -> None:
        address = other.peers.address
        await other.close()
        assert not await one.peers.reach(address)
        assert one.lost == [(address, "")]

    run(scene)


@pytest.mark.skipif(not AVAILABLE, reason="no abstract Unix sockets here")
@pytest.mark.parametrize("turns", range(8))
def test_who_connects_while_we_end_is_hung_up_on(turns: int) -> None:
    """However far the loop has come with the connection: half-accepted ones have no task yet that would end them."""

    async def main() -> None:
        one = Process("one")
        await one.start()
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as caller:
            caller.settimeout(TIMEOUT)
            caller.connect(f"\0shoal-{os.getuid()}-{one.peers.address}")
            for _ in range(turns):
                await asyncio.sleep(0)
            await one.close()
            await asyncio.sleep(0.05)
            with contextlib.suppress(ConnectionResetError):  # we had not accepted it yet
                assert caller.recv(1) == b""
        assert not one.peers.streams()

    asyncio.run(main())
