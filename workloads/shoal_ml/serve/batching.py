"""``@serve.batch``: single requests go in, and the method gets lists of them."""

from __future__ import annotations

import asyncio
import dataclasses
import functools
import inspect
import weakref
from collections.abc import Callable, Hashable
from typing import Any, overload

from shoal.errors import OptionError
from shoal.model.options import is_number
from shoal_ml.serve.batch_queue import BatchQueue
from shoal_ml.serve.contexts import current_request, set_request


@dataclasses.dataclass(slots=True, eq=False)
class _Request:
    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    answer: asyncio.Future[Any]
    model_id: str


class Batcher:
    """The batches of one method of one instance, on one event loop."""

    def __init__(self, function: Callable[..., Any], instance: Any, settings: _Settings) -> None:
        self._function = function
        self._instance = weakref.ref(instance) if instance is not None else None
        self._settings = settings
        bucket, size = settings.bucket_fn, settings.batch_size_fn
        self.queue = BatchQueue(
            settings.max_batch_size,
            settings.batch_wait_timeout_s,
            settings.max_concurrent_batches,
            None if size is None else lambda request: float(size(request.args[0])),
            lambda request: (request.model_id, None if bucket is None else bucket(request.args[0])),
        )
        self.loop = asyncio.get_running_loop()
        self._timer: asyncio.TimerHandle | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        #: Batches so far, and requests in them.
        self.num_batches = self.num_requests = 0

    async def submit(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Have a request answered with others."""
        context = current_request()
        request = _Request(args, kwargs, self.loop.create_future(), context.model_id if context is not None else "")
        self.queue.add(request, self.loop.time())
        self._go()
        try:
            return await request.answer
        except asyncio.CancelledError:
            self.queue.discard(request)
            raise

    def _go(self) -> None:
        """Send what is due, and wake up for what will be."""
        while (batch := self.queue.take(self.loop.time())) is not None:
            self.num_batches += 1
            self.num_requests += len(batch)
            task = self.loop.create_task(self._run(batch))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)
        if self._timer is not None:
            self._timer.cancel()
        due = self.queue.next_time()
        self._timer = None if due is None else self.loop.call_at(due, self._go)

    async def _run(self, batch: list[_Request]) -> None:
        try:
            answers = await self._call(batch)
            for request, answer in zip(batch, answers, strict=True):
                if not request.answer.done():
                    if isinstance(answer, Exception):
                        request.answer.set_exception(answer)
                    else:
                        request.answer.set_result(answer)
        except BaseException as error:  # boundary: user code; every request of the batch gets the error
            for request in batch:
                if not request.answer.done():
                    request.answer.set_exception(error if isinstance(error, Exception) else RuntimeError(str(error)))
            if not isinstance(error, Exception):
                raise
        finally:
            self.queue.done()
            self._go()

    async def _call(self, batch: list[_Request]) -> Any:
        context = current_request()
        if context is not None:
            set_request(dataclasses.replace(context, model_id=batch[0].model_id))
        columns = [list(column) for column in zip(*(request.args for request in batch), strict=True)]
        names = batch[0].kwargs
        keywords = {name: [request.kwargs[name] for request in batch] for name in names}
        if self._settings.pad_fn is not None:
            columns[0] = self._settings.pad_fn(columns[0])
        bound = (self._instance(),) if self._instance is not None else ()
        answers = await self._function(*bound, *columns, **keywords)
        if not hasattr(answers, "__len__") or len(answers) != len(batch):
            found = f"{len(answers)}" if hasattr(answers, "__len__") else f"a {type(answers).__name__}"
            raise TypeError(
                f"`{self._function.__name__}` got a batch of {len(batch)} and returned {found}: it must return a list "
                "with one answer for each."
            )
        return answers


@dataclasses.dataclass(slots=True)
class _Settings:
    max_batch_size: int
    batch_wait_timeout_s: float
    max_concurrent_batches: int
    batch_size_fn: Callable[[Any], float] | None
    bucket_fn: Callable[[Any], Hashable] | None
    pad_fn: Callable[[list[Any]], Any] | None


Method = Callable[..., Any]


@overload
def batch(function: Method, /) -> Method: ...


@overload
def batch(
    *,
    max_batch_size: int = ...,
    batch_wait_timeout_s: float = ...,
    max_concurrent_batches: int = ...,
    batch_size_fn: Callable[[Any], float] | None = ...,
    bucket_fn: Callable[[Any], Hashable] | None = ...,
    pad_fn: Callable[[list[Any]], Any] | None = ...,
) -> Callable[[Method], Method]: ...


def batch(
    function: Callable[..., Any] | None = None,
    /,
    *,
    max_batch_size: int = 10,
    batch_wait_timeout_s: float = 0.01,
    max_concurrent_batches: int = 1,
    batch_size_fn: Callable[[Any], float] | None = None,
    bucket_fn: Callable[[Any], Hashable] | None = None,
    pad_fn: Callable[[list[Any]], Any] | None = None,
) -> Any:
    """Have an ``async def`` method called with lists: callers pass one item and get one answer.

    The method gets a list for each of its arguments and returns a list of as many answers; an exception in that list
    goes to its own caller alone, one that is raised to all. Requests for different models (``@serve.multiplexed``) are
    never in one batch. Set the deployment's ``max_ongoing_requests`` to at least what one batch holds.

    Parameters
    ----------
    max_batch_size
        Items of a batch at most, or the sum of what *batch_size_fn* says.
    batch_wait_timeout_s
        Seconds that the first item waits for others; 0 sends whatever has gathered while another batch ran.
    max_concurrent_batches
        Batches under way at once.
    batch_size_fn
        Size of an item, such as its number of tokens.
    bucket_fn
        Items are batched with those of the same bucket only, such as of a similar length.
    pad_fn
        Gets the list of first arguments and returns what the method gets instead, such as one padded array.

    Raises
    ------
    OptionError
        A value out of range, or the method is not ``async def``.
    """
    if not (is_number(max_batch_size) and max_batch_size >= 1):
        raise OptionError(
            f"`max_batch_size` must be a number from 1 up, not {max_batch_size!r}.", option="max_batch_size"
        )
    if not (is_number(batch_wait_timeout_s) and batch_wait_timeout_s >= 0):
        raise OptionError("`batch_wait_timeout_s` must be 0 or more seconds.", option="batch_wait_timeout_s")
    if not (is_number(max_concurrent_batches) and max_concurrent_batches >= 1):
        raise OptionError("`max_concurrent_batches` must be 1 or more.", option="max_concurrent_batches")
    settings = _Settings(max_batch_size, batch_wait_timeout_s, max_concurrent_batches, batch_size_fn, bucket_fn, pad_fn)
    return functools.partial(_decorate, settings=settings) if function is None else _decorate(function, settings)


def _decorate(function: Callable[..., Any], settings: _Settings) -> Callable[..., Any]:
    if not inspect.iscoroutinefunction(function):
        raise OptionError("`serve.batch` goes above an `async def`.", option="function")
    is_method = next(iter(inspect.signature(function).parameters), "") == "self"
    attribute = f"__shoal_batcher_{function.__name__}"

    @functools.wraps(function)
    async def single(*args: Any, **kwargs: Any) -> Any:
        instance, rest = (args[0], args[1:]) if is_method else (None, args)
        where = instance if is_method else single
        batcher = where.__dict__.get(attribute)
        if batcher is None or batcher.loop is not asyncio.get_running_loop():
            batcher = where.__dict__[attribute] = Batcher(function, instance, settings)
        return await batcher.submit(rest, kwargs)

    return single
