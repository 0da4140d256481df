"""The front: the ASGI application behind every connection, in the ingress and in replicas that take connections over.

It knows which path belongs to which application. A request for the deployment of this very process is answered here;
all others are forwarded to a replica through a router, as any other call.
"""

from __future__ import annotations

import asyncio
import hmac
import json
import logging
import time
from collections.abc import Sequence
from typing import Any, Protocol

from shoal.errors import ActorDiedError, ActorUnavailableError, ClusterLostError, TaskCancelledError
from shoal.model.ids import next_number
from shoal_ml.serve.bodies import BadBodyError
from shoal_ml.serve.errors import BackPressureError, UnknownApplicationError
from shoal_ml.serve.options import HTTPOptions
from shoal_ml.serve.tables import Route
from shoal_ml.serve.web_servable import Receive, Scope, Send, WebServable

logger = logging.getLogger("shoal.serve")
#: Characters of a request id that is taken over from the client.
MAX_ID = 128


class Forwarder(Protocol):
    """Answers a request that is for another process."""

    async def __call__(self, route: Route, scope: Scope, receive: Receive, send: Send) -> None: ...


class TooLargeError(Exception):
    """The body has more bytes than are allowed."""


class Front:
    """See the module's description."""

    def __init__(
        self, options: HTTPOptions, forward: Forwarder, local: WebServable | None = None, router: Any = None
    ) -> None:
        """*local* answers requests for its own deployment, unless *router* knows better."""
        self._options = options
        self._forward = forward
        self._local = local
        self._router = router
        #: Longest prefix first.
        self._routes: Sequence[Route] = ()
        self._token = b"Bearer " + options.token.encode() if options.token else b""

    def update(self, routes: Sequence[Route]) -> None:
        """These are the paths from now on."""
        self._routes = sorted(routes, key=lambda route: -len(route.prefix))

    def find(self, path: str) -> Route | None:
        """Return the route of a path: the longest prefix that it has, by whole segments."""
        for route in self._routes:
            prefix = route.prefix
            if prefix == "/" or path == prefix or (path.startswith(prefix) and path[len(prefix)] == "/"):
                return route
        return None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        state = scope["state"]
        given, model_id, token, length = b"", b"", b"", b""
        for name, value in scope["headers"]:
            if name == b"x-request-id":
                given = value
            elif name == b"serve_multiplexed_model_id" or name == b"serve-multiplexed-model-id":
                model_id = value
            elif name == b"authorization":
                token = value
            elif name == b"content-length":
                length = value
        request_id = _clean(given) if given else next_number()
        state["request_id"], state["model_id"] = request_id, model_id.decode("latin-1")[:MAX_ID]
        answer = Answer(request_id, state.get("connection"), send)
        began = time.perf_counter()
        connection = state.get("connection")
        if connection is not None:
            connection.task = asyncio.current_task()
        try:
            if scope["type"] == "http" and self._too_long(length):
                raise TooLargeError
            await self._serve(scope, self._limited(receive, length), answer, token)
        except asyncio.CancelledError:
            if connection is None or not connection.is_lost:
                raise
        except BaseException as error:  # boundary: user code; the client gets a status and a short reason
            await self._failed(scope, answer, error)
        finally:
            if connection is not None:
                connection.task = None
            if self._options.access_log and scope["type"] == "http":
                logger.info(
                    "%s %s %s %d %.1f ms", request_id, scope["method"], scope["path"].encode("unicode_escape").decode(),
                    answer.status, 1000 * (time.perf_counter() - began),
                )  # fmt: skip

    def _too_long(self, length: bytes) -> bool:
        return length.isdigit() and int(length[:20]) > self._options.max_body_bytes

    def _limited(self, receive: Receive, length: bytes) -> Receive:
        if length.isdigit():
            return receive
        left = self._options.max_body_bytes

        async def limited() -> Any:
            nonlocal left
            message = await receive()
            left -= len(message.get("body", b""))
            if left < 0:
                raise TooLargeError
            return message

        return limited

    async def _serve(self, scope: Scope, receive: Receive, answer: Answer, token: bytes) -> None:
        path: str = scope["path"]
        if path == "/-/healthz":
            return await answer.json(200, {"status": "ok"})
        if self._token and not hmac.compare_digest(token, self._token):
            return await answer.error(
                401, "This needs a token: `Authorization: Bearer …`.", ("www-authenticate", "Bearer")
            )
        if path == "/-/routes":
            return await answer.json(200, {route.prefix: route.application for route in self._routes})
        route = self.find(path)
        if route is None:
            return await answer.error(404, "No application serves this path; `/-/routes` lists those that are served.")
        if route.prefix != "/":
            scope["root_path"] = scope.get("root_path", "") + route.prefix
        if self._is_here(route, scope["state"]["model_id"]):
            assert self._local is not None
            limit = self._local.servable.options.request_timeout_s
            if limit is None or scope["type"] != "http":
                return await self._local(scope, receive, answer)
            async with asyncio.timeout(limit):
                return await self._local(scope, receive, answer)
        return await self._forward(route, scope, receive, answer)

    def _is_here(self, route: Route, model_id: str) -> bool:
        """Whether this process answers: not if the model is with another."""
        if self._local is None:
            return False
        servable = self._local.servable
        if servable.application != route.application or servable.deployment != route.deployment:
            return False
        return not model_id or bool(self._router.is_first(model_id, servable.replica_id))

    async def _failed(self, scope: Scope, answer: Answer, error: BaseException) -> None:
        status, text, headers = describe(error)
        if status == 500:
            logger.error("request %s has failed", answer.request_id, exc_info=error)
        if scope["type"] == "websocket":
            await answer.close_websocket(status)
        elif answer.status:
            raise error  # its response has begun: all that can be done is to break it off
        else:
            await answer.error(status, text, *headers)


class Answer:
    """``send`` of one request: adds the request's id, and knows whether the response has begun."""

    __slots__ = ("_accepted", "_connection", "_send", "request_id", "status")

    def __init__(self, request_id: str, connection: Any, send: Send) -> None:
        self.request_id = request_id
        self._connection = connection
        self._send = send
        #: Status sent; 0 before.
        self.status = 0
        self._accepted = False

    async def __call__(self, message: Any) -> None:
        kind = message["type"]
        if kind == "http.response.start":
            self.status = message["status"]
            headers = [*message.get("headers", ()), (b"x-request-id", self.request_id.encode())]
            message = {**message, "headers": headers}
            if self._connection is not None:
                self._connection.begun()
        elif kind == "websocket.accept":
            self._accepted = True
        await self._send(message)

    async def json(self, status: int, value: Any, *headers: tuple[str, str]) -> None:
        """Send a whole response."""
        body = json.dumps(value).encode()
        fields = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode())]
        fields += [(name.encode(), content.encode()) for name, content in headers]
        await self({"type": "http.response.start", "status": status, "headers": fields})
        await self({"type": "http.response.body", "body": body})

    async def error(self, status: int, text: str, *headers: tuple[str, str]) -> None:
        """Send a response that says what was wrong."""
        await self.json(status, {"error": text, "status": status, "request_id": self.request_id}, *headers)

    async def close_websocket(self, status: int) -> None:
        """End a websocket, or refuse it."""
        code = 1011 if status >= 500 else 1008
        await self._send({"type": "websocket.close", "code": code})


def describe(error: BaseException) -> tuple[int, str, tuple[tuple[str, str], ...]]:
    """Return status, reason and headers for what a request has failed with. What user code says stays in the log."""
    match error:
        case BackPressureError():
            after = ("retry-after", str(max(1, round(error.retry_after))))
            return 503, "Too many requests wait already: try again later.", (after,)
        case BadBodyError():
            return error.status, str(error), ()
        case TooLargeError():
            return 413, "The body is too large.", (("connection", "close"),)
        case UnknownApplicationError():
            return 404, "The application is gone.", ()
        case ActorDiedError() | ActorUnavailableError():
            return 503, "The replica has died under the request.", (("retry-after", "1"),)
        case ClusterLostError():
            return 503, "The cluster is gone.", ()
        case TimeoutError():
            return 504, "The request took too long.", ()
        case TaskCancelledError() | asyncio.CancelledError():
            return 503, "The request was cancelled.", ()
    return 500, "The application has failed; its log says more.", ()


def _clean(given: bytes) -> str:
    """Return a client's request id, if it is one that is safe to show."""
    text = given.decode("latin-1")[:MAX_ID]
    return text if text.isascii() and text.isprintable() else next_number()
