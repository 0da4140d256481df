"""Which stream leads to a peer: one at a time, so that what is said first is heard first.

Two processes that connect to each other in the same moment have two streams. Each then speaks over the one that it
opened, for everything: what comes over the other counts as having come over its own, so that answers do not overtake
what was sent before them. When one of the two ends, so does the other, and the peer is lost once.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Generic, Protocol, TypeVar

from shoal.model.messages import Message, PeerHello


class Link(Protocol):
    """The part of :class:`shoal.transport.stream.Stream` that counts here."""

    peer_id: str
    address: str

    def abort(self) -> None: ...
    def hand_to(self, on_message: Callable[..., None]) -> None: ...


LinkT = TypeVar("LinkT", bound=Link)


class Links(Generic[LinkT]):
    """Sans-IO. ``on_message(stream, message)`` gets what greeted peers say; ``on_lost(address, peer_id)`` is called
    once for each peer whose stream has ended."""

    def __init__(self, on_message: Callable[[LinkT, Message], None], on_lost: Callable[[str, str], None]) -> None:
        self._on_message = on_message
        self._on_lost = on_lost
        self._to: dict[str, LinkT] = {}
        #: Streams that the peer opened while we opened ours.
        self._also: dict[str, list[LinkT]] = {}
        #: How often the streams to a peer have ended.
        self._losses: dict[str, int] = {}

    def get(self, address: str) -> LinkT | None:
        """Return the stream over which to speak to the peer at *address*, if there is one."""
        return self._to.get(address)

    def losses(self, address: str) -> int:
        """Return what a greeting has to say of earlier streams to this peer."""
        return self._losses.get(address, 0)

    def opened(self, address: str, stream: LinkT) -> None:
        """We have connected to the peer at *address*, and there was no stream to it."""
        stream.address = address
        self._to[address] = stream

    def greeted(self, stream: LinkT, hello: PeerHello) -> bool:
        """A peer has said over *stream* who it is; returns whether it now is the one that leads to it."""
        stream.peer_id = hello.owner_id
        if stream.address:  # we had connected
            self._losses[stream.address] = max(self.losses(stream.address), hello.losses)
            stream.hand_to(self._on_message)
            return False
        stream.address = hello.address
        speaking = self._to.get(hello.address)
        if speaking is not None and self._is_old(speaking, hello):
            self.ended(speaking)
            speaking.abort()
            speaking = None
        if speaking is None:
            self._to[hello.address] = stream
            stream.hand_to(self._on_message)
            return True
        first = speaking
        first.peer_id = hello.owner_id
        stream.hand_to(lambda _, message: self._on_message(first, message))
        self._also.setdefault(hello.address, []).append(stream)
        return False

    def _is_old(self, stream: LinkT, hello: PeerHello) -> bool:
        """Whether the peer has seen *stream* end before us, or is another process at the address of one that ended."""
        return hello.losses > self.losses(hello.address) or stream.peer_id not in ("", hello.owner_id)

    def ended(self, stream: LinkT) -> None:
        """A stream has ended, or is to be taken for one that has."""
        address = stream.address
        also = self._also.get(address, ())
        speaking = self._to.get(address)
        if not address or (speaking is not stream and stream not in also):
            return
        self._also.pop(address, None)
        self._to.pop(address, None)
        self._losses[address] = self.losses(address) + 1
        for other in (speaking, *also):
            if other is not None and other is not stream:
                other.abort()
        self._on_lost(address, speaking.peer_id if speaking is not None and speaking.peer_id else stream.peer_id)
