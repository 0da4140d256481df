"""Handles: how a driver, another deployment or the HTTP ingress calls a deployment."""

from __future__ import annotations

import asyncio
import concurrent.futures
import dataclasses
import time
from collections.abc import AsyncIterator, Callable, Generator, Iterator
from typing import Any

import shoal
from shoal.errors import ActorDiedError, ActorUnavailableError, GetTimeoutError, OptionError
from shoal.model.ids import random_id
from shoal.model.suggest import did_you_mean
from shoal_ml.serve.contexts import current_request


@dataclasses.dataclass(frozen=True, slots=True)
class CallOptions:
    """How one call is made: ``handle.options(…)``.

    Attributes
    ----------
    method_name
        Which method; ``__call__`` by default.
    stream
        The method is a generator: iterate over the response.
    multiplexed_model_id
        What ``serve.get_multiplexed_model_id()`` returns there; it also says which replica is best.
    retries
        How often the call is made again whose replica died under it; by default what the deployment says.
    """

    method_name: str = "__call__"
    stream: bool = False
    multiplexed_model_id: str = ""
    retries: int | None = None


class DeploymentHandle:
    """Calls a deployment: ``handle.remote(…)`` returns a response at once. It can be passed anywhere in the cluster."""

    def __init__(self, application: str, deployment: str, options: CallOptions | None = None) -> None:
        self._application = application
        self._deployment = deployment
        self._call_options = options or CallOptions()

    def remote(self, *args: Any, **kwargs: Any) -> Any:
        """Send a request to a replica, or have it wait for one.

        Responses among the arguments are passed on unresolved: the replica gets their values, straight from where
        they are made.

        Returns
        -------
        Response or ResponseStream

        Raises
        ------
        BackPressureError
            As many requests as ``max_queued_requests`` allows wait already. Where the replica finds that out, the
            response raises it.
        """
        from shoal_ml.serve.hub import find_router

        request = current_request()
        call = Call(
            request.request_id if request is not None else random_id("request"), self._call_options, args, kwargs
        )
        return find_router(self._application, self._deployment).submit(call)

    def options(self, **changes: Any) -> DeploymentHandle:
        """Return the same handle with other :class:`CallOptions`."""
        known = [field.name for field in dataclasses.fields(CallOptions)]
        for name in changes:
            if name not in known:
                raise OptionError(f"A handle has no option `{name}`.{did_you_mean(name, known)}", option=name)
        return DeploymentHandle(self._application, self._deployment, dataclasses.replace(self._call_options, **changes))

    def __getattr__(self, name: str) -> DeploymentHandle:
        if name.startswith("_"):
            raise AttributeError(name)
        return self.options(method_name=name)

    def __reduce__(self) -> tuple[Any, ...]:
        return DeploymentHandle, (self._application, self._deployment, self._call_options)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        raise TypeError("Call `handle.remote(…)`; `await` the response, or take its `.result()`.")

    def __repr__(self) -> str:
        method = self._call_options.method_name
        return f"<handle of {self._application}/{self._deployment}{'' if method == '__call__' else '.' + method}>"


@dataclasses.dataclass(slots=True, eq=False)
class Call:
    """One request as its caller has made it."""

    request_id: str
    options: CallOptions
    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    #: Replicas it was lost with.
    lost_with: list[str] = dataclasses.field(default_factory=list)
    #: Where it is now; "" while it waits.
    replica_id: str = ""

    def responses(self) -> list[Response]:
        """Return the responses among its arguments."""
        return [value for value in (*self.args, *self.kwargs.values()) if isinstance(value, Response)]

    def resolved(self) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """Return its arguments with the refs of responses, which have all been sent."""

        def ref_of(value: Any) -> Any:
            return value._sent.result(0) if isinstance(value, Response) else value

        return tuple(map(ref_of, self.args)), {key: ref_of(value) for key, value in self.kwargs.items()}


class Response:
    """An answer to come: ``await`` it, or take its ``result()``. Cancelling who awaits it cancels the request."""

    def __init__(self, call: Call, again: Callable[[Response, BaseException], bool], drop: Callable[[Response], None]):
        self._call = call
        #: Ready once it was sent to a replica: the ref of its value.
        self._sent: concurrent.futures.Future[Any] = concurrent.futures.Future()
        self._again = again
        self._drop = drop

    def result(self, timeout_s: float | None = None) -> Any:
        """Wait for the answer and return it; not on an event loop.

        Raises
        ------
        GetTimeoutError
            Not there within *timeout_s* seconds; the request goes on.
        Exception
            What the deployment raised, as its own type.
        BackPressureError, ActorDiedError
            See there.
        """
        deadline = None if timeout_s is None else time.monotonic() + timeout_s
        while True:
            try:
                ref = self._sent.result(_left(deadline))
            except concurrent.futures.CancelledError:
                raise _cancelled(self._call) from None
            except TimeoutError:
                raise GetTimeoutError(
                    f"Waited {timeout_s:g} s for a replica to take the request.", timeout=timeout_s
                ) from None
            try:
                return ref.result(_left(deadline)) if isinstance(ref, LocalResult) else shoal.get(ref, _left(deadline))
            except (ActorDiedError, ActorUnavailableError) as error:
                if not self._again(self, error):
                    raise

    def __await__(self) -> Generator[Any, None, Any]:
        return self._outcome().__await__()

    async def _outcome(self) -> Any:
        try:
            while True:
                sent = self._sent
                ref = sent.result(0) if sent.done() else await asyncio.wrap_future(sent)
                try:
                    return await ref
                except (ActorDiedError, ActorUnavailableError) as error:
                    if not self._again(self, error):
                        raise
        except asyncio.CancelledError:
            self.cancel()
            raise

    def cancel(self) -> None:
        """Stop the request: an ``async def`` method gets ``CancelledError``. Harmless if it has been answered."""
        self._drop(self)

    def __reduce__(self) -> tuple[Any, ...]:
        from shoal_ml.serve.hub import arrived_response

        return arrived_response, (self._sent.result(), self._call.request_id)

    def __repr__(self) -> str:
        return f"<response {self._call.request_id}>"


class ResponseStream:
    """The values of a generator method as they come: iterate with ``for`` or ``async for``, once."""

    def __init__(self, call: Call, done: Callable[[ResponseStream], None], drop: Callable[[ResponseStream], None]):
        self._call = call
        #: Ready once it was sent to a replica: the generator of refs.
        self._sent: concurrent.futures.Future[Any] = concurrent.futures.Future()
        self._done = done
        self._drop = drop

    def __iter__(self) -> Iterator[Any]:
        try:
            source = self._sent.result()
            yield from source if isinstance(source, LocalResult) else map(shoal.get, source)
        finally:
            self._finish()

    async def __aiter__(self) -> AsyncIterator[Any]:
        try:
            source = await asyncio.wrap_future(self._sent)
            async for item in source:
                yield await item if isinstance(item, shoal.ObjectRef) else item
        finally:
            self._finish()

    def cancel(self) -> None:
        """Stop the generator."""
        self._drop(self)

    def _finish(self) -> None:
        self._drop(self)
        self._done(self)

    def __repr__(self) -> str:
        return f"<response stream {self._call.request_id}>"


class LocalResult:
    """What stands for a ref where the application runs in this process (``serve.run(…, local=True)``)."""

    def __init__(self, future: concurrent.futures.Future[Any]) -> None:
        self.future = future

    def result(self, timeout: float | None = None) -> Any:
        try:
            return self.future.result(timeout)
        except TimeoutError as error:
            if self.future.done():
                raise  # it is the deployment's own
            raise GetTimeoutError(f"Waited {timeout:g} s for the response.", timeout=timeout) from error

    def __await__(self) -> Generator[Any, None, Any]:
        return asyncio.wrap_future(self.future).__await__()

    def __iter__(self) -> Iterator[Any]:
        return iter(self.future.result())

    async def __aiter__(self) -> AsyncIterator[Any]:
        for item in await asyncio.wrap_future(self.future):
            yield item


def _left(deadline: float | None) -> float | None:
    return None if deadline is None else max(0.0, deadline - time.monotonic())


def _cancelled(call: Call) -> Exception:
    from shoal_ml.serve.errors import RequestCancelledError

    return RequestCancelledError(f"Request `{call.request_id}` was cancelled.", request_id=call.request_id)
