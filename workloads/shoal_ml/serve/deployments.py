"""Deployments and applications, as a user writes them down: nothing runs before ``serve.run``."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any, overload

from shoal.errors import OptionError, SerializationError
from shoal_ml.serve.options import DeploymentOptions, deployment_options


class Deployment:
    """A class or function to be served, with its options. Made by :func:`deployment`."""

    def __init__(self, target: Callable[..., Any], name: str, options: DeploymentOptions) -> None:
        self._target = target
        self.name = name
        self._options = options

    def bind(self, *args: Any, **kwargs: Any) -> Application:
        """Say what its ``__init__`` gets; other applications among the arguments arrive as their handles.

        A function is bound without arguments. Large arguments (a model) are stored once and mapped by all replicas of
        a node.
        """
        if not inspect.isclass(self._target) and (args or kwargs):
            raise TypeError(f"`{self.name}` is a function: `bind()` takes no arguments.")
        return Application(self, args, kwargs)

    def options(self, **changes: Any) -> Deployment:
        """Return the same deployment with other options, or another ``name``; see :class:`DeploymentOptions`."""
        name = _checked_name(changes.pop("name", self.name))
        return Deployment(self._target, name, deployment_options(self._options, changes))

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        raise TypeError(f"`{self.name}` is a deployment: `serve.run({self.name}.bind(…))` serves it.")

    def __repr__(self) -> str:
        return f"<deployment {self.name}>"


class Application:
    """A deployment with its arguments, and through them all deployments that it calls: what ``serve.run`` takes."""

    def __init__(self, deployment: Deployment, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        self._deployment = deployment
        self._args = args
        self._kwargs = kwargs

    def __reduce__(self) -> tuple[Any, ...]:
        raise SerializationError(f"`{self!r}` travels only as an argument of `.bind(…)`.", path=repr(self))

    def __repr__(self) -> str:
        return f"<application of {self._deployment.name}>"


@overload
def deployment(target: Callable[..., Any], /) -> Deployment: ...


@overload
def deployment(*, name: str = ..., **options: Any) -> Callable[[Callable[..., Any]], Deployment]: ...


def deployment(target: Callable[..., Any] | None = None, /, **options: Any) -> Any:
    """Make a class or a function a deployment: ``@serve.deployment`` or ``@serve.deployment(num_replicas=2, …)``.

    A class's instance answers requests with ``__call__`` and its other methods, a function with itself. All may be
    ``async def``; others run on threads, up to ``max_ongoing_requests`` at once. Over HTTP it gets a Starlette
    ``Request``, and what it returns becomes the response.

    Parameters
    ----------
    name
        Its name within an application; the target's own by default.
    **options
        See :class:`DeploymentOptions`.

    Raises
    ------
    OptionError
        Unknown option, or a value out of range.

    Examples
    --------
    >>> from shoal_ml import serve
    >>> @serve.deployment
    ... class Doubler:
    ...     def __call__(self, x):
    ...         return 2 * x
    >>> serve.run(Doubler.bind(), local=True).remote(21).result()
    42
    """
    name = options.pop("name", None)
    checked = deployment_options(DeploymentOptions(), options)

    def make(target: Callable[..., Any]) -> Deployment:
        if isinstance(target, Deployment) or not callable(target):
            raise TypeError(f"`serve.deployment` takes a class or a function, not {target!r}.")
        return Deployment(target, _checked_name(name or getattr(target, "__name__", "")), checked)

    return make if target is None else make(target)


def _checked_name(name: Any) -> str:
    if not isinstance(name, str) or not name or len(name) > 200 or not name.isprintable() or "#" in name:
        raise OptionError(
            f"`name` must be a short string of printable characters without `#`, not {name!r}.", option="name"
        )
    return name
