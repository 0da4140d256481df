"""``shoal.metrics.serve``: a page of metrics that Prometheus can read, as well guarded as the cluster is."""

from __future__ import annotations

import contextlib
import hmac
import numbers
import secrets
import socket
import ssl
import threading
import warnings
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from ipaddress import ip_address
from typing import TYPE_CHECKING, Any

from shoal.api.looking import look
from shoal.api.session import Session, call_at_end, current_session
from shoal.model.errors import OptionError, ShoalError
from shoal.model.options import is_number

if TYPE_CHECKING:
    from shoal.api.inline_session import InlineSession

#: Where the metrics are.
PATH = "/metrics"
#: Seconds that one request may take, and requests at a time.
REQUEST_TIMEOUT, MAX_REQUESTS = 10.0, 16
#: Characters of a token at least.
MIN_TOKEN_CHARS = 16


class MetricsEndpoint:
    """An HTTP server with the cluster's metrics, until :meth:`stop` or the end of the session.

    Attributes
    ----------
    url
        What Prometheus reads.
    token
        What a reader without a certificate of the cluster has to send as ``Authorization: Bearer <token>``; "" if
        everybody may read.
    """

    def __init__(
        self, session: Session | InlineSession, host: str, port: int, token: str, context: ssl.SSLContext | None
    ) -> None:
        self.token = token
        self._server = _Server(session, (host, port), token, context)
        shown = f"[{host}]" if ":" in host else host
        self.url = f"http{'s' * (context is not None)}://{shown}:{self._server.server_address[1]}{PATH}"
        self._thread = threading.Thread(target=self._server.serve_forever, name="shoal-metrics", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Stop serving; harmless the second time."""
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def __enter__(self) -> MetricsEndpoint:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.stop()

    def __repr__(self) -> str:
        token = f"\nReaders send the header `Authorization: Bearer {self.token}`." if self.token else ""
        return f"Metrics of the cluster at {self.url}{token}"


def serve(port: int = 0, host: str = "127.0.0.1", token: str | None = None) -> MetricsEndpoint:
    """Serve the metrics of the cluster and of user code to Prometheus, from this driver.

    A cluster with TLS (each embedded one is) is read over HTTPS with the cluster's certificate: by whoever has a
    certificate of the cluster (mutual TLS), or sends the token. Without TLS the page is plain, on loopback only.

    Parameters
    ----------
    port
        0 for any that is free.
    host
        Address of this machine to listen on; loopback by default.
    token
        What readers have to send, 16 characters or more. By default, with TLS, one is made up and shown.

    Returns
    -------
    MetricsEndpoint
        Shows its address; ``.stop()`` ends it, as does the end of the session.

    Raises
    ------
    NotInitializedError
        This process is no driver of a cluster.
    OptionError
        A value cannot be, or the cluster has no TLS and *host* is not loopback.
    OSError
        The port is taken.
    """
    if not (is_number(port, numbers.Integral) and 0 <= port < 65536):
        raise OptionError(f"`port` must be a whole number from 0 to 65535, not {port!r}.", option="port")
    if not isinstance(host, str) or not host:
        raise OptionError(f"`host` must be an address of this machine, not {host!r}.", option="host")
    if token is not None and not (
        isinstance(token, str) and len(token) >= MIN_TOKEN_CHARS and token.isascii() and token.isprintable()
    ):
        raise OptionError(f"`token` must be {MIN_TOKEN_CHARS} or more ASCII characters, or None.", option="token")
    session = current_session()
    context = _context(session)
    if context is None and not _is_loopback(host):
        raise OptionError(
            f"The cluster has no TLS, so its metrics are served on loopback only, not on `{host}`.", option="host"
        )
    endpoint = MetricsEndpoint(session, host, int(port), token or ("" if context is None else _new_token()), context)
    call_at_end(endpoint.stop)
    if context is None and not token:
        warnings.warn(
            f"The metrics at {endpoint.url} use no TLS and no token: everyone on this machine can read them. Pass "
            "`token=` to ask for one.",
            UserWarning,
            stacklevel=2,
        )
    return endpoint


def _context(session: Session | InlineSession) -> ssl.SSLContext | None:
    if not isinstance(session, Session):
        return None
    from shoal.transport.comms import server_context

    context = server_context(session.security) if session.address.startswith("tls://") else None
    if context is not None:
        # A certificate that is shown has to be the cluster's; who shows none needs the token.
        context.verify_mode = ssl.CERT_OPTIONAL
    return context


def _new_token() -> str:
    return secrets.token_urlsafe(24)


def _is_loopback(host: str) -> bool:
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False

    def __init__(
        self, session: Session | InlineSession, address: tuple[str, int], token: str, context: ssl.SSLContext | None
    ) -> None:
        self.session = session
        self.token = token.encode()
        self._context = context
        self._room = threading.BoundedSemaphore(MAX_REQUESTS)
        if ":" in address[0]:
            self.address_family = socket.AF_INET6
        super().__init__(address, _Handler)

    def process_request(self, request: Any, client_address: Any) -> None:
        if self._room.acquire(blocking=False):
            super().process_request(request, client_address)
        else:
            self.shutdown_request(request)

    def process_request_thread(self, request: Any, client_address: Any) -> None:
        try:
            super().process_request_thread(request, client_address)
        finally:
            self._room.release()

    def finish_request(self, request: Any, client_address: Any) -> None:
        """Serve one connection, on a thread of its own: nobody waits for a reader that greets slowly."""
        request.settimeout(REQUEST_TIMEOUT)
        if self._context is None:
            super().finish_request(request, client_address)
            return
        with self._context.wrap_socket(request, server_side=True) as secured:
            super().finish_request(secured, client_address)
            with contextlib.suppress(OSError):
                secured.unwrap()

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Readers that hang up or are refused are no news."""


class _Handler(BaseHTTPRequestHandler):
    server: _Server
    server_version, sys_version = "shoal", ""
    timeout = REQUEST_TIMEOUT

    def do_GET(self) -> None:
        if not self._may_read():
            self._answer(401, "Send the token that `shoal.metrics.serve` has shown.\n", ("WWW-Authenticate", "Bearer"))
        elif self.path.partition("?")[0] != PATH:
            self._answer(404, f"The metrics are at {PATH}.\n")
        else:
            self._answer(*_read(self.server.session))

    def _may_read(self) -> bool:
        if not self.server.token:
            return True
        if isinstance(self.connection, ssl.SSLSocket) and self.connection.getpeercert():
            return True
        kind, _, given = self.headers.get("Authorization", "").partition(" ")
        return kind.lower() == "bearer" and hmac.compare_digest(given.strip().encode(), self.server.token)

    def _answer(self, status: int, text: str, *headers: tuple[str, str]) -> None:
        from shoal.observe.prometheus import CONTENT_TYPE

        body = text.encode()
        self.send_response(status)
        self.send_header("Content-Type", CONTENT_TYPE if status == 200 else "text/plain; charset=utf-8")
        self.send_header("Content-Length", str(len(body)))
        self.send_header("X-Content-Type-Options", "nosniff")
        for name, value in headers:
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: Any) -> None:
        """Nothing: the driver's output is the user's."""


def _read(session: Session | InlineSession) -> tuple[int, str]:
    """Return an HTTP status and the metrics, or why there are none."""
    from shoal.observe.prometheus import exposition

    try:
        session.owner.tell_metrics()
        told = look(session.owner, "metrics", timeout=REQUEST_TIMEOUT / 2)
        return 200, exposition(session.snapshot(REQUEST_TIMEOUT / 2), told)
    except (ShoalError, TimeoutError) as error:
        return 503, f"{error}\n"


__all__ = ["MetricsEndpoint", "serve"]
