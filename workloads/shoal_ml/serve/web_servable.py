"""A deployment over HTTP: what turns a request into a call of the instance, and its value into a response."""

from __future__ import annotations

import inspect
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response, StreamingResponse

from shoal_ml.serve.bodies import decode, encode, wanted_argument
from shoal_ml.serve.servable import Servable

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]


class WebServable:
    """An ASGI application that answers with a servable, within its limits."""

    def __init__(self, servable: Servable, target: Any) -> None:
        self.servable = servable
        make = getattr(target, "__shoal_asgi__", None)
        self._app = make(servable.instance) if make is not None else None
        instance = servable.instance
        called = instance if inspect.isfunction(instance) else getattr(instance, "__call__", None)  # noqa: B004
        self._wanted = "" if called is None else wanted_argument(called)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request when its turn comes; what user code raises comes through."""
        servable = self.servable
        await servable.admission.enter()
        try:
            servable.enter_context(scope["state"]["request_id"], scope["state"]["model_id"])
            if self._app is not None:
                await self._app(scope, receive, send)
            else:
                await self._answer(scope, receive, send)
        except ClientDisconnect:
            return
        except BaseException:
            servable.num_errors += 1
            raise
        finally:
            servable.admission.leave()

    async def _answer(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            raise TypeError(f"`{self.servable.deployment}` has no websockets: give it an app by `@serve.ingress`.")
        request = Request(scope, receive, send)
        args: tuple[Any, ...] = ()
        if self._wanted == "body":
            args = (decode(request.headers.get("content-type", ""), await request.body()),)
        elif self._wanted:
            args = (request,)
        value = await self.servable.invoke("__call__", args, {})
        if isinstance(value, Response):
            await value(scope, receive, send)
        elif inspect.isasyncgen(value) or inspect.isgenerator(value):
            chunks = (_as_chunk(item) async for item in self.servable.iterate(value))
            await StreamingResponse(chunks, media_type="text/plain; charset=utf-8")(scope, receive, send)
        else:
            kind, body = encode(value, request.headers.get("accept", ""))
            headers = [(b"content-type", kind.encode()), (b"content-length", str(len(body)).encode())]
            await send({"type": "http.response.start", "status": 200, "headers": headers})
            await send({"type": "http.response.body", "body": body})


def _as_chunk(item: Any) -> bytes | str:
    if isinstance(item, str | bytes):
        return item
    return encode(item, "")[1] + b"\n"
