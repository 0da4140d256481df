"""``@serve.multiplexed``: thousands of models on few replicas, each loaded when it is asked for."""

from __future__ import annotations

import asyncio
import contextlib
import inspect
import sys
from collections.abc import Callable, Iterable
from typing import Any

from shoal.errors import OptionError
from shoal.model.options import is_number
from shoal_ml.serve.errors import ModelLoadError
from shoal_ml.serve.model_cache import ModelCache

#: Models in a replica's memory, unless told otherwise.
MAX_MODELS = 3


class ModelLoader:
    """Gives models by id: ``await self.get_model(model_id)``. One per instance, for one event loop.

    Several that ask for the same model wait for one load; different models load at the same time.
    """

    def __init__(self, load: Callable[[str], Any], settings: dict[str, Any]) -> None:
        self._load = load
        self.cache = ModelCache(settings["max_models"], settings["max_bytes"])
        self._nbytes_of = settings["size_fn"] or measure
        self._turns = asyncio.Semaphore(settings["max_concurrent_loads"])
        self._loading: dict[str, asyncio.Task[Any]] = {}

    async def __call__(self, model_id: str) -> Any:
        """Return a model, and load it if it is not there.

        Raises
        ------
        ModelLoadError
            Loading it has failed; the next request tries again.
        ValueError
            *model_id* is empty: the request names no model.
        """
        if not isinstance(model_id, str) or not model_id:
            raise ValueError(
                "The request names no model: send the header `serve_multiplexed_model_id`, or use "
                "`handle.options(multiplexed_model_id=…)`."
            )
        with contextlib.suppress(LookupError):
            return self.cache.find(model_id)
        task = self._loading.get(model_id)
        if task is None:
            task = self._loading[model_id] = asyncio.get_running_loop().create_task(self._bring(model_id))
            task.add_done_callback(lambda _: self._loading.pop(model_id, None))
        return await asyncio.shield(task)

    async def _bring(self, model_id: str) -> Any:
        async with self._turns:
            try:
                if inspect.iscoroutinefunction(self._load):
                    model = await self._load(model_id)
                else:
                    model = await asyncio.to_thread(self._load, model_id)
            except Exception as error:
                raise ModelLoadError(
                    f"Model `{model_id}` could not be loaded: {type(error).__name__}: {error}", model_id=model_id
                ) from error
        for gone in self.cache.add(model_id, model, int(self._nbytes_of(model))):
            await _release(gone)
        return model

    async def preload(self, model_ids: Iterable[str], *, pin: bool = False) -> None:
        """Load models before anybody asks; with *pin*, never let go of them."""
        wanted = list(model_ids)
        for model_id in wanted:
            self.cache.pin(model_id, pin)
        await asyncio.gather(*map(self, wanted))

    def unpin(self, model_ids: Iterable[str]) -> None:
        """Treat models as any others again."""
        for model_id in model_ids:
            self.cache.pin(model_id, False)


class multiplexed:
    """Have a method load models, and keep those that were used last.

    ``@serve.multiplexed(…)`` goes above ``def get_model(self, model_id)``, plain or ``async``; requests then call
    ``await self.get_model(serve.get_multiplexed_model_id())``. Requests for a model go to the replica that has it, and
    to others when that one is busy. A model that has to go is closed, if it has a ``close()``.

    ``self.get_model.preload(ids, pin=False)`` loads ahead; ``self.get_model.cache`` has the numbers.

    Parameters
    ----------
    max_num_models_per_replica
        Models in memory at most; 3 if neither limit is given, None for no limit.
    max_bytes_per_replica
        Bytes of models at most, as *size_fn* says.
    size_fn
        Bytes of a model; by default its ``nbytes``, or those of its parameters, or of its arrays.
    max_concurrent_loads
        Models that load at the same time.

    Raises
    ------
    OptionError
        A value out of range.
    """

    def __init__(
        self,
        function: Callable[..., Any] | None = None,
        /,
        *,
        max_num_models_per_replica: int | None = None,
        max_bytes_per_replica: int | None = None,
        size_fn: Callable[[Any], int] | None = None,
        max_concurrent_loads: int = 4,
    ) -> None:
        for name, value in (
            ("max_num_models_per_replica", max_num_models_per_replica),
            ("max_bytes_per_replica", max_bytes_per_replica),
            ("max_concurrent_loads", max_concurrent_loads),
        ):
            if value is not None and not (is_number(value) and value >= 1):
                raise OptionError(f"`{name}` must be a whole number from 1 up, not {value!r}.", option=name)
        if max_num_models_per_replica is None and max_bytes_per_replica is None:
            max_num_models_per_replica = MAX_MODELS
        self._function = function
        self._name = getattr(function, "__name__", "")
        self._settings = {
            "max_models": max_num_models_per_replica,
            "max_bytes": max_bytes_per_replica,
            "size_fn": size_fn,
            "max_concurrent_loads": max_concurrent_loads,
        }

    def __call__(self, function: Callable[..., Any]) -> multiplexed:
        """Decorate *function*."""
        self._function, self._name = function, function.__name__
        return self

    def __set_name__(self, owner: type, name: str) -> None:
        self._name = name

    def __get__(self, instance: Any, owner: type | None = None) -> Any:
        if instance is None:
            return self
        assert self._function is not None, "`@serve.multiplexed(…)` goes above a method"
        # Found there from now on: a descriptor without `__set__` comes after the instance's own attributes.
        loader = instance.__dict__[self._name] = ModelLoader(self._function.__get__(instance), self._settings)
        return loader


def measure(model: Any) -> int:
    """Return about how many bytes a model holds."""
    nbytes = getattr(model, "nbytes", None)
    if isinstance(nbytes, int):
        return nbytes
    parameters = getattr(model, "parameters", None)
    if callable(parameters):
        with contextlib.suppress(Exception):  # boundary: something else that has `parameters`
            return sum(int(parameter.nbytes) for parameter in parameters())
    values = vars(model).values() if hasattr(model, "__dict__") else ()
    if isinstance(model, dict):
        values = model.values()
    return sys.getsizeof(model) + sum(int(getattr(value, "nbytes", 0) or 0) for value in values)


async def _release(model: Any) -> None:
    close = getattr(model, "close", None)
    if callable(close):
        with contextlib.suppress(Exception):  # boundary: user code, for a model that nobody needs any more
            done = close()
            if inspect.isawaitable(done):
                await done
