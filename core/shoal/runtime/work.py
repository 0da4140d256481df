"""What an owner keeps of one submitted task or actor call until it is answered."""

from __future__ import annotations

import dataclasses
import itertools
from typing import TYPE_CHECKING

from shoal.model.messages import Payload, Recipe, Run
from shoal.model.options import STREAMING, RetryExceptions
from shoal.model.placement import SchedulingClass
from shoal.runtime.refs import ObjectRef

if TYPE_CHECKING:
    from shoal.observe.functions import Tally
    from shoal.runtime.base_owner import BaseOwner
    from shoal.runtime.lineage import Lineage, Origin
    from shoal.runtime.recovery import MissingValues
    from shoal.runtime.yields import Yields

#: Methods that no user wrote.
CREATE, STOP = "__init__", "__stop__"

_recipe_numbers = itertools.count(1)


@dataclasses.dataclass(frozen=True, slots=True)
class Exported:
    """A function or class, pickled once and named by the hash of that pickle."""

    function_id: str
    pickled: bytes
    name: str
    #: Refs that it refers to: held as long as it may be sent.
    contained: tuple[ObjectRef, ...] = ()
    #: What :func:`~shoal.runtime.session.code_version` was then.
    version: int = 0

    def belongs_to(self, owner: BaseOwner) -> bool:
        """Whether everything that it refers to is of this owner's session."""
        return all(ref._owner is owner for ref in self.contained)


@dataclasses.dataclass(slots=True)
class Target:
    """What is called, and how: a function, a class or a method, with all that its calls have in common."""

    name: str
    #: None for a method: the actor has its class.
    exported: Exported | None = None
    #: "" for a task, one of the above, else a method's name.
    method: str = ""
    #: For tasks and actors.
    kind: SchedulingClass | None = None
    num_returns: int = 1
    max_pending: int = 0
    timeout: float | None = None
    #: How often it may be lost with its executor, or fail in a way that *retry_exceptions* covers; -1 for no end.
    retries: int = 0
    retry_exceptions: RetryExceptions = False
    #: Concurrency group of a method.
    group: str = ""
    #: Calls that one process may have under way to the actor; 0 for any number.
    max_pending_calls: int = 0
    cell: str | None = None
    #: The recipe that the last call had: the next one's, unless its surroundings differ.
    recipe: Recipe | None = None

    @property
    def streams(self) -> bool:
        return self.num_returns == STREAMING

    def recipe_for(self, cell: str | None, driver: str, depth: int) -> Recipe:
        """Return the recipe of a call made in these surroundings."""
        recipe = self.recipe
        if recipe is None or recipe.cell != cell or recipe.depth != depth or recipe.driver != driver:
            recipe = self.recipe = Recipe(
                next(_recipe_numbers),
                self.exported.function_id if self.exported else "",
                self.method,
                self.name,
                cell,
                driver,
                depth,
                self.num_returns,
                self.max_pending,
                self.group,
                self.retries if self.retry_exceptions is True else 0,
            )
        return recipe


@dataclasses.dataclass(slots=True, eq=False)
class Work:
    """One submission. The refs in it keep what it needs alive until it has been answered."""

    task_id: str
    #: Of the result; those of several results, or of a stream's values, are this with a number behind.
    object_id: str
    target: Target
    recipe: Recipe
    args: Payload
    #: Refs that arrive as values, in the order of their placeholders.
    dependencies: tuple[ObjectRef, ...]
    #: Refs inside the arguments, the actor's own, and the like.
    holds: tuple[ObjectRef, ...]
    #: The task that submitted it; "" for a driver's own.
    parent: str
    #: The values of a generator.
    yields: Yields | MissingValues | None = None
    #: Whether it has been sent to an executor.
    sent: bool = False
    #: When it was submitted, in monotonic seconds.
    submitted: float = 0.0
    #: How often it has been begun before.
    attempt: int = 0
    #: Counts it, from its submission on.
    tally: Tally | None = None
    #: Somebody has asked for its end.
    cancelled: bool = False
    #: How its results could be made again, once that was asked.
    lineage: Lineage | Origin | None = None

    def message(self, lease_id: str, dependencies: tuple[Payload, ...], attempt: int = 0) -> Run:
        """Return the message that has this run."""
        return Run(self.task_id, lease_id, self.recipe.recipe_id, self.args, dependencies, attempt)


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
    for value in args:
        if isinstance(value, ObjectRef):
            break
    else:
        for value in kwargs.values():
            if isinstance(value, ObjectRef):
                break
        else:
            return args, kwargs, ()
    found: list[ObjectRef] = []

    def swap(value: object) -> object:
        if isinstance(value, ObjectRef):
            found.append(value)
            return Placeholder(len(found) - 1)
        return value

    return tuple(swap(value) for value in args), {key: swap(value) for key, value in kwargs.items()}, tuple(found)


def put_dependencies(
    args: tuple[object, ...], kwargs: dict[str, object], values: list[object]
) -> tuple[tuple[object, ...], dict[str, object]]:
    """Undo :func:`take_dependencies` with the values that the refs stood for."""

    def swap(value: object) -> object:
        return values[value.index] if isinstance(value, Placeholder) else value

    return tuple(swap(value) for value in args), {key: swap(value) for key, value in kwargs.items()}
