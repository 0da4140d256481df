"""The last tasks that have failed, with what they were called with, so that one can be run again under a debugger.

Nothing is kept unless somebody asks for it: what a failed task refers to stays in the cluster as long.
"""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, Any

from shoal.runtime.payload_kinds import SEGMENT
from shoal.runtime.serialization import loads
from shoal.runtime.work import Work, put_dependencies

if TYPE_CHECKING:
    from shoal.runtime.base_owner import BaseOwner

_kept: deque[Work] = deque(maxlen=0)


def keep(number: int) -> None:
    """Keep this many, the last ones, from now on."""
    global _kept
    _kept = deque(_kept, maxlen=number)


def note(work: Work) -> None:
    """A task has failed for good."""
    if _kept.maxlen:
        _kept.append(work)


def release() -> None:
    """Let go of those that are kept."""
    _kept.clear()


def find(task_id: str) -> Work | None:
    """Return a task that has failed, if it is kept."""
    return next((work for work in list(_kept) if work.task_id == task_id), None)


def why_not_here(work: Work) -> str:
    """Say why a failed task cannot be run again in this process; "" if it can."""
    if work.target.method:
        return "it was a call of an actor, whose state is not here"
    if work.args[0] == SEGMENT:
        return "its arguments were large, and are not kept: pass them with `shoal.put`"
    return ""


def call_of(work: Work, owner: BaseOwner) -> tuple[Any, tuple[Any, ...], dict[str, Any]]:
    """Return the function, and the arguments, of a task that :func:`why_not_here` has nothing against.

    Waits for values of other tasks among the arguments, and fetches them.

    Raises
    ------
    Exception
        A part of it cannot be had any more, or not be rebuilt in this process.
    """
    assert work.target.exported is not None
    function = loads([work.target.exported.pickled])
    args, kwargs = owner.load(work.args)
    values = owner.get(list(work.dependencies), None) if work.dependencies else []
    args, kwargs = put_dependencies(args, kwargs, values)
    return function, args, kwargs
