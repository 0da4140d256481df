"""Options of tasks and actors: one frozen record, checked where the user wrote it."""

from __future__ import annotations

import dataclasses
import numbers
from collections.abc import Callable, Mapping
from typing import Any

from shoal.model.errors import OptionError
from shoal.model.resources import Resources, make_resources
from shoal.model.suggest import did_you_mean


@dataclasses.dataclass(frozen=True, slots=True)
class Options:
    """How one task or actor is to be run.

    Attributes
    ----------
    num_cpus, num_gpus
        Logical amounts reserved while it runs, 0 or more; fractions share a device. A task takes one CPU unless
        told otherwise; an actor takes none, so that any number of them can wait for calls.
    memory
        Bytes reserved, 0 or more.
    resources
        Further named amounts, as the cluster's nodes declare them.
    max_retries
        How often a task is run again after its *executor* died (never after an exception of its own), 0 or more.
    name
        What panels, logs and errors call it; the function's or class's own name by default.
    cell
        Tag of the notebook cell that caused it. Nested work inherits it.
    """

    num_cpus: float = 1.0
    num_gpus: float = 0.0
    memory: int = 0
    resources: Resources = ()
    max_retries: int = 3
    name: str = ""
    cell: str | None = None

    def asked(self) -> Resources:
        """Return everything asked for as one resource vector."""
        amounts = dict(self.resources)
        amounts |= {"num_cpus": self.num_cpus, "num_gpus": self.num_gpus, "memory": float(self.memory)}
        return make_resources(amounts)


#: The largest amount of anything: far beyond any cluster, and exact to the digits that count.
MAX_AMOUNT = 1e15

TASK_OPTIONS = frozenset(field.name for field in dataclasses.fields(Options))
ACTOR_OPTIONS = TASK_OPTIONS - {"max_retries"}
_RESERVED = ("num_cpus", "num_gpus", "memory")


def with_changes(options: Options, changes: Mapping[str, Any], allowed: frozenset[str]) -> Options:
    """Return *options* with *changes* applied, each checked.

    Raises
    ------
    OptionError
        A name that is not in *allowed* (with the closest one that is), or a value of the wrong kind or range.
    """
    for name in changes:
        if name not in allowed:
            raise OptionError(
                f"Unknown option `{name}`.{did_you_mean(name, allowed)} Options are: {', '.join(sorted(allowed))}.",
                option=name,
            )
    checked: dict[str, Any] = {name: _CHECKS[name](name, value) for name, value in changes.items()}
    return dataclasses.replace(options, **checked)


def is_number(value: Any, kind: type = numbers.Real) -> bool:
    """Whether *value* is a number of this kind; ``True`` and ``False`` are not."""
    return isinstance(value, kind) and not isinstance(value, bool)


def _amount(name: str, value: Any) -> float:
    if not (is_number(value) and 0 <= value <= MAX_AMOUNT):
        raise OptionError(f"Option `{name}` must be a number from 0 up, not {value!r}.", option=name)
    return float(value)


def _count(name: str, value: Any) -> int:
    if not (is_number(value, numbers.Integral) and 0 <= value < 2**63):
        raise OptionError(f"Option `{name}` must be a whole number from 0 up, not {value!r}.", option=name)
    return int(value)


def _text(name: str, value: Any) -> str:
    if not isinstance(value, str):
        raise OptionError(f"Option `{name}` must be a string, not {value!r}.", option=name)
    return value


def _optional_text(name: str, value: Any) -> str | None:
    return None if value is None else _text(name, value)


def _named_amounts(name: str, value: Any) -> Resources:
    if not isinstance(value, Mapping) or not all(isinstance(key, str) for key in value):
        raise OptionError(f"Option `{name}` must be a mapping of names to amounts, not {value!r}.", option=name)
    for reserved in _RESERVED:
        if reserved in value:
            raise OptionError(f"Give `{reserved}` as an option of its own, not inside `{name}`.", option=name)
    return make_resources({key: _amount(f"{name}[{key!r}]", amount) for key, amount in value.items()})


_CHECKS: dict[str, Callable[[str, Any], Any]] = {
    "num_cpus": _amount,
    "num_gpus": _amount,
    "memory": _count,
    "resources": _named_amounts,
    "max_retries": _count,
    "name": _text,
    "cell": _optional_text,
}
