"""Applications in the calling process: the whole graph on one event loop on a thread, for tests and debuggers.

Handles, composition, batching, multiplexing, limits and streams work as in a cluster; replicas, HTTP and scaling there
are none.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import threading
from collections.abc import AsyncIterator
from typing import Any

from shoal_ml.serve.deployments import Application
from shoal_ml.serve.errors import DeploymentFailedError
from shoal_ml.serve.handles import Call, DeploymentHandle, LocalResult, Response, ResponseStream
from shoal_ml.serve.hub import local_applications, set_local
from shoal_ml.serve.servable import Servable
from shoal_ml.serve.specs import Graph, applications_in


class _Loop:
    """An event loop on a daemon thread."""

    def __init__(self) -> None:
        self.loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self.loop.run_forever, name="shoal-serve-local", daemon=True)
        self._thread.start()

    def run(self, work: Any) -> concurrent.futures.Future[Any]:
        return asyncio.run_coroutine_threadsafe(work, self.loop)

    def stop(self) -> None:
        self.loop.call_soon_threadsafe(self.loop.stop)
        self._thread.join()
        self.loop.close()


class LocalRouter:
    """Answers calls of one deployment in this process; see :class:`shoal_ml.serve.router.Router`."""

    def __init__(self, loop: _Loop, servable: Servable) -> None:
        self.loop = loop
        self.servable = servable
        self._running: dict[int, concurrent.futures.Future[Any]] = {}

    def submit(self, call: Call) -> Response | ResponseStream:
        """Run *call* on the loop."""
        meta = (call.request_id, call.options.method_name, call.options.multiplexed_model_id)
        if call.options.stream:
            stream = ResponseStream(call, lambda _: None, lambda _: None)
            stream._sent.set_result(_Stream(self.loop, self._values(call, meta)))
            return stream
        response = Response(call, lambda *_: False, self._drop)
        future = self.loop.run(self._call(call, meta))
        self._running[id(response)] = future
        future.add_done_callback(lambda _: self._running.pop(id(response), None))
        response._sent.set_result(LocalResult(future))
        return response

    async def _call(self, call: Call, meta: tuple[str, str, str]) -> Any:
        args, kwargs = await _values_of(call)
        return await self.servable.call(meta, args, kwargs)

    async def _values(self, call: Call, meta: tuple[str, str, str]) -> AsyncIterator[Any]:
        args, kwargs = await _values_of(call)
        async for value in self.servable.stream(meta, args, kwargs):
            yield value

    def _drop(self, response: Response) -> None:
        future = self._running.get(id(response))
        if future is not None:
            future.cancel()


class _Stream(LocalResult):
    """The values of an async generator that lives on another thread's loop."""

    def __init__(self, loop: _Loop, values: AsyncIterator[Any]) -> None:
        self._loop = loop
        self._values = values

    def __iter__(self) -> Any:
        while True:
            try:
                yield self._loop.run(_next(self._values)).result()
            except StopAsyncIteration:
                return

    async def __aiter__(self) -> Any:
        while True:
            try:
                yield await asyncio.wrap_future(self._loop.run(_next(self._values)))
            except StopAsyncIteration:
                return


async def _next(values: AsyncIterator[Any]) -> Any:
    return await anext(values)


async def _values_of(call: Call) -> tuple[tuple[Any, ...], dict[str, Any]]:
    async def value(argument: Any) -> Any:
        return await argument if isinstance(argument, Response) else argument

    args = [await value(argument) for argument in call.args]
    return tuple(args), {key: await value(argument) for key, argument in call.kwargs.items()}


def run_local(application: Application, name: str) -> DeploymentHandle:
    """Make an application in this process; see :func:`shoal_ml.serve.run`."""
    if not isinstance(application, Application):
        raise TypeError(f"`serve.run` takes what `.bind(…)` returns, not {type(application).__name__}.")
    stop_local(name)
    graph = Graph(name, application)
    loop = _Loop()
    routers = {
        own: LocalRouter(loop, Servable(name, own, "local", node._deployment._options)) for own, node in graph.nodes()
    }
    set_local(name, routers)
    for own, node in reversed(graph.nodes()):
        args, kwargs = _with_handles(graph, node._args), _with_handles(graph, node._kwargs)
        try:
            loop.run(routers[own].servable.start(node._deployment._target, args, kwargs)).result()
        except Exception as error:
            set_local(name, None)
            loop.stop()
            raise DeploymentFailedError(
                f"Deployment `{own}` of application `{name}` did not start: {type(error).__name__}: {error}",
                application=name,
                deployment=own,
                traceback="",
                rolled_back=False,
            ) from error
    return DeploymentHandle(name, next(iter(routers)))


def _with_handles(graph: Graph, value: Any) -> Any:
    if isinstance(value, Application):
        return graph.handle(value)
    if not applications_in(value):
        return value
    if isinstance(value, dict):
        return {key: _with_handles(graph, part) for key, part in value.items()}
    return type(value)(_with_handles(graph, part) for part in value)


def stop_local(name: str) -> bool:
    """End an application of this process; returns whether there was one."""
    routers = local_applications().get(name)
    if routers is None:
        return False
    set_local(name, None)
    loop = None
    for router in routers.values():
        loop = router.loop
        loop.run(router.servable.close()).result()
    if loop is not None:
        loop.stop()
    return True
