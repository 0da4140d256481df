"""``shoal.why``: what work waits for, and what would help."""

from __future__ import annotations

from typing import Any

from shoal.api.actors import ActorHandle, owner_of
from shoal.api.placement import PlacementGroup
from shoal.api.values import check_timeout
from shoal.model.errors import OptionError
from shoal.model.explanation import Explanation
from shoal.runtime.refs import ObjectRef
from shoal.runtime.yields import ObjectRefGenerator


def why(what: ObjectRef | ObjectRefGenerator | ActorHandle | PlacementGroup, *, timeout: float = 5.0) -> Explanation:
    """Explain why a value is not there, or what an actor is busy with.

    Follows what is waited for, through the processes that have it: arguments that are not ready, resources and who
    holds them, a busy actor and what it does, work that waits for other work, a circle of such waits.

    Parameters
    ----------
    what
        A ref, a generator of refs (its next value is meant), an actor's handle or a placement group.
    timeout
        Seconds after which a process that gives no answer is reported as such; more than 0.

    Returns
    -------
    Explanation
        Prints as a tree, with what would help below it; its attributes are for programs.

    Examples
    --------
    >>> import shoal
    >>> with shoal.init(num_cpus=1):
    ...     shoal.why(shoal.put(1)).state
    'ready'
    """
    check_timeout(timeout)
    if not timeout:
        raise OptionError("`timeout` must be more than 0.", option="timeout")
    target: Any = what
    if isinstance(target, ActorHandle):
        return owner_of("why", target).explain("actor", target._actor_id, timeout)
    if isinstance(target, PlacementGroup):
        target = target.ready()
    if isinstance(target, ObjectRefGenerator):
        target = target._yields.next_ref
    if not isinstance(target, ObjectRef):
        raise TypeError(f"`why` takes a ref, an actor's handle or a placement group, not {type(what).__name__}.")
    return target._owner.explain("object", target.id, timeout)


__all__ = ["why"]
