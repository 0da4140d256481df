"""What runs here right now: the task or actor call that some code belongs to."""

from __future__ import annotations

import contextvars
import dataclasses

from shoal.model.display_limits import DisplayLimits
from shoal.runtime.stdio import OutputBuffer


@dataclasses.dataclass(slots=True, eq=False)
class TaskContext:
    """A running task or actor call. Work it submits inherits ``cell``, ``driver`` and, one deeper, ``depth``."""

    task_id: str
    name: str
    #: "" for an actor's call.
    lease_id: str
    #: Tag of the notebook cell that caused it.
    cell: str | None
    #: Address of the driver that shows its output.
    driver: str
    depth: int
    attempt: int
    #: Whether its error, if it ends with one, is the last word.
    is_last_attempt: bool = True
    #: Somebody wants it to stop.
    cancelled: bool = False
    #: What it has printed and not sent; made with the first print.
    output: OutputBuffer | None = None
    #: How much it may display; the usual, if it has not been said before the first print.
    displays: DisplayLimits | None = None


@dataclasses.dataclass(frozen=True, slots=True)
class Place:
    """Where an executor is, whom it serves, and what is reserved for that."""

    node_id: str
    executor_id: str
    #: "" where tasks run.
    actor_id: str
    job_id: str
    resources: dict[str, float]
    gpus: tuple[str, ...]


_place: Place | None = None


def set_place(place: Place | None) -> None:
    """Say what this executor serves from now on."""
    global _place
    _place = place


def get_place() -> Place | None:
    """Return what this executor serves; None in a driver."""
    return _place


_current: contextvars.ContextVar[TaskContext | None] = contextvars.ContextVar("shoal task", default=None)
#: What the main thread runs, if it runs one thing at a time: threads that user code starts belong to it as well.
_main: TaskContext | None = None


def set_main(context: TaskContext | None) -> None:
    """Say what the executor's main thread runs, and every thread that does not know better."""
    global _main
    _main = context


def set_current(context: TaskContext | None) -> None:
    """Say what this thread, or this asyncio task, runs."""
    _current.set(context)


def get_current() -> TaskContext | None:
    """Return the task or call that the caller belongs to; None in a driver, and between tasks."""
    context = _current.get()
    return context if context is not None else _main
