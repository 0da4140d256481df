"""What ``serve.run`` sends to the controller: an application as plain records and pickled code.

The graph that ``bind`` has made is flattened: each bound application becomes one deployment, and a handle wherever it
was an argument. Large arguments become refs, so that they are stored once.
"""

from __future__ import annotations

import dataclasses
import hashlib
import inspect
import pickle
import re
import sys
from collections.abc import Mapping
from typing import Any

import shoal
from shoal.errors import OptionError, SerializationError
from shoal.runtime import refs as ref_travel
from shoal.runtime.code_pickling import dumps_by_value
from shoal.runtime.pickle_path import explain
from shoal_ml.serve.deployments import Application
from shoal_ml.serve.handles import DeploymentHandle
from shoal_ml.serve.options import DeploymentOptions

#: Bytes of an argument from which on it is put into the object store.
LARGE = 1 << 20


@dataclasses.dataclass(frozen=True, slots=True)
class DeploymentSpec:
    """One deployment as it is wanted."""

    name: str
    options: DeploymentOptions
    #: ``(target, args, kwargs)``, pickled; a :class:`LargeArgument` stands for each that travels by itself.
    code: bytes
    #: Refs of the large arguments.
    large: tuple[shoal.ObjectRef, ...]
    #: Replicas are replaced if it changes.
    version: str

    @property
    def is_function(self) -> bool:
        return not self.version.startswith("class")


@dataclasses.dataclass(frozen=True, slots=True)
class ApplicationSpec:
    """An application as it is wanted: the declaration that the controller keeps."""

    name: str
    #: "" for one that HTTP does not reach.
    route_prefix: str
    #: The deployment that requests go to, first; then those that it calls.
    deployments: tuple[DeploymentSpec, ...]
    #: Driver session with which it ends; "" for one that goes on by itself.
    job_id: str = ""
    #: Hosts that may be asked for; kept for what is built on top.
    labels: Mapping[str, str] = dataclasses.field(default_factory=dict)

    @property
    def ingress(self) -> str:
        return self.deployments[0].name


@dataclasses.dataclass(frozen=True, slots=True)
class LargeArgument:
    """Stands for argument number ``index`` of those that travel by themselves."""

    index: int


class Graph:
    """The deployments of one application, found from its root."""

    def __init__(self, application: str, root: Application) -> None:
        self._application = application
        self._names: dict[int, str] = {}
        self._nodes: list[Application] = []
        self._visit(root)

    def _visit(self, node: Application) -> None:
        if id(node) in self._names:
            return
        taken = set(self._names.values())
        wanted, number = node._deployment.name, 1
        name = wanted
        while name in taken:
            name, number = f"{wanted}_{number}", number + 1
        self._names[id(node)] = name
        self._nodes.append(node)
        for child in applications_in((node._args, node._kwargs)):
            self._visit(child)

    def handle(self, node: Application) -> DeploymentHandle:
        """Return the handle of a bound application."""
        return DeploymentHandle(self._application, self._names[id(node)])

    def nodes(self) -> list[tuple[str, Application]]:
        """Return name and application, the root first."""
        return [(self._names[id(node)], node) for node in self._nodes]


def applications_in(value: Any) -> list[Application]:
    """Return the applications among arguments, however deep in lists, tuples, sets and dicts."""
    if isinstance(value, Application):
        return [value]
    if isinstance(value, Mapping):
        value = list(value.values())
    if isinstance(value, list | tuple | set | frozenset):
        return [found for part in value for found in applications_in(part)]
    return []


def build(root: Application, name: str, route_prefix: str | None, job_id: str = "") -> ApplicationSpec:
    """Return the declaration of an application; large arguments are put into the store, owned by this process.

    Raises
    ------
    SerializationError
        Some code or argument cannot travel; the message leads there.
    OptionError
        The name or the route prefix is none.
    """
    if not isinstance(root, Application):
        raise TypeError(f"`serve.run` takes what `.bind(…)` returns, not {type(root).__name__}.")
    graph = Graph(check_name(name), root)
    specs = tuple(_build_one(graph, own_name, node) for own_name, node in graph.nodes())
    return ApplicationSpec(name, check_prefix(route_prefix), specs, job_id)


def _build_one(graph: Graph, name: str, node: Application) -> DeploymentSpec:
    target, options = node._deployment._target, node._deployment._options
    reducers = {Application: lambda bound: (_the_same, (graph.handle(bound),)), **_starlette_reducers()}
    large: list[shoal.ObjectRef] = []
    seeds: list[bytes] = []

    def travel(value: Any) -> Any:
        if isinstance(value, shoal.ObjectRef):
            seeds.append(value.id.encode())
        else:
            digest = _digest_if_large(value, reducers)
            if not digest:
                return value
            seeds.append(digest)
            value = shoal.put(value)
        large.append(value)
        return LargeArgument(len(large) - 1)

    args = tuple(travel(value) for value in node._args)
    kwargs = {key: travel(value) for key, value in node._kwargs.items()}
    try:
        with ref_travel.collecting() as contained:
            code = dumps_by_value((target, args, kwargs), reducers=reducers)
    except Exception as error:  # boundary: reducers are user code
        path, reason = explain((target, *(value for value in node._args if not applications_in(value))), name)
        raise SerializationError(f"`{path}` of deployment `{name}` cannot travel: {reason}.", path=path) from error
    if contained:
        raise SerializationError(
            f"An argument of deployment `{name}` has an ObjectRef or an actor inside: pass it as an argument itself, "
            "or a detached actor by its name.",
            path=name,
        )
    return DeploymentSpec(name, options, code, tuple(large), _version(target, [code, *seeds], options))


def _digest_if_large(value: Any, reducers: Mapping[type, Any]) -> bytes:
    """Return a hash of a value that is to travel by itself; empty for a small one."""
    if isinstance(value, int | float | str | bool | type(None)) or applications_in(value):
        return b""
    buffers: list[pickle.PickleBuffer] = []
    try:
        pickled = dumps_by_value(value, buffers.append, reducers)
    except Exception:  # boundary: reducers are user code; it is reported when all is pickled
        return b""
    parts = [memoryview(pickled), *(buffer.raw() for buffer in buffers)]
    if sum(part.nbytes for part in parts) < LARGE:
        return b""
    digest = hashlib.blake2b(digest_size=12)
    for part in parts:
        digest.update(part)
    return digest.digest()


def _version(target: Any, parts: list[bytes], options: DeploymentOptions) -> str:
    kind = "class" if inspect.isclass(target) else "function"
    if options.version:
        return f"{kind}:{options.version}"
    parts = [*parts, repr(sorted(options.actor_options.items(), key=str)).encode()]
    return f"{kind}-{hashlib.blake2b(b'|'.join(parts), digest_size=6).hexdigest()}"


def _starlette_reducers() -> dict[type, Any]:
    """Return what makes FastAPI's and Starlette's applications travel: their state does not unpickle by itself."""
    module = sys.modules.get("starlette.datastructures")
    if module is None:
        return {}
    return {module.State: lambda state: (module.State, (dict(state._state),))}


def _the_same(value: Any) -> Any:
    return value


def check_name(name: Any) -> str:
    """Refuse what is no name of an application."""
    if not isinstance(name, str) or not re.fullmatch(r"[\w.-]{1,100}", name):
        raise OptionError(f"`name` must be letters, digits, `.`, `_` and `-`, not {name!r}.", option="name")
    return name


def check_prefix(prefix: Any) -> str:
    """Refuse what is no route prefix; returns it without a slash at its end, "" for None."""
    if prefix is None:
        return ""
    if not isinstance(prefix, str) or not re.fullmatch(r"/|(/[\w.~-]+)+/?", prefix) or prefix.startswith("/-"):
        raise OptionError(
            f'`route_prefix` must be a path such as "/" or "/model" (not below "/-"), or None, not {prefix!r}.',
            option="route_prefix",
        )
    return prefix if prefix == "/" else prefix.rstrip("/")
