"""What an owner keeps of one submitted task or actor call until it is answered."""

from __future__ import annotations

import dataclasses

from shoal.model.messages import Payload, Run
from shoal.runtime.refs import ObjectRef


@dataclasses.dataclass(frozen=True, slots=True)
class Exported:
    """A function or class, pickled once and named by the hash of that pickle."""

    function_id: str
    pickled: bytes
    name: str


@dataclasses.dataclass(slots=True)
class Work:
    """One submission. The refs in it keep what it needs alive until it has been answered."""

    task_id: str
    object_id: str
    exported: Exported | None
    #: "" for a task, "__init__" to create an actor, else a method's name.
    method: str
    name: str
    args: Payload
    #: Refs that arrive as values, in the order of their placeholders.
    dependencies: tuple[ObjectRef, ...]
    #: Refs inside the arguments, the actor's own, and the like.
    holds: tuple[ObjectRef, ...]
    cell: str | None
    driver: str
    #: The task that submitted it; "" for a driver's own.
    parent: str
    #: Whether it has been sent to an executor.
    sent: bool = False

    def message(self, lease_id: str, dependencies: tuple[Payload, ...], attempt: int = 0) -> Run:
        """Return the message that has this run."""
        return Run(
            self.task_id,
            lease_id,
            self.exported.function_id if self.exported else "",
            self.method,
            self.name,
            self.args,
            dependencies,
            self.cell,
            self.driver,
            attempt,
        )


class Placeholder:
    """Stands in pickled arguments for the *index*-th dependency."""

    __slots__ = ("index",)

    def __init__(self, index: int) -> None:
        self.index = index

    def __reduce__(self) -> tuple[type[Placeholder], tuple[int]]:
        return Placeholder, (self.index,)


def take_dependencies(
    args: tuple[object, ...], kwargs: dict[str, object]
) -> tuple[tuple[object, ...], dict[str, object], tuple[ObjectRef, ...]]:
    """Replace refs that are arguments themselves by placeholders; returns the arguments and those refs."""
    found: list[ObjectRef] = []

    def swap(value: object) -> object:
        if isinstance(value, ObjectRef):
            found.append(value)
            return Placeholder(len(found) - 1)
        return value

    if not any(isinstance(value, ObjectRef) for value in (*args, *kwargs.values())):
        return args, kwargs, ()
    return tuple(swap(value) for value in args), {key: swap(value) for key, value in kwargs.items()}, tuple(found)


def put_dependencies(
    args: tuple[object, ...], kwargs: dict[str, object], values: list[object]
) -> tuple[tuple[object, ...], dict[str, object]]:
    """Undo :func:`take_dependencies` with the values that the refs stood for."""

    def swap(value: object) -> object:
        return values[value.index] if isinstance(value, Placeholder) else value

    return tuple(swap(value) for value in args), {key: swap(value) for key, value in kwargs.items()}
