"""Clients for what is served over HTTP: single requests, raw bytes, and constant load that counts what is lost."""

from __future__ import annotations

import contextlib
import http.client
import json
import socket
import threading
from collections import Counter
from collections.abc import Iterator
from typing import Any, NamedTuple
from urllib.parse import urlsplit


class Reply(NamedTuple):
    """A response."""

    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)


def ask(
    url: str, body: bytes | None = None, method: str = "", headers: dict[str, str] | None = None, timeout: float = 30.0
) -> Reply:
    """Send one request over a connection of its own."""
    where = urlsplit(url)
    connection = http.client.HTTPConnection(where.netloc, timeout=timeout)
    try:
        return ask_over(connection, where.path + ("?" + where.query if where.query else ""), body, method, headers)
    finally:
        connection.close()


def ask_over(
    connection: http.client.HTTPConnection,
    path: str,
    body: bytes | None = None,
    method: str = "",
    headers: dict[str, str] | None = None,
) -> Reply:
    """Send one request over a connection that stays open."""
    connection.request(method or ("GET" if body is None else "POST"), path or "/", body, headers or {})
    response = connection.getresponse()
    return Reply(response.status, {key.lower(): value for key, value in response.getheaders()}, response.read())


def raw(url: str, data: bytes, timeout: float = 20.0) -> bytes:
    """Send bytes, and return all that comes back until the server ends the connection."""
    where = urlsplit(url)
    with socket.create_connection((where.hostname, where.port), timeout) as sock:
        with contextlib.suppress(ConnectionError):  # it may have refused before it had all
            sock.sendall(data)
        received = b""
        with contextlib.suppress(ConnectionError):
            while chunk := sock.recv(65536):
                received += chunk
        return received


class Load:
    """Constant load from a few connections, each of which sends its next request when it has the last answer."""

    def __init__(self, url: str, clients: int, method: str = "POST") -> None:
        self._where = urlsplit(url)
        self._method = method
        self._end = threading.Event()
        #: Number of answers by status; of broken connections by type of error.
        self.counts: Counter[Any] = Counter()
        self.bodies: Counter[bytes] = Counter()
        self._news = threading.Condition()
        self._threads = [threading.Thread(target=self._run, daemon=True) for _ in range(clients)]

    def _run(self) -> None:
        connection = http.client.HTTPConnection(self._where.netloc, timeout=30)
        while not self._end.is_set():
            try:
                reply = ask_over(connection, self._where.path, b"1" if self._method == "POST" else None, self._method)
            except (OSError, http.client.HTTPException) as error:
                connection.close()
                self._count(type(error).__name__, b"")
            else:
                self._count(reply.status, reply.body)
        connection.close()

    def _count(self, what: Any, body: bytes) -> None:
        with self._news:
            self.counts[what] += 1
            self.bodies[body] += 1
            self._news.notify_all()

    def wait_for(self, count: int, what: Any = 200, timeout: float = 60.0) -> None:
        """Wait until so many more have ended so."""
        with self._news:
            goal = self.counts[what] + count
            assert self._news.wait_for(lambda: self.counts[what] >= goal, timeout), dict(self.counts)

    def wait_for_body(self, body: bytes, timeout: float = 60.0) -> None:
        """Wait until an answer says this."""
        with self._news:
            assert self._news.wait_for(lambda: self.bodies[body] > 0, timeout), dict(self.bodies)

    def lost(self) -> int:
        """Return how many requests have not been answered with 200."""
        return sum(count for what, count in self.counts.items() if what != 200)

    def __enter__(self) -> Load:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._end.set()
        for thread in self._threads:
            thread.join(40)


@contextlib.contextmanager
def keep_alive(url: str) -> Iterator[http.client.HTTPConnection]:
    """Give a connection that stays open."""
    connection = http.client.HTTPConnection(urlsplit(url).netloc, timeout=30)
    try:
        yield connection
    finally:
        connection.close()
