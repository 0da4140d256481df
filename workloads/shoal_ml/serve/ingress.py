"""The ingress: an actor that accepts HTTP connections and hands them to replicas, or answers by forwarding."""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
import socket
import ssl
from typing import Any

import shoal
from shoal_ml.serve.connection import Server, refusal
from shoal_ml.serve.forwarding import Forwarding
from shoal_ml.serve.front import Front
from shoal_ml.serve.handover import Giver
from shoal_ml.serve.hub import get_hub
from shoal_ml.serve.loops import new_event_loop
from shoal_ml.serve.options import HTTPOptions
from shoal_ml.serve.tables import DeploymentTable, Route, key_of

#: Connections that wait to be accepted.
BACKLOG = 2048
#: Connections that are accepted before anything else gets its turn.
AT_ONCE = 64
#: Bytes of a request that are looked at to find out whom it is for.
PEEK = 2048


class Ingress:
    """See the module's description."""

    #: Read by the executor that hosts it.
    __shoal_event_loop__ = staticmethod(new_event_loop)

    def __init__(self, options: HTTPOptions) -> None:
        self._options = options
        self._listener: socket.socket | None = None
        self._givers: dict[str, Giver] = {}
        self._waiting: dict[socket.socket, asyncio.TimerHandle] = {}
        self._opening: set[asyncio.Task[Any]] = set()

    async def listen(self, port: int, shared: bool) -> int:
        """Accept connections; returns the port. Harmless if it does already.

        Parameters
        ----------
        shared
            Several processes listen on the port.

        Raises
        ------
        OSError
            Another has the port.
        """
        if self._listener is not None:
            return int(self._listener.getsockname()[1])
        self._loop = asyncio.get_running_loop()
        self._node_id = shoal.get_runtime_context().node_id
        self._hub = get_hub()
        self._front = Front(self._options, Forwarding(self._options))
        self._known = asyncio.Event()
        self._hub.watch_routes(self._routes_changed)
        await self._known.wait()  # nobody is told that there is nothing, before it is known
        self._server = Server(self._front, self._options)
        self._ssl = _ssl_context(self._options)
        family = socket.AF_INET6 if ":" in self._options.host else socket.AF_INET
        listener = socket.socket(family)
        try:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            if shared:
                listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
            listener.bind((self._options.host, port))
            listener.listen(BACKLOG)
            listener.setblocking(False)
        except OSError:
            listener.close()
            raise
        self._listener = listener
        self._loop.add_reader(listener.fileno(), self._accept)
        return int(listener.getsockname()[1])

    async def live(self) -> None:
        """Never answer: the call ends with this process, which tells its caller at once."""
        await asyncio.get_running_loop().create_future()

    async def pid(self) -> int:
        """Return the id of this process on its node."""
        return os.getpid()

    async def connections(self) -> dict[str, int]:
        """Return how many connections each replica has from here; "" for those that stayed."""
        if self._listener is None:
            return {}
        return {"": len(self._server.state.connections)} | {key: len(giver) for key, giver in self._givers.items()}

    def _routes_changed(self, routes: Any) -> None:
        """There are other paths (on the hub's thread)."""
        self._front.update(routes)
        for route in routes:
            self._hub.router(key_of(route.application, route.deployment))
        self._loop.call_soon_threadsafe(self._known.set)

    def _accept(self) -> None:
        assert self._listener is not None
        for _ in range(AT_ONCE):
            try:
                sock, _ = self._listener.accept()
            except BlockingIOError:
                return
            except OSError:
                return  # the client has gone, or there are too many open files: the next time
            sock.setblocking(False)
            with contextlib.suppress(OSError):
                sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            self._arrived(sock)

    def _arrived(self, sock: socket.socket) -> None:
        """Find out whom a connection is for as soon as it says so."""
        if self._ssl is not None:
            self._keep(sock)
            return
        try:
            head = sock.recv(PEEK, socket.MSG_PEEK)
        except BlockingIOError:
            timer = self._loop.call_later(self._options.keep_alive_s, self._drop, sock)
            self._waiting[sock] = timer
            self._loop.add_reader(sock.fileno(), self._readable, sock)
            return
        except OSError:
            head = b""
        if head:
            self._place(sock, head)
        else:
            sock.close()

    def _readable(self, sock: socket.socket) -> None:
        self._loop.remove_reader(sock.fileno())
        self._waiting.pop(sock).cancel()
        self._arrived(sock)

    def _drop(self, sock: socket.socket) -> None:
        self._loop.remove_reader(sock.fileno())
        del self._waiting[sock]
        sock.close()

    def _place(self, sock: socket.socket, head: bytes) -> None:
        _, _, rest = head.partition(b" ")
        path = rest.split(b" ", 1)[0].split(b"?", 1)[0].decode("latin-1")
        route = self._front.find(path)
        giver = self._choose(route) if route is not None else None
        if giver is None or not giver.give(sock):
            self._keep(sock)

    def _choose(self, route: Route) -> Giver | None:
        """Return a replica on this node: the one with the fewest connections from here."""
        table = self._hub.router(key_of(route.application, route.deployment)).table
        if table is None:
            return None
        found = [self._giver(table, key, path) for key, path in table.fronts.items()]
        givers = [giver for giver in found if giver is not None]
        random.shuffle(givers)
        return min(givers, key=len, default=None)

    def _giver(self, table: DeploymentTable, replica_id: str, path: str) -> Giver | None:
        giver = self._givers.get(replica_id)
        if (
            giver is None
            and path
            and any(place.replica_id == replica_id and place.node_id == self._node_id for place in table.places)
        ):
            with contextlib.suppress(OSError):
                giver = Giver(path, self._arrived, self._broken, lambda: self._forget(replica_id))
                self._givers[replica_id] = giver
        return giver

    def _forget(self, replica_id: str) -> None:
        self._givers.pop(replica_id, None)

    @staticmethod
    def _broken(sock: socket.socket) -> None:
        with contextlib.suppress(OSError):
            sock.send(refusal(503, "The replica has died under the request.", "retry-after: 1"))
        sock.close()

    def _keep(self, sock: socket.socket) -> None:
        """Serve a connection here."""
        opening = self._loop.create_task(self._open(sock))
        self._opening.add(opening)
        opening.add_done_callback(self._opening.discard)

    async def _open(self, sock: socket.socket) -> None:
        timeout = self._options.header_timeout_s if self._ssl is not None else None
        with contextlib.suppress(OSError, asyncio.IncompleteReadError):  # a handshake that failed
            await self._loop.connect_accepted_socket(
                self._server.connection, sock, ssl=self._ssl, ssl_handshake_timeout=timeout
            )


def _ssl_context(options: HTTPOptions) -> ssl.SSLContext | None:
    if not options.ssl_certfile:
        return None
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(options.ssl_certfile, options.ssl_keyfile)
    return context
