"""What tasks print and display: where it goes in the driver, and how a task displays something."""

from __future__ import annotations

import dataclasses
import json
import re
import sys
import threading
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from shoal.model.display_limits import DisplayLimits
from shoal.runtime import context as contexts
from shoal.runtime import session

if TYPE_CHECKING:
    from shoal.model.messages import Output


@dataclasses.dataclass(frozen=True, slots=True)
class OutputEvent:
    """A piece of output.

    Attributes
    ----------
    cell
        Tag of the cell that caused the work; None if it has none.
    task_id, task_name, executor
        Who printed it, and where.
    kind
        ``stdout``, ``stderr``, ``display`` or ``elided``: here text is missing, as the task printed more than anybody
        could read.
    data
        The text; for ``display`` JSON of ``{"data": mime bundle, "metadata": …, "transient": …}``, for ``elided`` JSON
        of ``{"kind": "stdout" or "stderr", "lines": number, "chars": number}``.
    """

    cell: str | None
    task_id: str
    task_name: str
    executor: str
    kind: str
    data: str


Sink = Callable[[OutputEvent], None]

_print_lock = threading.Lock()
_sink: Sink | None = None
#: What each stream of each task has printed since its last line end, for the default sink.
_at_line_start: dict[tuple[str, str], bool] = {}


def set_sink(sink: Sink | None) -> None:
    """Send the output of this driver's tasks to *sink* from now on; None restores printing with the task's name in
    front.

    The sink is called on thread ``shoal-io``: in order for each task, before the task's result is ready. It must
    not block.
    """
    global _sink
    _sink = sink


def set_cell_source(source: Callable[[], str | None] | None) -> None:
    """Have *source* return the tag of the running cell: work submitted without a ``cell`` option gets it.

    It is called on whatever thread submits, for every task, so it must be quick. None removes it.
    """
    session.set_cell_source(source)


def publish_display(
    data: dict[str, Any], metadata: dict[str, Any] | None = None, transient: dict[str, Any] | None = None
) -> None:
    """Display a mime bundle in the cell that caused the running task. Outside a task, print its plain text.

    Raises
    ------
    TypeError
        The bundle holds something that JSON cannot say.
    """
    text = json.dumps({"data": data, "metadata": metadata or {}, "transient": transient or {}})
    emit = session.get_emit()
    if emit is None:
        print(data.get("text/plain", ""))
    else:
        emit("display", text)


def limit_displays(limits: DisplayLimits) -> None:
    """Have the running task display no more than this, and no more than tasks may; before it has printed anything."""
    context = contexts.get_current()
    if context is not None:
        context.displays = limits.within(DisplayLimits())


def set_listener(listener: Sink | None) -> None:
    """In an actor: have *listener* hear what the tasks that it has submitted print, on its way to the notebook.

    It is called on thread ``shoal-io`` and must not block. None removes it.
    """
    session.set_output_listener(None if listener is None else lambda message: listener(_event(message)))


def deliver(message: Output) -> None:
    """Hand a piece of output to the sink; on the event loop."""
    (_sink or _print)(_event(message))


def _event(message: Output) -> OutputEvent:
    return OutputEvent(
        message.cell, message.task_id, message.task_name, message.executor_id, message.kind, message.data
    )


def _describe_elided(data: str) -> str:
    """Return what to show for an event of kind ``elided``."""
    elided = json.loads(data)
    if elided["lines"]:
        return f"… {elided['lines']:,} more lines, printed faster than they can be sent"
    return f"… {elided['chars']:,} more characters, printed faster than they can be sent"


def _text_of(event: OutputEvent) -> str:
    if event.kind == "display":
        return f"{json.loads(event.data)['data'].get('text/plain', '')}\n"
    return f"{_describe_elided(event.data)}\n" if event.kind == "elided" else event.data


def _print(event: OutputEvent) -> None:
    stream = sys.stderr if event.kind == "stderr" else sys.stdout
    prefix = f"({event.task_name}) "
    key = (event.task_id, event.kind)
    with _print_lock:
        for line in re.findall(r"[^\n]*\n|[^\n]+", _text_of(event)):
            stream.write(prefix + line if _at_line_start.get(key, True) else line)
            if line.endswith("\n"):
                _at_line_start.pop(key, None)
            else:
                _at_line_start[key] = False
        stream.flush()
