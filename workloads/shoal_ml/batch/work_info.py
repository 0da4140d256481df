"""What a transform can know of the piece of work that it runs for."""

from __future__ import annotations

import dataclasses
from contextvars import ContextVar


@dataclasses.dataclass(frozen=True, slots=True)
class WorkInfo:
    """One piece of work of a stage.

    Attributes
    ----------
    number
        Its place among those of its stage: in the order of the source, and the same when it is done again.
    keys
        The pieces of the source that its rows come from.
    attempt
        How often it was lost with its process before.
    """

    number: int = 0
    keys: tuple[str, ...] = ()
    attempt: int = 0


_current: ContextVar[WorkInfo] = ContextVar("shoal batch work")


def current_work() -> WorkInfo:
    """Return what is worked on; outside a stage, a record that says nothing."""
    return _current.get(WorkInfo())


def set_current_work(work: WorkInfo) -> None:
    """Say what is worked on from now on, in this context."""
    _current.set(work)


__all__ = ["WorkInfo", "current_work"]
