"""Actors that live: their handles and methods, their names, and their end."""

from __future__ import annotations

import dataclasses
import inspect
import pickle
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, TypeVar

from shoal.api.looking import look
from shoal.api.session import owner_or_init
from shoal.api.values import check_timeout
from shoal.model.description import Description, describe_safely
from shoal.model.errors import ClusterLostError, GetTimeoutError, NameTakenError, NotInitializedError, OptionError
from shoal.model.options import STREAMING, ActorOptions, MethodOptions, with_changes
from shoal.model.suggest import did_you_mean
from shoal.runtime import session as current
from shoal.runtime.refs import ObjectRef, check_travels
from shoal.runtime.waiting import NotReadyError

if TYPE_CHECKING:
    from shoal.model.messages import NameClaimed
    from shoal.runtime.base_owner import BaseOwner

_MARK = "__shoal_method__"

F = TypeVar("F", bound=Callable[..., Any])


@dataclasses.dataclass(frozen=True, slots=True)
class Shape:
    """What a handle knows of its actor's class: it travels without the class."""

    #: Options of each method; a generator's ``num_returns`` says so.
    methods: dict[str, MethodOptions]
    max_task_retries: int
    max_pending_calls: int
    #: Names of its concurrency groups.
    groups: tuple[str, ...]


class ActorHandle:
    """Reaches one actor: ``handle.method.remote(…)`` returns a ref at once.

    Calls that one process makes begin in the order made; they run one at a time unless the actor says otherwise. A
    handle can be passed to tasks and to other actors.
    """

    def __init__(self, actor_id: str, name: str, shape: Shape, life: ObjectRef | None) -> None:
        self._actor_id = actor_id
        self._name = name
        self._shape = shape
        #: Held by every handle of an actor that is not detached, and by its methods.
        self._life = life

    def __getattr__(self, name: str) -> ActorMethod:
        """Make the method at its first use; it is an attribute from then on."""
        methods = self._shape.methods
        if name not in methods:
            if name.startswith("__") and name.endswith("__"):
                raise AttributeError(name)
            raise AttributeError(f"Actor `{self._name}` has no method `{name}`.{did_you_mean(name, methods)}")
        method = ActorMethod(self._actor_id, self._name, name, self._shape, methods[name], self._life)
        setattr(self, name, method)
        return method

    def __dir__(self) -> list[str]:
        return sorted(self._shape.methods)

    def __reduce__(self) -> tuple[Any, ...]:
        if self._life is not None:
            check_travels(self, "the actor")
        return ActorHandle, (self._actor_id, self._name, self._shape, self._life)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, ActorHandle) and other._actor_id == self._actor_id

    def __hash__(self) -> int:
        return hash(self._actor_id)

    def __repr__(self) -> str:
        return f"<actor {self._name} {self._actor_id}>"

    def _repr_mimebundle_(self, include: object = None, exclude: object = None) -> dict[str, str]:
        return describe_safely(lambda: _describe(self), f"actor {self._name} ({self._actor_id})")


def _describe(actor: ActorHandle) -> Description:
    from shoal.runtime.owner import Owner

    title = f"actor {actor._name} ({actor._actor_id})"
    owner = current.find_owner() if actor._life is None else actor._life._owner
    if owner is None:
        return Description(title, "unknown", (("reason", "this process has no cluster"),))
    if not isinstance(owner, Owner):
        found = owner.explain("actor", actor._actor_id, 1.0)
        return Description(title, found.state, (("place", "in this process"),))
    facts = [("methods", ", ".join(name for name in actor._shape.methods if not name.startswith("_")))]
    facts.append(("calls", f"{owner.actors.count_calls(actor._actor_id)} of this process wait for answers"))
    try:
        answer = look(owner, "actor", actor._actor_id)
    except (ClusterLostError, NotInitializedError, TimeoutError) as error:
        state = "unknown" if isinstance(error, TimeoutError) else "lost"
        return Description(title, state, (("reason", str(error)), *facts))
    if isinstance(answer, str):
        return Description(title, "unknown", (("reason", answer), *facts))
    state, label, node_id, _, num_restarts, cause, _ = answer
    known = (("class or name", label), ("node", node_id), ("restarts", str(num_restarts)), ("cause", cause))
    return Description(title, state, (*((name, words) for name, words in known if words), *facts))


class ActorMethod:
    """A method of an actor; call it with ``.remote(…)``."""

    __slots__ = ("_actor", "_actor_id", "_life", "_name", "_options", "_shape", "_target")

    # It holds no handle: the handle holds it, and has to go when its last user does.
    def __init__(
        self, actor_id: str, actor: str, name: str, shape: Shape, options: MethodOptions, life: ObjectRef | None
    ) -> None:
        from shoal.runtime.work import Target

        self._actor_id = actor_id
        self._actor = actor
        self._name = name
        self._shape = shape
        self._options = options
        self._life = life
        self._target = Target(
            name=options.name or f"{actor}.{name}",
            method=name,
            num_returns=1 if options.num_returns is None else options.num_returns,
            max_pending=options.max_pending or 0,
            timeout=options.timeout,
            retries=shape.max_task_retries if options.max_task_retries is None else options.max_task_retries,
            retry_exceptions=options.retry_exceptions,
            group=options.concurrency_group,
            max_pending_calls=shape.max_pending_calls,
            cell=options.cell,
        )

    def remote(self, *args: Any, **kwargs: Any) -> Any:
        """Call the method and return the ref of its result at once.

        Returns
        -------
        ObjectRef, list of ObjectRef, None or ObjectRefGenerator
            As for a task.

        Raises
        ------
        PendingCallsLimitExceeded
            As many calls as the actor's ``max_pending_calls`` wait for answers.
        """
        life = self._life
        owner = owner_or_init() if life is None else life._owner
        return owner.call_actor(self._actor_id, self._target, args, kwargs, life)

    def options(self, **changes: Any) -> ActorMethod:
        """Return the same method with other options (see :class:`shoal.model.options.MethodOptions`)."""
        options = with_changes(self._options, changes)
        check_group(options, self._shape.groups, f"{self._actor}.{self._name}")
        return ActorMethod(self._actor_id, self._actor, self._name, self._shape, options, self._life)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        raise TypeError(f"Call `{self._actor}.{self._name}.remote(…)` and `shoal.get` the result.")


def method(**options: Any) -> Callable[[F], F]:
    """Give a method of an actor class options for all its calls; as ``@shoal.method(num_returns=2)``.

    See :class:`shoal.model.options.MethodOptions`.

    Raises
    ------
    OptionError
        Unknown option, or a value out of range.
    """
    checked = with_changes(MethodOptions(), options)

    def mark(function: F) -> F:
        if not callable(function):
            raise TypeError(f"`method` goes above a method, not a {type(function).__name__}.")
        setattr(function, _MARK, checked)
        return function

    return mark


def shape_of(cls: type, options: ActorOptions) -> Shape:
    """Return what a handle has to know of *cls*.

    Raises
    ------
    OptionError
        A method is in a concurrency group that the options do not have.
    """
    methods = {}
    groups = tuple(name for name, _ in options.concurrency_groups)
    for name in dir(cls):
        member = inspect.getattr_static(cls, name)
        member = member.__func__ if isinstance(member, staticmethod | classmethod) else member
        if (name.startswith("__") and name != "__call__") or not callable(member):
            continue
        chosen = getattr(member, _MARK, MethodOptions())
        check_group(chosen, groups, f"{cls.__name__}.{name}")
        if chosen.num_returns is None and (inspect.isgeneratorfunction(member) or inspect.isasyncgenfunction(member)):
            chosen = dataclasses.replace(chosen, num_returns=STREAMING)
        methods[name] = chosen
    return Shape(methods, options.max_task_retries, options.max_pending_calls or 0, groups)


def check_group(options: MethodOptions, groups: Sequence[str], method: str) -> None:
    """Refuse a concurrency group that an actor does not have."""
    group = options.concurrency_group
    if group and group not in groups:
        raise OptionError(
            f"`{method}` is in the concurrency group `{group}`, which `concurrency_groups` does not have."
            f"{did_you_mean(group, groups)}",
            option="concurrency_groups",
        )


def get_actor(name: str, namespace: str | None = None) -> ActorHandle:
    """Return a handle of the actor that has this name.

    Parameters
    ----------
    namespace
        Where to look; this driver's own by default (see :func:`shoal.init`).

    Raises
    ------
    ValueError
        There is no such actor.
    """
    from shoal.model.messages import FindActor

    if not isinstance(name, str) or not name:
        raise OptionError(f"`name` must be a name, not {name!r}.", option="name")
    owner = owner_or_init()
    found: NameClaimed = owner.ask(lambda request: FindActor(request, namespace or "", name))
    if not found.holder:
        known = [row[1] for row in list_names(owner)]
        where = f" in namespace `{namespace}`" if namespace else ""
        raise ValueError(f"There is no actor called `{name}`{where}.{did_you_mean(name, known)}")
    return adopt(owner, found)


def kill(actor: ActorHandle, *, no_restart: bool = True) -> None:
    """End an actor's process now; calls not answered yet raise ``ActorDiedError``, and later ones do.

    With ``no_restart=False`` it is a crash like any other: an actor with ``max_restarts`` left comes back.
    """
    owner_of("kill", actor).kill_actor(actor._actor_id, restart=not no_restart)


def stop(actor: ActorHandle, timeout: float | None = None) -> None:
    """End an actor once every call that has reached it is answered; exit handlers (``atexit``) run.

    Returns when it is done. It does not come back, whatever its ``max_restarts``.

    Raises
    ------
    GetTimeoutError
        It took longer than *timeout* seconds; the actor still stops when it can. :func:`kill` does not wait.
    ActorDiedError
        It was dead already.
    """
    from shoal.runtime.work import STOP, Target

    check_timeout(timeout)
    owner = owner_of("stop", actor)
    target = Target(name=f"{actor._name}.__stop__", method=STOP)
    ref = owner.call_actor(actor._actor_id, target, (), {}, actor._life)
    assert isinstance(ref, ObjectRef)
    try:
        owner.get([ref], timeout)
    except NotReadyError:
        raise GetTimeoutError(f"`{actor!r}` has not stopped within {timeout:g} s.", timeout=timeout) from None


def exit_actor() -> None:
    """End the actor whose method calls this: the call returns None, pending ones raise, and it does not come back.

    Raises
    ------
    RuntimeError
        This is no actor.
    """
    from shoal.runtime.calling import ExitActor
    from shoal.runtime.context import get_current

    context = get_current()
    if context is None or context.lease_id:
        raise RuntimeError("`exit_actor` is for the methods of an actor.")
    raise ExitActor


def claim_name(owner: BaseOwner, actor_id: str, shape: Shape, life: ObjectRef, options: ActorOptions) -> NameClaimed:
    """Ask for the name in the options; returns who has it now.

    Raises
    ------
    NameTakenError
        Another actor has, and the options say that this is an error.
    """
    import cloudpickle

    from shoal.model.messages import ClaimName

    policy = "keep" if options.get_if_exists else options.on_redefine
    handle = cloudpickle.dumps((options.name, shape))
    where = ("", "") if options.lifetime == "detached" else (life.id, owner.address)
    claimed: NameClaimed = owner.ask(
        lambda request: ClaimName(request, options.namespace or "", options.name, actor_id, policy, handle, where)
    )
    if claimed.holder != actor_id and policy == "error":
        raise NameTakenError(
            f"There is an actor called `{options.name}` already. `shoal.get_actor` returns it; "
            '`on_redefine="replace"` ends it, `on_redefine="keep"` returns it instead of starting another.',
            name=options.name,
            namespace=options.namespace or "",
        )
    return claimed


def adopt(owner: BaseOwner, found: NameClaimed) -> ActorHandle:
    """Make a handle of a named actor."""
    name, shape = pickle.loads(found.handle)
    object_id, address = found.life
    return ActorHandle(found.holder, name, shape, owner.hold(object_id, address) if object_id else None)


def list_names(owner: BaseOwner) -> list[tuple[str, str, str]]:
    """Return namespace, name and actor id of every named actor."""
    from shoal.model.messages import Ask

    return [(str(a), str(b), str(c)) for a, b, c in owner.ask(lambda request: Ask(request, "names", ()))]


def owner_of(function: str, actor: Any) -> BaseOwner:
    """Return the runtime that an argument of *function* belongs to.

    Raises
    ------
    TypeError
        It is no actor's handle.
    NotInitializedError
        Its session has ended.
    """
    if not isinstance(actor, ActorHandle):
        raise TypeError(f"`{function}` takes an actor's handle, not {type(actor).__name__}.")
    owner = owner_or_init() if actor._life is None else actor._life._owner
    owner.check_usable()
    return owner


__all__ = ["ActorHandle", "ActorMethod", "exit_actor", "get_actor", "kill", "method", "stop"]
