"""A servable: the user's class or function, made and called. The same in a replica and in a local application."""

from __future__ import annotations

import asyncio
import contextvars
import inspect
from collections.abc import AsyncIterator, Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from shoal_ml.serve.admission import Admission
from shoal_ml.serve.contexts import ReplicaContext, RequestContext, set_replica, set_request
from shoal_ml.serve.options import DeploymentOptions
from shoal_ml.serve.tables import key_of

#: Threads for methods that are not ``async def``, at most.
MAX_THREADS = 64
#: Request id, name of the method, id of the model.
Meta = tuple[str, str, str]


class Servable:
    """See the module's description. For one event loop; :meth:`start` comes first, :meth:`close` last."""

    def __init__(self, application: str, deployment: str, replica_id: str, options: DeploymentOptions) -> None:
        self.application = application
        self.deployment = deployment
        self.replica_id = replica_id
        self.options = options
        self.admission = Admission(
            key_of(application, deployment).replace("#", "/"),
            options.max_ongoing_requests,
            options.max_queued_requests,
            options.retry_after_s,
        )
        self.instance: Any = None
        self._invokers: dict[str, tuple[Any, Callable[..., Any]]] = {}
        self._threads: ThreadPoolExecutor | None = None
        self.num_errors = 0

    async def start(self, target: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        """Make the instance and configure it; whatever user code raises comes through."""
        set_replica(ReplicaContext(self.application, self.deployment, self.replica_id, None))
        self.instance = target(*args, **kwargs) if inspect.isclass(target) else target
        set_replica(ReplicaContext(self.application, self.deployment, self.replica_id, self.instance))
        await self.reconfigure(self.options)

    def change(self, options: DeploymentOptions) -> None:
        """Use other limits from now on."""
        self.options = options
        self.admission.limit = options.max_ongoing_requests
        self.admission.max_queued = options.max_queued_requests
        self.admission.retry_after = options.retry_after_s

    async def reconfigure(self, options: DeploymentOptions) -> None:
        """Take other options, and hand ``user_config`` to the instance if there is one."""
        self.change(options)
        if options.user_config is None:
            return
        method = getattr(self.instance, "reconfigure", None)
        if method is None:
            raise TypeError(f"`{self.deployment}` has a `user_config` and no method `reconfigure(user_config)`.")
        await _maybe_await(method(options.user_config))

    async def check_health(self) -> None:
        """Ask the instance, if it has a ``check_health``; raises what that raises."""
        method = getattr(self.instance, "check_health", None)
        if method is not None:
            await _maybe_await(method())

    async def close(self) -> None:
        """Let the instance go: its ``close()``, or its ``__del__``."""
        method = getattr(self.instance, "close", None)
        instance, self.instance = self.instance, None
        self._invokers.clear()
        if method is not None and not inspect.isfunction(instance):
            await _maybe_await(method())
        if self._threads is not None:
            self._threads.shutdown(wait=False, cancel_futures=True)

    def enter_context(self, request_id: str, model_id: str) -> None:
        """Say what the calling task works on from now on."""
        set_request(RequestContext(request_id, self.application, self.deployment, model_id))
        set_replica(ReplicaContext(self.application, self.deployment, self.replica_id, self.instance))

    async def call(self, meta: Meta, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Answer one request, when its turn comes."""
        await self.admission.enter()
        try:
            self.enter_context(meta[0], meta[2])
            value = await self.invoke(meta[1], args, kwargs)
        except BaseException:
            self.num_errors += 1
            raise
        finally:
            self.admission.leave()
        if inspect.isgenerator(value) or inspect.isasyncgen(value):
            raise TypeError(f"`{self.deployment}.{meta[1]}` is a generator: call it by `handle.options(stream=True)`.")
        return value

    async def stream(self, meta: Meta, args: tuple[Any, ...], kwargs: dict[str, Any]) -> AsyncIterator[Any]:
        """Answer one request value by value."""
        await self.admission.enter()
        try:
            self.enter_context(meta[0], meta[2])
            async for item in self.iterate(await self.invoke(meta[1], args, kwargs)):
                yield item
        finally:
            self.admission.leave()

    async def invoke(self, method: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Call a method of the instance: here if it is ``async def``, else on a thread."""
        function, invoke = self._invokers.get(method) or self._find(method)
        return await invoke(function, *args, **kwargs)

    async def iterate(self, values: Any) -> AsyncIterator[Any]:
        """Give the values of whatever generator; an ordinary one advances on a thread."""
        if inspect.isasyncgen(values) or hasattr(values, "__aiter__"):
            async for item in values:
                yield item
            return
        if not hasattr(values, "__iter__") or isinstance(values, str | bytes | dict):
            raise TypeError(f"`{self.deployment}` was asked for a stream and returned a {type(values).__name__}.")
        source, end = iter(values), object()
        while (item := await self._on_thread(next, source, end)) is not end:
            yield item

    def _find(self, method: str) -> tuple[Any, Callable[..., Any]]:
        if method.startswith("_") and method != "__call__":
            raise AttributeError(f"`{method}` of deployment `{self.deployment}` is private.")
        try:
            function = self.instance if inspect.isfunction(self.instance) else getattr(self.instance, method)
        except AttributeError:
            raise AttributeError(f"Deployment `{self.deployment}` has no method `{method}`.") from None
        called = function if inspect.isroutine(function) else getattr(function, "__call__", function)  # noqa: B004
        if inspect.iscoroutinefunction(called):
            invoke: Callable[..., Any] = _await
        elif inspect.isasyncgenfunction(called) or inspect.isgeneratorfunction(called):
            invoke = _call
        else:
            invoke = self._on_thread
        found = self._invokers[method] = function, invoke
        return found

    async def _on_thread(self, function: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        if self._threads is None:
            limit = min(MAX_THREADS, self.options.max_ongoing_requests)
            self._threads = ThreadPoolExecutor(limit, thread_name_prefix="shoal-serve-call")
        surroundings = contextvars.copy_context()
        loop = asyncio.get_running_loop()
        value = await loop.run_in_executor(self._threads, lambda: surroundings.run(function, *args, **kwargs))
        return await value if inspect.isawaitable(value) else value


async def _await(function: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
    return await function(*args, **kwargs)


async def _call(function: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
    return function(*args, **kwargs)


async def _maybe_await(value: Any) -> Any:
    return await value if inspect.isawaitable(value) else value
