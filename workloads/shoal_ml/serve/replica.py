"""The replica: an actor that answers the requests of one deployment."""

from __future__ import annotations

import asyncio
import pickle
import traceback
from collections.abc import AsyncIterator
from typing import Any, NamedTuple

import shoal
from shoal_ml.serve.loops import new_event_loop
from shoal_ml.serve.options import DeploymentOptions, HTTPOptions
from shoal_ml.serve.servable import Meta, Servable
from shoal_ml.serve.specs import LargeArgument


class Load(NamedTuple):
    """How busy a replica is: requests inside, waiting, and ever."""

    ongoing: int
    queued: int
    total: int
    errors: int


class Started(NamedTuple):
    """What a replica says once it is ready, or why it is not."""

    node_id: str
    #: Unix socket on which it takes over connections; "" if it does not.
    front: str
    traceback: str = ""


class Replica:
    """See the module's description; its methods are called by routers, by the ingress and by the controller."""

    #: Read by the executor that hosts it.
    __shoal_event_loop__ = staticmethod(new_event_loop)

    def __init__(
        self, application: str, deployment: str, replica_id: str, options: DeploymentOptions, code: bytes, *large: Any
    ) -> None:
        self._servable = Servable(application, deployment, replica_id, options)
        self._code = code
        self._large = large
        self._started: asyncio.Future[Started] | None = None
        self._web: Any = None

    async def start(self, http: HTTPOptions | None = None) -> Started:
        """Make the user's instance; the answer is the same if it is asked for again (by a new controller)."""
        if self._started is None:
            self._started = asyncio.get_running_loop().create_future()
            self._started.set_result(await self._start(http))
        return await self._started

    async def _start(self, http: HTTPOptions | None) -> Started:
        node_id = shoal.get_runtime_context().node_id
        try:
            target, args, kwargs = pickle.loads(self._code)
            self._code = b""
            args = tuple(map(self._fill, args))
            kwargs = {key: self._fill(value) for key, value in kwargs.items()}
            self._large = ()
            await self._servable.start(target, args, kwargs)
            front = await self._start_web(target, http) if http is not None else ""
        except BaseException as error:  # boundary: user code; the controller tells whoever deployed it
            return Started(node_id, "", "".join(traceback.format_exception(error)))
        return Started(node_id, front)

    async def _start_web(self, target: Any, http: HTTPOptions) -> str:
        """Get ready for HTTP; returns where connections are taken over."""
        from shoal_ml.serve.web_replica import WebReplica

        web = self._web = WebReplica(self._servable, target, http)
        return await web.listen()

    def _fill(self, value: Any) -> Any:
        return self._large[value.index] if isinstance(value, LargeArgument) else value

    async def call(self, meta: Meta, *args: Any, **kwargs: Any) -> Any:
        """Answer a request."""
        if meta[1] == "#http":
            return await self._web.answer(meta, *args)
        return await self._servable.call(meta, args, kwargs)

    async def stream(self, meta: Meta, *args: Any, **kwargs: Any) -> AsyncIterator[Any]:
        """Answer a request value by value."""
        if meta[1] == "#http":
            async for chunk in self._web.rest(*args):
                yield chunk
            return
        async for item in self._servable.stream(meta, args, kwargs):
            yield item

    async def reconfigure(self, options: DeploymentOptions) -> str:
        """Take other options without a restart; returns the traceback of what ``reconfigure`` raised, or ""."""
        try:
            await self._servable.reconfigure(options)
        except BaseException as error:  # boundary: user code
            return "".join(traceback.format_exception(error))
        return ""

    async def check_health(self) -> Load:
        """Return how busy it is, unless the instance's ``check_health`` raises."""
        await self._servable.check_health()
        return await self.load()

    async def load(self) -> Load:
        """Return how busy it is."""
        admission = self._servable.admission
        return Load(admission.ongoing, admission.queued, admission.total, self._servable.num_errors)

    async def live(self) -> None:
        """Never answer: the call ends with this process, which tells its caller at once."""
        await asyncio.get_running_loop().create_future()

    async def drain(self, timeout: float) -> bool:
        """Hand connections back and let requests end; returns whether all have within *timeout* seconds."""
        done = True
        try:
            async with asyncio.timeout(timeout):
                if self._web is not None:
                    await self._web.drain()
                await self._servable.admission.idle()
        except TimeoutError:
            done = False
        if self._web is not None:
            self._web.close()
        await self._servable.close()
        return done
