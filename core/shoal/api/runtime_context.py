"""``get_runtime_context``: what code can find out about the task, actor and place it runs in."""

from __future__ import annotations

import dataclasses

from shoal.runtime.context import get_current, get_place


@dataclasses.dataclass(frozen=True, slots=True)
class RuntimeContext:
    """A look at the moment of the call; strings are empty where they do not apply, all of them in a driver.

    Attributes
    ----------
    task_id, task_name
        The running task or actor call.
    attempt
        How often it was begun before, 0 or more.
    actor_id
        The actor that this process hosts.
    job_id
        The driver session that the work belongs to.
    node_id, executor_id
        Where it runs.
    cell
        Tag of the notebook cell that caused it.
    resources
        What is reserved for it, by name.
    gpu_ids
        The accelerators it may use, as in ``CUDA_VISIBLE_DEVICES``.
    """

    task_id: str = ""
    task_name: str = ""
    attempt: int = 0
    actor_id: str = ""
    job_id: str = ""
    node_id: str = ""
    executor_id: str = ""
    cell: str | None = None
    resources: dict[str, float] = dataclasses.field(default_factory=dict)
    gpu_ids: tuple[str, ...] = ()

    def is_cancelled(self) -> bool:
        """Return whether somebody has cancelled the calling task: code that catches interrupts can ask."""
        context = get_current()
        return context is not None and context.cancelled


def get_runtime_context() -> RuntimeContext:
    """Return what is known of the task and the process that call this; harmless anywhere."""
    context, place = get_current(), get_place()
    about_task = {} if context is None else {"task_id": context.task_id, "task_name": context.name}
    about_place = {} if place is None else {"actor_id": place.actor_id, "job_id": place.job_id}
    if place is not None:
        about_place |= {"node_id": place.node_id, "executor_id": place.executor_id}
    return RuntimeContext(
        **about_task,
        **about_place,
        attempt=context.attempt if context is not None else 0,
        cell=context.cell if context is not None else None,
        resources=dict(place.resources) if place is not None else {},
        gpu_ids=place.gpus if place is not None else (),
    )
