"""``@shoal.remote``: functions that run, and classes that live, in the cluster."""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import inspect
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, overload

from shoal.api.actors import ActorHandle, Shape, adopt, claim_name, shape_of
from shoal.api.session import owner_or_init
from shoal.model.description import Description, describe_safely
from shoal.model.errors import OptionError
from shoal.model.ids import new_actor_id
from shoal.model.options import STREAMING, ActorOptions, TaskOptions, option_names, with_changes
from shoal.runtime.session import code_version

if TYPE_CHECKING:
    from shoal.runtime.base_owner import BaseOwner
    from shoal.runtime.work import Exported, Target

#: Characters of a signature, or of options, that are shown.
MAX_SHOWN = 300


class RemoteFunction:
    """A function whose calls run in the cluster. Made by :func:`remote`; call it with ``.remote(…)``."""

    def __init__(self, function: Callable[..., Any], options: TaskOptions) -> None:
        self._function = function
        self._options = options
        self._exported: Exported | None = None
        self._target: Target | None = None
        functools.update_wrapper(self, function, updated=())

    def remote(self, *args: Any, **kwargs: Any) -> Any:
        """Submit one call and return the ref of its result at once.

        Refs among the arguments arrive as their values. The function is pickled at the first call; what it refers to,
        refs and actors included, is captured then and kept as long as the function is. In a notebook with the
        extension it is pickled again after local modules were edited.

        Returns
        -------
        ObjectRef, list of ObjectRef, None or ObjectRefGenerator
            One ref, unless ``num_returns`` says otherwise; a generator of refs for a generator function.

        Raises
        ------
        SerializationError
            The function or an argument cannot travel; the message leads to the part at fault.
        NestingError
            This is a task that a task waits for that a task waits for …, too deep.
        """
        return self.submit_to(owner_or_init(), args, kwargs)

    def submit_to(self, owner: BaseOwner, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """As :meth:`remote`, in the session of this owner and no other."""
        exported = self._exported
        if (
            exported is None
            or exported.version != code_version()
            or (exported.contained and not exported.belongs_to(owner))
        ):
            self._exported, self._target = _export(self._function), None
        if self._target is None:
            self._target = self._make_target()
        return owner.submit(self._target, args, kwargs)

    def options(self, **changes: Any) -> RemoteFunction:
        """Return the same function with other options (see :class:`shoal.model.options.TaskOptions`)."""
        other = RemoteFunction(self._function, with_changes(self._options, changes))
        other._exported = self._exported
        return other

    def _make_target(self) -> Target:
        from shoal.runtime.work import Target

        assert self._exported is not None
        options = self._options
        num_returns = options.num_returns
        if num_returns is None:
            num_returns = STREAMING if is_generator(self._function) else 1
        return Target(
            name=options.name or self._exported.name,
            exported=self._exported,
            kind=options.kind(),
            num_returns=num_returns,
            max_pending=options.max_pending or 0,
            timeout=options.timeout,
            retries=options.max_retries,
            retry_exceptions=options.retry_exceptions,
            cell=options.cell,
        )

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        name = self._function.__name__
        raise TypeError(f"`{name}` is remote: call `{name}.remote(…)` and `shoal.get` the result.")

    def __reduce__(self) -> tuple[Any, ...]:
        return RemoteFunction, (self._function, self._options)

    def __repr__(self) -> str:
        return f"<remote function {self._function.__qualname__}>"

    def _repr_mimebundle_(self, include: object = None, exclude: object = None) -> dict[str, str]:
        return describe_safely(lambda: _describe("remote function", self._function, self._options), repr(self))


class ActorClass:
    """A class whose instances live in processes of their own. Made by :func:`remote`; start one with ``.remote(…)``."""

    def __init__(self, cls: type, options: ActorOptions) -> None:
        self._class = cls
        self._options = options
        self._exported: Exported | None = None
        self._shape: Shape | None = None
        functools.update_wrapper(self, cls, updated=())

    def remote(self, *args: Any, **kwargs: Any) -> ActorHandle:
        """Start an actor and return its handle at once; the arguments go to ``__init__``, which runs there.

        The actor ends when its last handle goes, when this process does, or by :func:`kill` or :func:`stop`; one with
        ``lifetime="detached"`` only by the latter.

        Raises
        ------
        NameTakenError
            Another actor has the name that the options ask for.
        SerializationError
            The class or an argument cannot travel.
        """
        from shoal.runtime.work import CREATE, Target

        owner = owner_or_init()
        exported = self._exported
        if (
            exported is None
            or self._shape is None
            or exported.version != code_version()
            or not exported.belongs_to(owner)
        ):
            exported = self._exported = _export(self._class)
            self._shape = shape_of(self._class, self._options)
        options = self._options
        target = Target(
            name=f"{options.name or exported.name}.__init__",
            exported=exported,
            method=CREATE,
            kind=options.kind(),
            cell=options.cell,
        )
        actor_id = new_actor_id()
        if not options.name:
            life = owner.create_actor(actor_id, target, args, kwargs, options)
            return ActorHandle(actor_id, self._class.__name__, self._shape, _unless_detached(life, options))
        # Its arguments are known to travel before anybody loses the name.
        work, life = owner.prepare_actor(target, args, kwargs, options)
        holder = claim_name(owner, actor_id, self._shape, life, options)
        if holder.holder != actor_id:
            return adopt(owner, holder)
        owner.create_prepared_actor(actor_id, work, options)
        return ActorHandle(actor_id, options.name, self._shape, _unless_detached(life, options))

    def options(self, **changes: Any) -> ActorClass:
        """Return the same class with other options (see :class:`shoal.model.options.ActorOptions`)."""
        other = ActorClass(self._class, _checked(self._class, with_changes(self._options, changes)))
        other._exported = self._exported
        return other

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        name = self._class.__name__
        raise TypeError(f"`{name}` is remote: start an actor with `{name}.remote(…)`.")

    def __reduce__(self) -> tuple[Any, ...]:
        return ActorClass, (self._class, self._options)

    def __repr__(self) -> str:
        return f"<actor class {self._class.__qualname__}>"

    def _repr_mimebundle_(self, include: object = None, exclude: object = None) -> dict[str, str]:
        return describe_safely(lambda: _describe("actor class", self._class, self._options), repr(self))


def _describe(kind: str, target: Any, options: TaskOptions | ActorOptions) -> Description:
    """Say how to call *target*, what it is for, and which options are not as they would be."""
    name = getattr(target, "__qualname__", type(target).__name__)
    try:
        signature = str(inspect.signature(target))
    except (TypeError, ValueError):
        signature = "(…)"
    usual = type(options)()
    changed = [
        f"{field.name}={value!r}"
        for field in dataclasses.fields(options)
        if (value := getattr(options, field.name)) != getattr(usual, field.name)
    ]
    called = ("call", f"{name}.remote{signature}"[:MAX_SHOWN])
    facts = (called, ("options", ", ".join(changed)[:MAX_SHOWN] or "all as by default"))
    about = ((inspect.getdoc(target) or "") if not isinstance(target, functools.partial) else "").partition("\n")[0]
    return Description(f"{kind} {name}", facts=facts, notes=(about,) if about else ())


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
        A function (plain, ``async def``, or a generator) or a class.
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
        _check_names(options)
        return functools.partial(_make, options=options)
    if options:
        raise OptionError("Use `@shoal.remote(option=…)` above the definition, or `.options(…)`.", option="")
    return _make(target, {})


def is_generator(function: Callable[..., Any]) -> bool:
    """Whether calls of *function* give values one by one."""
    return inspect.isgeneratorfunction(function) or inspect.isasyncgenfunction(function)


def _make(target: Any, options: dict[str, Any]) -> RemoteFunction | ActorClass:
    if isinstance(target, RemoteFunction | ActorClass):
        raise TypeError(f"`{target!r}` is remote already.")
    if inspect.isclass(target):
        return ActorClass(target, _checked(target, with_changes(ActorOptions(), options)))
    if callable(target):
        return RemoteFunction(target, with_changes(TaskOptions(), options))
    raise TypeError(f"`remote` takes a function or a class, not {type(target).__name__}.")


def _check_names(options: dict[str, Any]) -> None:
    """Refuse options that neither tasks nor actors have, before it is known which is meant."""
    known = option_names(TaskOptions) | option_names(ActorOptions)
    for name in options:
        if name not in known:
            with_changes(TaskOptions(), {name: options[name]})


def _checked(cls: type, options: ActorOptions) -> ActorOptions:
    """Refuse combinations that mean nothing."""
    if options.lifetime == "detached" and not options.name:
        raise OptionError("A detached actor needs a `name`: nobody could find it again.", option="lifetime")
    if options.get_if_exists and options.on_redefine == "replace":
        raise OptionError(
            'Choose one: `get_if_exists=True` keeps, `on_redefine="replace"` does not.', option="on_redefine"
        )
    shape_of(cls, options)  # its methods' groups exist
    return options


def _unless_detached(life: Any, options: ActorOptions) -> Any:
    return None if options.lifetime == "detached" else life


def _export(target: Any) -> Exported:
    from shoal.runtime.serialization import dumps_code
    from shoal.runtime.work import Exported

    name = getattr(target, "__name__", None) or type(target).__name__
    pickled, contained = dumps_code(target, name)
    function_id = hashlib.blake2b(pickled, digest_size=12).hexdigest()
    return Exported(function_id, pickled, name, tuple(contained), code_version())


__all__ = ["ActorClass", "RemoteFunction", "remote"]
