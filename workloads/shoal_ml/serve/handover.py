"""Connections that change hands: the ingress accepts them, a replica on the same node serves them.

Forwarding each request from process to process costs more than most requests. So the ingress looks at the first line of
a new connection without taking it, and passes the connection's descriptor to a replica of the application that the line
names, over a Unix socket that only this user can reach. From then on client and replica talk directly.

The ingress keeps a descriptor too, and shares a byte per connection with the replica, in which the replica notes what
it does: nothing, a request, a response. If the replica leaves, it hands back the connections that are idle; if it is
killed, the ingress finds them so, and gives them to another. Those in the middle of a request get a 503, instead of
silence. Nothing is lost but what ran in the process that died.
"""

from __future__ import annotations

import asyncio
import contextlib
import mmap
import os
import secrets
import socket
import struct
from collections import deque
from collections.abc import Callable

#: What a replica does with a connection: nothing; it has a request, or a part of one; it has begun to respond.
IDLE, STARTED, BEGUN = 0, 1, 2
#: Connections that one replica has from one ingress at most.
MAX_SLOTS = 16384
#: Slot, and whether it was handed back.
_CLOSED = struct.Struct("!IB")
_GIVEN = struct.Struct("!I")


class Slot:
    """The replica's side of one connection that it was given."""

    __slots__ = ("_channel", "_index", "_states", "returned")

    def __init__(self, channel: _Channel, states: mmap.mmap, index: int) -> None:
        self._channel = channel
        self._states = states
        self._index = index
        #: It was handed back, not closed.
        self.returned = False

    def note(self, state: int) -> None:
        """Tell the ingress what the connection is doing, in case this process dies."""
        self._states[self._index] = state

    def closed(self) -> None:
        """This process has let go of it."""
        self._channel.send(_CLOSED.pack(self._index, self.returned))


class _Channel:
    """Small messages and descriptors between two processes of one user, in order."""

    def __init__(
        self, sock: socket.socket, on_message: Callable[[bytes, list[int]], None], on_end: Callable[[], None]
    ) -> None:
        sock.setblocking(False)
        self._sock = sock
        self._on_message = on_message
        self._on_end = on_end
        self._loop = asyncio.get_running_loop()
        self._unsent: deque[bytes] = deque()
        self._loop.add_reader(sock.fileno(), self._readable)
        self.is_open = True

    def _readable(self) -> None:
        while self.is_open:
            try:
                message, fds, _, _ = socket.recv_fds(self._sock, 64, 1)
            except BlockingIOError:
                return
            except OSError:
                message, fds = b"", []
            if not message:
                self.close()
                self._on_end()
                return
            self._on_message(message, fds)

    def send(self, message: bytes) -> None:
        """Send *message*, as soon as the other side takes it."""
        if not self.is_open:
            return
        if self._unsent:
            self._unsent.append(message)
            return
        try:
            self._sock.send(message)
        except BlockingIOError:
            self._unsent.append(message)
            self._loop.add_writer(self._sock.fileno(), self._writable)
        except OSError:
            return  # its end is read as well

    def _writable(self) -> None:
        while self._unsent:
            try:
                self._sock.send(self._unsent[0])
            except BlockingIOError:
                return
            except OSError:
                self._unsent.clear()
                break
            self._unsent.popleft()
        self._loop.remove_writer(self._sock.fileno())

    def give(self, message: bytes, fd: int) -> bool:
        """Send a descriptor; false if the other side takes none at the moment."""
        try:
            socket.send_fds(self._sock, [message], [fd])
        except OSError:
            return False
        return True

    def close(self) -> None:
        if self.is_open:
            self.is_open = False
            self._loop.remove_reader(self._sock.fileno())
            self._loop.remove_writer(self._sock.fileno())
            self._sock.close()


class Taker:
    """The replica's side: takes connections over from any ingress of this user."""

    def __init__(self, on_connection: Callable[[socket.socket, Slot], None]) -> None:
        self._on_connection = on_connection
        # An abstract address: it ends with this process, however that ends. Who connects is looked at in `_accept`.
        self.path = f"\0shoal-serve-{secrets.token_hex(16)}"
        self._listener = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._listener.setblocking(False)
        self._listener.bind(self.path)
        self._listener.listen(16)
        self._channels: set[_Channel] = set()
        self._loop = asyncio.get_running_loop()
        self._loop.add_reader(self._listener.fileno(), self._accept)

    def _accept(self) -> None:
        with contextlib.suppress(BlockingIOError):
            while True:
                sock, _ = self._listener.accept()
                if not _is_same_user(sock):
                    sock.close()
                    continue
                self._serve(sock)

    def _serve(self, sock: socket.socket) -> None:
        states: mmap.mmap | None = None

        def arrived(message: bytes, fds: list[int]) -> None:
            nonlocal states
            if not fds:
                return
            if states is None:  # the first descriptor is that of the shared bytes
                states = mmap.mmap(fds[0], MAX_SLOTS)
                os.close(fds[0])
                return
            connection = socket.socket(fileno=fds[0])
            connection.setblocking(False)
            self._on_connection(connection, Slot(channel, states, *_GIVEN.unpack(message)))

        channel = _Channel(sock, arrived, lambda: self._channels.discard(channel))
        self._channels.add(channel)

    def close(self) -> None:
        """Take no more."""
        self._loop.remove_reader(self._listener.fileno())
        self._listener.close()


class Giver:
    """The ingress's side of one replica."""

    def __init__(
        self,
        path: str,
        on_return: Callable[[socket.socket], None],
        on_broken: Callable[[socket.socket], None],
        on_end: Callable[[], None],
    ) -> None:
        """Connect to the replica that listens at *path*.

        ``on_return`` gets connections that came back idle; ``on_broken`` those with a request that died with the
        replica and that nothing was answered to; ``on_end`` is called when the replica has gone.

        Raises
        ------
        OSError
            It does not listen.
        """
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        try:
            sock.connect(path)
            if not _is_same_user(sock):
                raise PermissionError(f"`{path}` belongs to another user")
            memory = os.memfd_create("shoal-serve")
            os.ftruncate(memory, MAX_SLOTS)
            self._states = mmap.mmap(memory, MAX_SLOTS)
            socket.send_fds(sock, [b"states"], [memory])
            os.close(memory)
        except BaseException:
            sock.close()
            raise
        self._on_return, self._on_broken, self._on_end = on_return, on_broken, on_end
        self._given: dict[int, socket.socket] = {}
        self._free: deque[int] = deque(range(MAX_SLOTS))
        self._channel = _Channel(sock, self._message, self._ended)

    def __len__(self) -> int:
        return len(self._given)

    def give(self, sock: socket.socket) -> bool:
        """Hand a connection over; false if the replica takes none at the moment."""
        if not self._free or not self._channel.is_open:
            return False
        index = self._free.popleft()
        self._states[index] = IDLE
        if not self._channel.give(_GIVEN.pack(index), sock.fileno()):
            self._free.appendleft(index)
            return False
        self._given[index] = sock
        return True

    def _message(self, message: bytes, fds: list[int]) -> None:
        index, returned = _CLOSED.unpack(message)
        sock = self._given.pop(index, None)
        if sock is None:
            return
        self._free.append(index)
        if returned:
            self._on_return(sock)
        else:
            sock.close()

    def _ended(self) -> None:
        given, self._given = self._given, {}
        self._on_end()
        for index, sock in given.items():
            state = self._states[index]
            if state == IDLE:
                self._on_return(sock)
            elif state == STARTED:
                self._on_broken(sock)
            else:
                sock.close()
        self._states.close()

    def close(self) -> None:
        """Keep nothing of what was given; the replica goes on with it."""
        self._channel.close()
        for sock in self._given.values():
            sock.close()
        self._given.clear()


def _is_same_user(sock: socket.socket) -> bool:
    raw = sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("3i"))
    _, uid, _ = struct.unpack("3i", raw)
    return bool(uid == os.getuid())
