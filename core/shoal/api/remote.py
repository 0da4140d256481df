"""``@shoal.remote``: functions that run, and classes that live, in the cluster."""

from __future__ import annotations

import functools
import hashlib
import inspect
from collections.abc import Callable
from typing import Any, overload

from shoal.api.session import owner_or_init
from shoal.model.errors import OptionError
from shoal.model.ids import new_actor_id
from shoal.model.options import ActorOptions, TaskOptions, option_names, with_changes
from shoal.model.suggest import did_you_mean
from shoal.runtime.refs import ObjectRef


class RemoteFunction:
    """A function whose calls run in the cluster. Made by :func:`remote`; call it with ``.remote(…)``."""

    def __init__(self, function: Callable[..., Any], options: TaskOptions) -> None:
        self._function = function
        self._options = options
        self._exported: Any = None
        functools.update_wrapper(self, function)

    def remote(self, *args: Any, **kwargs: Any) -> ObjectRef:
        """Submit one call and return the ref of its result at once.

        Refs among the arguments arrive as their values. The function is pickled at the first call; what it refers to is
        captured then.

        Raises
        ------
        SerializationError
            The function or an argument cannot travel; the message leads to the part at fault.
        """
        owner = owner_or_init()
        if self._exported is None:
            self._exported = _export(self._function)
        return owner.submit(self._exported, args, kwargs, self._options)

    def options(self, **changes: Any) -> RemoteFunction:
        """Return the same function with other options (see :class:`shoal.model.options.TaskOptions`)."""
        other = RemoteFunction(self._function, with_changes(self._options, changes))
        other._exported = self._exported
        return other

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        name = self._function.__name__
        raise TypeError(f"`{name}` is remote: call `{name}.remote(…)` and `shoal.get` the result.")

    def __reduce__(self) -> tuple[Any, ...]:
        return RemoteFunction, (self._function, self._options)

    def __repr__(self) -> str:
        return f"<remote function {self._function.__qualname__}>"


class ActorClass:
    """A class whose instances live in processes of their own. Made by :func:`remote`; start one with ``.remote(…)``."""

    def __init__(self, cls: type, options: ActorOptions) -> None:
        self._class = cls
        self._options = options
        self._exported: Any = None
        functools.update_wrapper(self, cls, updated=())

    def remote(self, *args: Any, **kwargs: Any) -> ActorHandle:
        """Start an actor and return its handle at once; the arguments go to ``__init__``, which runs there.

        The actor ends when its last handle goes, when this process does, or by :func:`kill`.
        """
        owner = owner_or_init()
        if self._exported is None:
            self._exported = _export(self._class)
        actor_id = new_actor_id()
        life = owner.create_actor(actor_id, self._exported, args, kwargs, self._options)
        name = self._options.name or self._class.__name__
        return ActorHandle(actor_id, name, _methods_of(self._class), life)

    def options(self, **changes: Any) -> ActorClass:
        """Return the same class with other options (see :class:`shoal.model.options.ActorOptions`)."""
        other = ActorClass(self._class, with_changes(self._options, changes))
        other._exported = self._exported
        return other

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        name = self._class.__name__
        raise TypeError(f"`{name}` is remote: start an actor with `{name}.remote(…)`.")

    def __reduce__(self) -> tuple[Any, ...]:
        return ActorClass, (self._class, self._options)

    def __repr__(self) -> str:
        return f"<actor class {self._class.__qualname__}>"


class ActorHandle:
    """Reaches one actor: ``handle.method.remote(…)`` returns a ref at once.

    Calls that one process makes run in the order made, one at a time. A handle can be passed to tasks and to other
    actors.
    """

    def __init__(self, actor_id: str, name: str, methods: frozenset[str], life: ObjectRef) -> None:
        self._actor_id = actor_id
        self._name = name
        self._methods = methods
        self._life = life

    def __getattr__(self, name: str) -> ActorMethod:
        if name.startswith("__") and name.endswith("__"):
            raise AttributeError(name)
        if name not in self._methods:
            raise AttributeError(f"Actor `{self._name}` has no method `{name}`.{did_you_mean(name, self._methods)}")
        return ActorMethod(self, name)

    def __dir__(self) -> list[str]:
        return sorted(self._methods)

    def __reduce__(self) -> tuple[Any, ...]:
        return ActorHandle, (self._actor_id, self._name, self._methods, self._life)

    def __repr__(self) -> str:
        return f"<actor {self._name} {self._actor_id}>"


class ActorMethod:
    """A method of an actor; call it with ``.remote(…)``."""

    __slots__ = ("_handle", "_method")

    def __init__(self, handle: ActorHandle, method: str) -> None:
        self._handle = handle
        self._method = method

    def remote(self, *args: Any, **kwargs: Any) -> ObjectRef:
        """Call the method and return the ref of its result at once."""
        handle = self._handle
        name = f"{handle._name}.{self._method}"
        owner = owner_or_init()
        return owner.call_actor(handle._actor_id, self._method, name, args, kwargs, handle._life)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        raise TypeError(f"Call `{self._handle._name}.{self._method}.remote(…)` and `shoal.get` the result.")


@overload
def remote(target: type, /) -> ActorClass: ...  # type: ignore[overload-overlap]
@overload
def remote(target: Callable[..., Any], /) -> RemoteFunction: ...
@overload
def remote(**options: Any) -> Callable[[Any], Any]: ...


def remote(target: Any = None, /, **options: Any) -> Any:
    """Make a function or class remote; as ``@remote`` or ``@remote(num_cpus=2, …)``.

    A call of a remote function is a *task*: it runs in an executor process somewhere in the cluster, with one CPU
    reserved unless told otherwise, and again on another executor if its process dies. An instance of a remote class
    is an *actor*: a process of its own that keeps state between calls.

    Parameters
    ----------
    target
        A function (plain or ``async def``) or a class.
    **options
        See :class:`~shoal.model.options.TaskOptions` and :class:`~shoal.model.options.ActorOptions`.

    Returns
    -------
    RemoteFunction or ActorClass
        Both have ``.remote(…)`` and ``.options(…)``.

    Raises
    ------
    OptionError
        Unknown option, or a value out of range.

    Examples
    --------
    >>> import shoal
    >>> @shoal.remote
    ... def square(x):
    ...     return x * x
    >>> with shoal.init(num_cpus=1):
    ...     shoal.get([square.remote(i) for i in range(4)])
    [0, 1, 4, 9]
    """
    if target is None:
        check_names(options)
        return functools.partial(_make, options=options)
    if options:
        raise OptionError("Use `@shoal.remote(option=…)` above the definition, or `.options(…)`.", option="")
    return _make(target, {})


def kill(actor: ActorHandle) -> None:
    """End an actor's process now; calls not answered yet, and later ones, raise ``ActorDiedError``."""
    if not isinstance(actor, ActorHandle):
        raise TypeError(f"`kill` takes an actor's handle, not {type(actor).__name__}.")
    owner_or_init().kill_actor(actor._actor_id)


def _make(target: Any, options: dict[str, Any]) -> RemoteFunction | ActorClass:
    if isinstance(target, RemoteFunction | ActorClass):
        raise TypeError(f"`{target!r}` is remote already.")
    if inspect.isclass(target):
        return ActorClass(target, with_changes(ActorOptions(), options))
    if callable(target):
        return RemoteFunction(target, with_changes(TaskOptions(), options))
    raise TypeError(f"`remote` takes a function or a class, not {type(target).__name__}.")


def check_names(options: dict[str, Any]) -> None:
    """Refuse options that neither tasks nor actors have, before it is known which is meant."""
    known = option_names(TaskOptions) | option_names(ActorOptions)
    for name in options:
        if name not in known:
            with_changes(TaskOptions(), {name: options[name]})


def _methods_of(cls: type) -> frozenset[str]:
    return frozenset(name for name in dir(cls) if not name.startswith("__") and callable(getattr(cls, name)))


def _export(target: Any) -> Any:
    from shoal.runtime.serialization import dumps_code
    from shoal.runtime.work import Exported

    name = getattr(target, "__name__", None) or type(target).__name__
    pickled = dumps_code(target, name)
    return Exported(hashlib.blake2b(pickled, digest_size=12).hexdigest(), pickled, name)


__all__ = ["ActorClass", "ActorHandle", "ActorMethod", "RemoteFunction", "kill", "remote"]
