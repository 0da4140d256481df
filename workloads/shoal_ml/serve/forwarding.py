"""Forwarding: a request that one process has read is answered by a replica in another."""

from __future__ import annotations

import asyncio
import contextlib
from typing import Any

from shoal_ml.serve.front import TooLargeError
from shoal_ml.serve.handles import Call, CallOptions
from shoal_ml.serve.hub import find_router
from shoal_ml.serve.options import HTTPOptions
from shoal_ml.serve.tables import Route
from shoal_ml.serve.web_servable import Receive, Scope, Send

#: Methods whose requests can be made twice (RFC 9110, 9.2.2).
IDEMPOTENT = frozenset({"GET", "HEAD", "PUT", "DELETE", "OPTIONS", "TRACE"})


class Forwarding:
    """Forwards whole requests; responses may be streams."""

    def __init__(self, options: HTTPOptions) -> None:
        self._max_body = options.max_body_bytes

    async def __call__(self, route: Route, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request by a replica elsewhere.

        Raises
        ------
        BackPressureError, UnknownApplicationError, ActorDiedError, TimeoutError
            See there.
        """
        from shoal_ml.serve.web_replica import ForwardedRequest

        if scope["type"] != "http":
            raise NotImplementedError(
                "Websockets are served only by a replica on the node of the ingress, without TLS."
            )
        state = scope["state"]
        request = ForwardedRequest(
            scope["method"],
            scope["path"],
            scope["raw_path"],
            scope["root_path"],
            scope["query_string"],
            tuple(scope["headers"]),
            await _read(receive, self._max_body),
            scope.get("client"),
            scope.get("server"),
            scope["scheme"],
        )
        router = find_router(route.application, route.deployment)
        retries = 1 if scope["method"] in IDEMPOTENT else 0
        call = Call(state["request_id"], CallOptions("#http", False, state["model_id"], retries), (request,), {})
        table = router.table
        limit = table.request_timeout if table is not None else None
        async with asyncio.timeout(limit):
            answer = await router.submit(call)
            await send({"type": "http.response.start", "status": answer.status, "headers": list(answer.headers)})
            await send({"type": "http.response.body", "body": answer.body, "more_body": bool(answer.rest)})
            if answer.rest:
                await _send_rest(router.table.handles[call.replica_id], answer.rest, send)


async def _read(receive: Receive, limit: int) -> bytes:
    parts: list[bytes] = []
    size = 0
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise asyncio.CancelledError
        parts.append(message.get("body", b""))
        size += len(parts[-1])
        if size > limit:
            raise TooLargeError
        if not message.get("more_body"):
            return b"".join(parts)


async def _send_rest(replica: Any, rest: int, send: Send) -> None:
    chunks = replica.stream.options(max_pending=32).remote(("", "#http", ""), rest)
    async with contextlib.aclosing(_values(chunks)) as values:
        async for chunk in values:
            await send({"type": "http.response.body", "body": chunk, "more_body": True})
    await send({"type": "http.response.body", "body": b"", "more_body": False})


async def _values(refs: Any) -> Any:
    async for ref in refs:
        yield await ref
