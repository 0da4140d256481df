"""A stream: one connection, many messages a write, one reader.

The comms of Dask carry one message at a time and pay for each: a task switch, a frame header, a system call. A stream
queues messages and writes everything that has gathered since the last write as *one* frame, so that the cost per
message falls as the load rises, and adds no delay when there is none. Reading hands each message to a plain function:
never an asyncio task per message.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections import deque
from collections.abc import Callable
from typing import Protocol

from shoal.model.messages import BULKY, Message, pack, unpack
from shoal.transport.bulk import BULK_NBYTES, join, take_apart

logger = logging.getLogger("shoal")
#: Messages in one frame at most, so that one reader's turn stays short.
MAX_BATCH = 2_000

MessageHandler = Callable[["Stream", Message], None]


def with_last(message: Message, value: object) -> Message:
    """Return *message* with another last field."""
    return type(message)._make((*message[:-1], value))


class Comm(Protocol):
    """The part of ``distributed.comm.Comm`` that a stream uses."""

    @property
    def peer_address(self) -> str: ...
    async def read(self) -> object: ...
    async def write(self, msg: object) -> object: ...
    def abort(self) -> None: ...
    def closed(self) -> bool: ...


class Stream:
    """Both directions of one connection, over a comm of Dask. Use it on its event loop only.

    Call order: construct, then await :meth:`run`, which ends when either side closes. ``on_message(stream,
    message)`` is called for each message in the order sent; an exception in it closes the stream (a peer that sends
    what we cannot handle is broken); ``after_batch()`` after each batch of them. ``send_nowait`` after the end is
    ignored: the reader's end is the one place that reports it.
    """

    def __init__(
        self, comm: Comm | None, on_message: MessageHandler, after_batch: Callable[[], None] | None = None
    ) -> None:
        self._comm = comm
        self._on_message = on_message
        self._after_batch = after_batch
        self._outbox: deque[Message] = deque()
        self._wake = asyncio.Event()
        self._drained = asyncio.Event()
        self._drained.set()
        self._closed = False
        self._beat_due = False
        #: When the last frame came, on the monotonic clock.
        self.heard = time.monotonic()
        #: Who is at the other end, set by whoever handles the greeting; "" until then.
        self.peer_id = ""
        #: Where the other end listens; "" until known.
        self.address = ""
        #: Function and recipe ids already defined at the other end; only the owner that sends uses it.
        self.defined: set[str | int] = set()

    @property
    def closed(self) -> bool:
        return self._closed

    @property
    def num_waiting(self) -> int:
        """How many messages have not been handed to the operating system."""
        return len(self._outbox)

    def send_nowait(self, message: Message) -> None:
        """Queue *message*; it leaves with the next write."""
        if self._closed:
            return
        if not self._outbox:
            self._drained.clear()
            self._wake_writer()
        self._outbox.append(message)

    def beat(self) -> None:
        """Let the other end hear of us, though there is nothing to say: an empty batch."""
        if not self._closed and not self._outbox:
            self._beat_due = True
            self._wake_writer()

    def hand_to(self, on_message: MessageHandler) -> None:
        """Have *on_message* called from the next batch on: the greetings are over."""
        self._on_message = on_message

    def handle(self, message: Message) -> None:
        """Give *message*, the rest of a batch that began with a greeting, to whoever handles messages now."""
        self._on_message(self, message)

    async def drain(self) -> None:
        """Wait until everything queued has been handed to the operating system, or the stream has ended."""
        await self._drained.wait()

    async def run(self) -> None:
        """Read and write until either side closes; never raises for a lost connection."""
        assert self._comm is not None
        writer = asyncio.create_task(self._write(self._comm), name=f"shoal stream to {self._comm.peer_address}")
        try:
            await self._read(self._comm)
        finally:
            self._closed = True
            writer.cancel()
            await asyncio.gather(writer, return_exceptions=True)
            self._comm.abort()
            self._drained.set()

    def abort(self) -> None:
        """Close now; :meth:`run` then returns."""
        self._closed = True
        if self._comm is not None:
            self._comm.abort()

    async def close(self, timeout: float = 1.0) -> None:
        """Send what is queued, for *timeout* seconds at most, then close."""
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self.drain(), timeout)
        self.abort()

    def _wake_writer(self) -> None:
        self._wake.set()

    def _handle(self, batch: list[Message]) -> None:
        self.heard = time.monotonic()
        on_message = self._on_message
        for message in batch:
            on_message(self, message)
        if self._after_batch is not None:
            self._after_batch()

    async def _read(self, comm: Comm) -> None:
        while not self._closed:
            try:
                frame = await comm.read()
            except OSError:  # CommClosedError is one
                return
            try:
                packed, data = take_apart(frame)
                batch = unpack(packed)
                if data is not None:
                    batch[-1] = with_last(batch[-1], data)
                self._handle(batch)
            except Exception:  # boundary: a peer that sends what we cannot handle is broken
                logger.exception("a message from %s cannot be handled", comm.peer_address)
                return

    def _take_frame(self) -> object:
        """Take as many queued messages as may travel in one frame; one that is bulky is its frame's last."""
        outbox = self._outbox
        batch: list[Message] = []
        while outbox and len(batch) < MAX_BATCH:
            message = outbox.popleft()
            if type(message) is BULKY and message[-1] is not None and len(message[-1]) >= BULK_NBYTES:
                return join(pack([*batch, with_last(message, None)]), message[-1])
            batch.append(message)
        return pack(batch)

    async def _write(self, comm: Comm) -> None:
        outbox = self._outbox
        while True:
            await self._wake.wait()
            self._wake.clear()
            try:
                while outbox or self._beat_due:
                    self._beat_due = False
                    await comm.write(self._take_frame())
            except OSError:
                self.abort()
                return
            except (ValueError, TypeError, OverflowError):
                logger.exception("a message to %s cannot be packed", comm.peer_address)
                self.abort()
                return
            self._drained.set()
