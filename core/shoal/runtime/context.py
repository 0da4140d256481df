"""What runs here right now: the task that an executor's main thread is in, if any."""

from __future__ import annotations

import dataclasses


@dataclasses.dataclass(slots=True)
class TaskContext:
    """The running task or actor call. Work it submits inherits ``cell`` and ``driver``."""

    task_id: str
    name: str
    lease_id: str
    #: Tag of the notebook cell that caused it.
    cell: str | None
    #: Address of the driver that shows its output.
    driver: str


#: Set by the executor's main thread; None in drivers. User threads inside a task see the task's too.
current: TaskContext | None = None


def set_current(context: TaskContext | None) -> None:
    global current
    current = context


def get_current() -> TaskContext | None:
    return current
