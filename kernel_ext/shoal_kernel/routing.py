"""Output of tasks, to the cell that caused them.

Tasks' output arrives on thread ``shoal-io`` with the *tag* of its cell. In a notebook kernel the tag leads to the
request that ran the cell, and the output is published with that request as its parent: it lands under that cell,
whatever runs now. From ipykernel 7.4 on streams have a parent per thread. Earlier ones have one parent for the
process, and setting it would steal the output of the running cell, so there the messages are made by hand. Elsewhere
(a terminal) text is printed.
"""

from __future__ import annotations

import json
import sys
from collections import OrderedDict
from typing import TYPE_CHECKING, Any

import shoal.output
from shoal_kernel.locating import running_number

if TYPE_CHECKING:
    from IPython.core.interactiveshell import InteractiveShell

#: Cells whose output can still be attributed; the oldest are forgotten first.
MAX_CELLS = 2_000
#: Unfinished lines remembered; beyond that some get their prefix twice.
MAX_OPEN_LINES = 10_000


class OutputRouter:
    """The sink of :mod:`shoal.output` while the extension is loaded."""

    def __init__(self, shell: InteractiveShell) -> None:
        self._shell: Any = shell  # a kernel's has more methods than the class that IPython knows
        self._is_kernel = hasattr(shell, "get_parent") and hasattr(shell.display_pub, "session")
        #: The kernel's own: `sys.stdout` may be somebody's StringIO at any moment.
        self._streams: dict[str, Any] = {"stdout": sys.stdout, "stderr": sys.stderr}
        self._cells: OrderedDict[str, _Cell] = OrderedDict()
        self._running: _Cell | None = None
        #: Streams of tasks whose last text did not end its line.
        self._open_lines: set[tuple[str, str]] = set()

    def start(self) -> None:
        self._note_running()
        self._shell.events.register("pre_run_cell", self._note_running)
        shoal.output.set_sink(self)
        shoal.output.set_cell_source(self.running_tag)

    def stop(self) -> None:
        shoal.output.set_sink(None)
        shoal.output.set_cell_source(None)
        self._shell.events.unregister("pre_run_cell", self._note_running)

    def _note_running(self, _: object = None) -> None:
        """Remember the request that runs now: on thread ``shoal-io``, tasks keep the context they began in."""
        if self._is_kernel:
            self._running = self._cell()

    def running_tag(self) -> str | None:
        """Return the tag of the running cell, for work that it submits by itself."""
        cell = self._running
        if cell is None or not cell.msg_id:
            return None
        if cell.tag not in self._cells:
            self._remember(cell)
        return cell.tag

    def _cell(self) -> _Cell:
        return _Cell(self._shell.get_parent() if self._is_kernel else {}, running_number(self._shell))

    def _remember(self, cell: _Cell) -> _Cell:
        cell = self._cells.setdefault(cell.tag, cell)
        while len(self._cells) > MAX_CELLS:
            self._cells.popitem(last=False)
        return cell

    def open_cell(self, name: str) -> str:
        """Return the tag of the running cell; output of its task called *name* will have no prefix."""
        cell = self._remember(self._cell())
        cell.names.add(name)
        return cell.tag

    def __call__(self, event: shoal.output.OutputEvent) -> None:
        cell = self._cells.get(event.cell or "")
        if event.kind == "display":
            content = json.loads(event.data)
            self._display(content["data"], content["metadata"], cell or self._running)
        else:
            own = cell is not None and event.task_name in cell.names
            self._write(event.kind, event.data if own else self._with_prefix(event), cell or self._running)

    def _with_prefix(self, event: shoal.output.OutputEvent) -> str:
        """Tell the lines of a task that is not the cell itself by its name."""
        key = (event.task_id, event.kind)
        lines = event.data.splitlines(keepends=True)
        first = key in self._open_lines
        self._open_lines.discard(key)
        if not event.data.endswith("\n"):
            if len(self._open_lines) >= MAX_OPEN_LINES:
                self._open_lines.clear()
            self._open_lines.add(key)
        return "".join(
            line if first and not number else f"({event.task_name}) {line}" for number, line in enumerate(lines)
        )

    # -- publishing ----------------------------------------------------------------------------------------------

    def _write(self, kind: str, text: str, cell: _Cell | None) -> None:
        stream: Any = sys.stderr if kind == "stderr" else sys.stdout
        if cell is None or not self._is_kernel:
            stream.write(text)
            return
        if self._running is None or cell.msg_id != self._running.msg_id:
            stream = self._streams[kind]  # the running cell may capture `sys.stdout`: this text is not its own
        if not hasattr(stream, "pub_thread"):
            stream.write(text)
        elif hasattr(stream, "set_thread_parent"):
            token = stream.set_thread_parent(cell.parent)
            try:
                stream.write(text)
            finally:
                stream.reset_thread_parent(token)
        else:
            stream.flush()  # what the notebook itself has printed comes first
            message = stream.session.msg("stream", {"name": kind, "text": text}, parent=cell.parent)
            stream.session.send(stream.pub_thread, message, ident=stream.topic)

    def _display(self, data: dict[str, Any], metadata: dict[str, Any], cell: _Cell | None) -> None:
        publisher: Any = self._shell.display_pub
        if cell is None or not self._is_kernel or not hasattr(publisher, "session"):
            publisher.publish(data=data, metadata=metadata)
        elif hasattr(publisher, "set_thread_parent"):
            token = publisher.set_thread_parent(cell.parent)
            try:
                publisher.publish(data=data, metadata=metadata)
            finally:
                publisher.reset_thread_parent(token)
        else:
            content = {"data": data, "metadata": metadata, "transient": {}}
            message = publisher.session.msg("display_data", content, parent=cell.parent)
            publisher.session.send(publisher.pub_socket, message, ident=publisher.topic)


class _Cell:
    """A cell with remote work: the request that ran it, and the names of its own tasks."""

    def __init__(self, parent: dict[str, Any], number: int) -> None:
        self.parent = parent
        self.msg_id: str = parent.get("header", {}).get("msg_id", "")
        self.tag = shoal.output.make_cell_tag(f"In[{number}]", self.msg_id)
        self.names: set[str] = set()
