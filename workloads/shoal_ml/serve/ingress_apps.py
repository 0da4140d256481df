"""``@serve.ingress``: any ASGI application (FastAPI, Starlette, …) in front of a deployment's instance."""

from __future__ import annotations

import contextlib
import inspect
import typing
from collections.abc import Callable
from typing import Any


def ingress(app: Any) -> Callable[[type], type]:
    """Have a deployment's requests answered by an ASGI application; goes below ``@serve.deployment``.

    Routes of FastAPI that are written as methods of the class get the replica's instance as ``self``. Any application
    finds it by ``serve.get_replica_context().servable``. Websockets and streams work as the application has them.

    Parameters
    ----------
    app
        An ASGI application, or a function without parameters (or with the instance as its one) that makes one in the
        replica: for applications that do not pickle.

    Examples
    --------
    >>> from fastapi import FastAPI
    >>> from shoal_ml import serve
    >>> app = FastAPI()
    >>> @serve.deployment
    ... @serve.ingress(app)
    ... class Doubler:
    ...     @app.get("/double/{x}")
    ...     def double(self, x: int):
    ...         return 2 * x
    """

    def decorate(cls: type) -> type:
        if not inspect.isclass(cls):
            raise TypeError("`serve.ingress` goes above a class, below `serve.deployment`.")

        def make(instance: Any) -> Any:
            made = _make(app, instance)
            _bind_methods(made, cls, instance)
            return made

        _resolve_annotations(cls)
        cls.__shoal_asgi__ = staticmethod(make)  # type: ignore[attr-defined]
        return cls

    return decorate


def _resolve_annotations(cls: type) -> None:
    """Replace annotations that are written as strings: the names in them do not travel with pickled code."""
    for member in vars(cls).values():
        if inspect.isfunction(member):
            with contextlib.suppress(Exception):  # boundary: annotations are user code
                member.__annotations__ = typing.get_type_hints(member, include_extras=True)


def _make(app: Any, instance: Any) -> Any:
    if not inspect.isfunction(app):
        return app
    parameters = inspect.signature(app).parameters
    if len(parameters) >= 3:
        return app  # ``async def app(scope, receive, send)``
    return app(instance) if parameters else app()


def _bind_methods(app: Any, cls: type, instance: Any) -> None:
    """Give routes that are methods of *cls* their ``self``: FastAPI takes it for a parameter of the request."""
    router = getattr(app, "router", None)
    methods = {id(member) for base in cls.__mro__ for member in vars(base).values()}
    names = {name for base in cls.__mro__ for name, member in vars(base).items() if inspect.isfunction(member)}
    for route in list(getattr(router, "routes", ())):
        endpoint = getattr(route, "endpoint", None)
        if endpoint is None or not inspect.isfunction(endpoint):
            continue
        first = next(iter(inspect.signature(endpoint).parameters), "")
        if id(endpoint) in methods or (first == "self" and endpoint.__name__ in names):
            _replace(router, route, endpoint.__get__(instance))


def _replace(router: Any, route: Any, bound: Any) -> None:
    """Put a route with a bound method where that with the plain function was."""
    position = router.routes.index(route)
    if hasattr(route, "dependant"):  # FastAPI has read the signature: have it read again
        route.endpoint = bound
        route.__init__(**_arguments_of(route, bound))
    else:  # Starlette: the endpoint is wrapped
        route = type(route)(**_arguments_of(route, bound))
    router.routes[position] = route


def _arguments_of(route: Any, bound: Any) -> dict[str, Any]:
    arguments = {}
    for name, parameter in inspect.signature(type(route).__init__).parameters.items():
        if name in ("self", "endpoint") or parameter.kind in (parameter.VAR_KEYWORD, parameter.VAR_POSITIONAL):
            continue
        if hasattr(route, name):
            arguments[name] = getattr(route, name)
    return arguments | {"endpoint": bound}
