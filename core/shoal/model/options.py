"""Options of tasks, actors and methods: frozen records, checked where the user wrote them."""

from __future__ import annotations

import dataclasses
import numbers
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

from shoal.model.errors import OptionError
from shoal.model.placement import ANYWHERE, LabelSelector, Placement, SchedulingClass
from shoal.model.resources import Resources, make_resources
from shoal.model.suggest import did_you_mean

#: ``num_returns`` of a task whose results are streamed.
STREAMING = -1
#: ``max_retries`` and ``max_restarts`` without end.
ENDLESS = -1
#: The largest amount of anything: far beyond any cluster, and exact to the digits that count.
MAX_AMOUNT = 1e15
#: Returns of one task at most.
MAX_RETURNS = 1_000_000

RetryExceptions = bool | tuple[type[BaseException], ...]


@dataclasses.dataclass(frozen=True, slots=True)
class Options:
    """What tasks and actors have in common.

    Attributes
    ----------
    num_cpus, num_gpus
        Logical amounts reserved while it runs, 0 or more; fractions share a device. A task takes one CPU unless
        told otherwise; an actor takes none, so that any number of them can wait for calls.
    memory
        Bytes reserved, 0 or more.
    resources
        Further named amounts, as the cluster's nodes declare them.
    accelerator_type
        Name of the accelerator that the node must have, such as ``"A100"``.
    scheduling_strategy
        ``"DEFAULT"`` (the node with most room), ``"SPREAD"`` (the node with the fewest leases), a
        :class:`~shoal.NodeAffinity`, or a placement group or one of its bundles.
    label_selector
        Labels that the node must carry, as a mapping; a value that begins with ``!`` must not be there.
    priority
        Whole number; waiting work of a higher one is placed first, across all drivers. 0 by default.
    name
        What panels, logs and errors call it; the function's or class's own name by default. An actor that has one can
        be found by it (:func:`shoal.get_actor`).
    cell
        Tag of the notebook cell that caused it. Nested work inherits it.
    """

    num_cpus: float = 1.0
    num_gpus: float = 0.0
    memory: int = 0
    resources: Resources = ()
    accelerator_type: str = ""
    scheduling_strategy: Placement = ANYWHERE
    label_selector: LabelSelector = ()
    priority: int = 0
    name: str = ""
    cell: str | None = None

    def kind(self) -> SchedulingClass:
        """Return the scheduling class of all this."""
        amounts = dict(self.resources)
        amounts |= {"num_cpus": self.num_cpus, "num_gpus": self.num_gpus, "memory": float(self.memory)}
        labels = self.label_selector
        if self.accelerator_type:
            labels = tuple(sorted((*labels, ("accelerator_type", self.accelerator_type))))
        placement = self.scheduling_strategy
        if labels:
            placement = placement._replace(labels=labels)
        return SchedulingClass(make_resources(amounts), placement, self.priority)


@dataclasses.dataclass(frozen=True, slots=True)
class TaskOptions(Options):
    """How one task is to be run; the attributes of :class:`Options`, and these.

    Attributes
    ----------
    max_retries
        How often a task is run again after its *executor* died, 0 or more; -1 without end. With *retry_exceptions*,
        its own exceptions count as well.
    retry_exceptions
        True, or the exception types after which it is run again too.
    num_returns
        Number of refs that ``.remote()`` returns, for a function that returns as many values: 1 by default; 0 returns
        None. ``"streaming"`` is for generators, and their default: one ref for each value, as they come.
    max_pending
        Values that a generator may be ahead of its consumer, 1 or more; by default it never waits.
    timeout
        Seconds from ``.remote()`` within which it has to be done, waiting and retries included; it is cancelled then
        and ``get`` raises ``TaskTimeoutError``.
    """

    max_retries: int = 3
    retry_exceptions: RetryExceptions = False
    num_returns: int | None = None
    max_pending: int | None = None
    timeout: float | None = None


@dataclasses.dataclass(frozen=True, slots=True)
class ActorOptions(Options):
    """How an actor is to live; the attributes of :class:`Options`, and these.

    Attributes
    ----------
    max_restarts
        How often it is started afresh (``__init__`` runs again) after its process died, 0 or more; -1 without end.
    max_task_retries
        How often a call that its process died under is made again after a restart, 0 or more; -1 without end.
    max_concurrency
        Calls that run at once: 1 by default, 1,000 for a class with ``async def`` methods.
    concurrency_groups
        Name of each group and how many of its calls run at once; methods join one by
        ``@shoal.method(concurrency_group=…)``, all others share *max_concurrency*.
    max_pending_calls
        Calls of one process that may wait for answers; one more raises ``PendingCallsLimitExceeded``. No limit by
        default.
    namespace
        Names are unique within it; drivers see their own session's namespace by default.
    get_if_exists
        Return the actor that has this name if there is one: the same as ``on_redefine="keep"``.
    on_redefine
        What happens if the name is taken: ``"error"``, ``"keep"`` the one that is there, or ``"replace"`` it.
    lifetime
        ``"detached"`` for an actor that outlives its handles and its driver, until killed by name.
    """

    num_cpus: float = 0.0
    max_restarts: int = 0
    max_task_retries: int = 0
    max_concurrency: int | None = None
    concurrency_groups: tuple[tuple[str, int], ...] = ()
    max_pending_calls: int | None = None
    namespace: str | None = None
    get_if_exists: bool = False
    on_redefine: str = "error"
    lifetime: str | None = None


@dataclasses.dataclass(frozen=True, slots=True)
class MethodOptions:
    """How calls of one method are made: by ``@shoal.method(…)`` for all, by ``.options(…)`` for one.

    Attributes
    ----------
    num_returns, max_pending, timeout, retry_exceptions
        As for a task.
    max_task_retries
        As for the actor; the actor's own by default.
    concurrency_group
        Which of the actor's groups runs it; "" for none.
    name, cell
        What panels and errors call it, and the cell that caused it.
    """

    num_returns: int | None = None
    max_pending: int | None = None
    timeout: float | None = None
    retry_exceptions: RetryExceptions = False
    max_task_retries: int | None = None
    concurrency_group: str = ""
    name: str = ""
    cell: str | None = None


AnyOptions = TypeVar("AnyOptions", Options, TaskOptions, ActorOptions, MethodOptions)


def with_changes(options: AnyOptions, changes: Mapping[str, Any]) -> AnyOptions:
    """Return *options* with *changes* applied, each checked.

    Raises
    ------
    OptionError
        An option that there is not (with the closest one that is), or a value of the wrong kind or range.
    """
    if not changes:
        return options
    allowed = option_names(type(options))
    for name in changes:
        if name not in allowed:
            raise OptionError(
                f"Unknown option `{name}`.{did_you_mean(name, allowed)} Options are: {', '.join(sorted(allowed))}.",
                option=name,
            )
    return dataclasses.replace(options, **{name: _CHECKS[name](name, value) for name, value in changes.items()})


def option_names(record: type[Any]) -> frozenset[str]:
    """Return the names of the options that a record holds."""
    return frozenset(field.name for field in dataclasses.fields(record))


def is_number(value: Any, kind: type = numbers.Real) -> bool:
    """Whether *value* is a number of this kind; ``True`` and ``False`` are not."""
    return isinstance(value, kind) and not isinstance(value, bool)


_Check = Callable[[str, Any], Any]


def _amount(name: str, value: Any) -> float:
    if not (is_number(value) and 0 <= value <= MAX_AMOUNT):
        raise OptionError(f"Option `{name}` must be a number from 0 up, not {value!r}.", option=name)
    return float(value)


def _gpus(name: str, value: Any) -> float:
    amount = _amount(name, value)
    if amount > 1 and amount != int(amount):
        raise OptionError(
            f"Option `{name}` must be a fraction up to 1, or a whole number, not {value!r}: a share of one device, or "
            "whole devices.",
            option=name,
        )
    return amount


def _nbytes(name: str, value: Any) -> int:
    if not (is_number(value) and 0 <= value <= 2**63 - 1 and value == int(value)):
        raise OptionError(
            f"Option `{name}` must be a whole number of bytes from 0 up, such as 2 * 2**30, not {value!r}.", option=name
        )
    return int(value)


def _whole(least: int, most: int = 2**63 - 1, words: str = "") -> _Check:
    def check(name: str, value: Any) -> int:
        if not (is_number(value, numbers.Integral) and least <= value <= most):
            expected = words or f"a whole number from {least} up"
            raise OptionError(f"Option `{name}` must be {expected}, not {value!r}.", option=name)
        return int(value)

    return check


def _optional(check: _Check) -> _Check:
    return lambda name, value: None if value is None else check(name, value)


def _text(name: str, value: Any) -> str:
    if not isinstance(value, str):
        raise OptionError(f"Option `{name}` must be a string, not {value!r}.", option=name)
    return value


def _flag(name: str, value: Any) -> bool:
    if not isinstance(value, bool):
        raise OptionError(f"Option `{name}` must be True or False, not {value!r}.", option=name)
    return value


def _one_of(*choices: str) -> _Check:
    def check(name: str, value: Any) -> str:
        if value not in choices:
            hint = did_you_mean(value, choices) if isinstance(value, str) else ""
            expected = " or ".join(f'"{choice}"' for choice in choices)
            raise OptionError(f"Option `{name}` must be {expected}, not {value!r}.{hint}", option=name)
        return str(value)

    return check


def _seconds(name: str, value: Any) -> float:
    if not (is_number(value) and 0 < value <= MAX_AMOUNT):
        raise OptionError(
            f"Option `{name}` must be a number of seconds above 0, or None for no limit, not {value!r}.", option=name
        )
    return float(value)


def _returns(name: str, value: Any) -> int:
    if value == "streaming":
        return STREAMING
    if not (is_number(value, numbers.Integral) and 0 <= value <= MAX_RETURNS):
        raise OptionError(
            f'Option `{name}` must be a whole number from 0 to {MAX_RETURNS:,}, or "streaming", not {value!r}.',
            option=name,
        )
    return int(value)


def _exceptions(name: str, value: Any) -> RetryExceptions:
    if isinstance(value, bool):
        return value
    types = (value,) if isinstance(value, type) else value
    if not (
        isinstance(types, tuple | list | set | frozenset)
        and all(isinstance(kind, type) and issubclass(kind, BaseException) for kind in types)
    ):
        raise OptionError(
            f"Option `{name}` must be True, False or a list of exception types, not {value!r}.", option=name
        )
    return tuple(types)


def _named_amounts(name: str, value: Any) -> Resources:
    if not isinstance(value, Mapping) or not all(isinstance(key, str) for key in value):
        raise OptionError(f"Option `{name}` must be a mapping of names to amounts, not {value!r}.", option=name)
    for given in value:
        if given in RESERVED:
            raise OptionError(f"Give `{given}` as an option of its own, not inside `{name}`.", option=name)
        if given in ELSEWHERE:
            raise OptionError(f"`{given}` is called `{ELSEWHERE[given]}` here.", option=name)
    return make_resources({key: _amount(f"{name}[{key!r}]", amount) for key, amount in value.items()})


def check_labels(name: str, value: Any) -> LabelSelector:
    """Return a mapping of labels as pairs, or refuse it by *name*."""
    if not isinstance(value, Mapping) or not all(isinstance(part, str) for pair in value.items() for part in pair):
        raise OptionError(f"Option `{name}` must be a mapping of strings to strings, not {value!r}.", option=name)
    return tuple(sorted(value.items()))


def _groups(name: str, value: Any) -> tuple[tuple[str, int], ...]:
    if not isinstance(value, Mapping) or not all(isinstance(key, str) and key for key in value):
        raise OptionError(f"Option `{name}` must be a mapping of names to whole numbers, not {value!r}.", option=name)
    return tuple(sorted((key, _whole(1)(f"{name}[{key!r}]", limit)) for key, limit in value.items()))


def _placement(name: str, value: Any) -> Placement:
    if isinstance(value, Placement):
        return value
    if isinstance(value, str):
        return Placement(spread=_one_of("DEFAULT", "SPREAD")(name, value) == "SPREAD")
    found = getattr(value, "placement", None)  # a node affinity, a placement group, a bundle
    if isinstance(found, Placement):
        return found
    raise OptionError(
        f'Option `{name}` must be "DEFAULT", "SPREAD", a NodeAffinity or a placement group, not {value!r}.',
        option=name,
    )


#: Resources that are options of their own.
RESERVED = ("num_cpus", "num_gpus", "memory")
#: What others call them.
ELSEWHERE = {"CPU": "num_cpus", "GPU": "num_gpus"}

_CHECKS: dict[str, _Check] = {
    "num_cpus": _amount,
    "num_gpus": _gpus,
    "memory": _nbytes,
    "resources": _named_amounts,
    "accelerator_type": _text,
    "scheduling_strategy": _placement,
    "label_selector": check_labels,
    "priority": _whole(-(2**31), 2**31, "a whole number from -(2**31) to 2**31"),
    "name": _text,
    "cell": _optional(_text),
    "max_retries": _whole(ENDLESS, words="a whole number from 0 up, or -1 for no end"),
    "retry_exceptions": _exceptions,
    "num_returns": _optional(_returns),
    "max_pending": _optional(_whole(1)),
    "timeout": _optional(_seconds),
    "max_restarts": _whole(ENDLESS, words="a whole number from 0 up, or -1 for no end"),
    "max_task_retries": _whole(ENDLESS, words="a whole number from 0 up, or -1 for no end"),
    "max_concurrency": _optional(_whole(1, 100_000, "a whole number from 1 to 100,000")),
    "concurrency_groups": _groups,
    "max_pending_calls": _optional(_whole(1)),
    "namespace": _optional(_text),
    "get_if_exists": _flag,
    "on_redefine": _one_of("error", "keep", "replace"),
    "lifetime": _optional(_one_of("detached")),
    "concurrency_group": _text,
}
