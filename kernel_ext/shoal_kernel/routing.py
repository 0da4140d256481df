"""Output of tasks, to the cell that caused them.

Tasks' output arrives on thread ``shoal-io`` with the *tag* of its cell. In a notebook kernel the tag leads to the
request that ran the cell, and the output is published with that request as its parent: it lands under that cell,
whatever runs now. How it looks there depends on the front end: see :mod:`~shoal_kernel.live_output` and
:mod:`~shoal_kernel.text_output`. Cells may run in several threads (subshells), and what changes is drawn on a thread of
its own: one lock guards everything here.
"""

from __future__ import annotations

import contextvars
import json
import threading
from collections import OrderedDict
from collections.abc import Sequence
from typing import TYPE_CHECKING

import shoal.output
from shoal.model.display_limits import DisplayMeter
from shoal_kernel.live_output import LiveOutput
from shoal_kernel.locating import running_number
from shoal_kernel.output_settings import OutputSettings
from shoal_kernel.publishing import Page, Publisher, Request
from shoal_kernel.text_output import TextOutput
from shoal_kernel.updates import Updater

if TYPE_CHECKING:
    from IPython.core.interactiveshell import InteractiveShell

#: Cells whose output can still be attributed; the oldest are forgotten first.
MAX_CELLS = 2_000
#: Cells whose text is kept, to be drawn with what comes later; others begin a new block then.
MAX_KEPT = 50


class OutputRouter:
    """The sink of :mod:`shoal.output` while the extension is loaded.

    ``settings`` may be changed at any time; a cell keeps those with which its output began.
    """

    def __init__(self, shell: InteractiveShell, settings: OutputSettings | None = None) -> None:
        self._shell = shell
        self.settings = settings or OutputSettings()
        self._publisher = Publisher(shell)
        self._lock = threading.RLock()
        self._updater = Updater(self._lock)
        self._cells: OrderedDict[str, _Cell] = OrderedDict()
        #: Those of them with output.
        self._kept: OrderedDict[_Cell, None] = OrderedDict()
        #: The cell that began last, and the one that a thread, or an asyncio task, belongs to.
        self._running: _Cell | None = None
        self._here: contextvars.ContextVar[_Cell | None] = contextvars.ContextVar("shoal cell", default=None)

    def start(self) -> None:
        self._cell_begins()
        self._shell.events.register("pre_run_cell", self._cell_begins)
        self._shell.events.register("post_run_cell", self._cell_ends)
        shoal.output.set_sink(self)
        shoal.output.set_cell_source(self.running_tag)

    def stop(self) -> None:
        shoal.output.set_sink(None)
        shoal.output.set_cell_source(None)
        self._shell.events.unregister("pre_run_cell", self._cell_begins)
        self._shell.events.unregister("post_run_cell", self._cell_ends)
        self._updater.stop()

    # -- cells ---------------------------------------------------------------------------------------------------

    def _cell_begins(self, _: object = None) -> None:
        """Remember the request that runs now: on thread ``shoal-io``, tasks keep the context they began in."""
        cell = _Cell(self._publisher.running_request(), running_number(self._shell))
        with self._lock:
            cell = self._running = self._cells.get(cell.tag, cell)
        self._here.set(cell)

    def _cell_ends(self, _: object = None) -> None:
        """Show everything that has come, before the notebook takes the cell for done."""
        msg_id = _msg_id(self._publisher.running_request())
        with self._lock:
            for cell in self._kept:
                if cell.msg_id == msg_id and cell.output is not None:
                    cell.output.settle()

    def _current(self) -> _Cell | None:
        return self._here.get() or self._running

    def running_tag(self) -> str | None:
        """Return the tag of the running cell, for work that it submits by itself."""
        cell = self._current()
        if cell is None or (self._publisher.is_kernel and not cell.msg_id):
            return None
        if cell.tag not in self._cells:
            self._remember(cell)
        return cell.tag

    def ended_tag(self) -> str | None:
        """Return the tag of the cell that has just ended.

        ipykernel tells of the end of a cell that awaits in another context than that of its beginning.
        """
        cell = self._running
        if cell is not None and cell.msg_id and cell.msg_id == _msg_id(self._publisher.running_request()):
            return cell.tag
        return self.running_tag()

    def _remember(self, cell: _Cell) -> _Cell:
        with self._lock:
            cell = self._cells.setdefault(cell.tag, cell)
            while len(self._cells) > MAX_CELLS:
                self._cells.popitem(last=False)
        return cell

    def _open(self) -> _Cell:
        return self._remember(self._current() or _Cell({}, running_number(self._shell)))

    def open_cell(self, name: str) -> str:
        """Return the tag of the running cell; output of its task called *name* will have no prefix."""
        cell = self._open()
        cell.names.add(name)
        return cell.tag

    def open_lanes(self, names: Sequence[str]) -> Lanes:
        """Announce the tasks that the running cell is about to launch.

        Parameters
        ----------
        names
            What the tasks will be called, each differently, in the order in which their output is shown.

        Raises
        ------
        ValueError
            There are no names, or two are the same.
        """
        if not names or len(set(names)) < len(names):
            raise ValueError(f"lanes need names, each its own; got {list(names)!r}")
        with self._lock:
            cell = self._open()
            if cell.output is not None:  # lanes come a second time in this cell, or after other output
                cell = self._remember(cell.make_part())
            output = cell.output = self._make_output(cell, names)
            self._keep(cell)
        return Lanes(self, cell.tag, output)

    # -- output --------------------------------------------------------------------------------------------------

    def live_page(self, tag: str) -> Page | None:
        """Return where to show what changes under the cell with this tag; None where nothing can."""
        cell = self._cells.get(tag)
        if cell is None or not self._publisher.is_kernel or not self.settings.is_live(cell.request):
            return None
        return self._page(cell)

    def progress_page(self, tag: str) -> Page | None:
        """Return where to tell the progress of the cell with this tag in lines; None where nobody wants that."""
        cell = self._cells.get(tag)
        return (
            self._page(cell) if cell is not None and self.settings.tells_progress(self._publisher.is_terminal) else None
        )

    def show_again(self) -> None:
        """Show what changes under cells as it is now, for a page that may have missed that."""
        self._publisher.show_again()

    def __call__(self, event: shoal.output.OutputEvent) -> None:
        with self._lock:
            cell = self._cells.get(event.cell or "")
            is_own = cell is not None and event.task_name in cell.names
            shown_in = cell or self._running or _Cell({}, 0)
            output = self._output(shown_in)
            if event.kind == "display":
                data = shown_in.pass_display(event.data, self.settings)
                if data:
                    output.display(event.task_id, event.task_name, is_own, data)
            elif event.kind == "elided":
                elided = json.loads(event.data)
                num_lines, said = elided["lines"], _describe(elided)
                output.elide(event.task_id, event.task_name, is_own, elided["kind"], num_lines, said)
            elif is_own:
                output.own(event.kind, event.data)
            else:
                output.other(event.task_id, event.task_name, event.kind, event.data)
            if output.is_unsettled:
                self._updater.touch(output)

    def _output(self, cell: _Cell) -> LiveOutput | TextOutput:
        if cell.output is None:
            cell.output = self._make_output(cell)
        self._keep(cell)
        return cell.output

    def _make_output(self, cell: _Cell, names: Sequence[str] = ()) -> LiveOutput | TextOutput:
        publisher, page = self._publisher, self._page(cell)
        captured = publisher.captures and page.is_running()
        live = publisher.is_kernel and not captured and self.settings.is_live(cell.request)
        return LiveOutput(page, self.settings, names) if live else TextOutput(page, self.settings, names)

    def _page(self, cell: _Cell) -> Page:
        def is_running() -> bool:
            return self._running is None or self._running.msg_id == cell.msg_id

        return Page(self._publisher, cell.request, is_running)

    def _keep(self, cell: _Cell) -> None:
        self._kept[cell] = None
        self._kept.move_to_end(cell)
        if len(self._kept) > MAX_KEPT:
            old = next((old for old in self._kept if old.output is None or not old.output.is_open), cell)
            if old is not cell:
                del self._kept[old]
                old.output = None

    def close(self, output: LiveOutput | TextOutput) -> None:
        """All tasks that were announced for *output* have ended."""
        with self._lock:
            output.close()


class Lanes:
    """The announced tasks of a cell. ``tag`` is the cell that their work is submitted with."""

    def __init__(self, router: OutputRouter, tag: str, output: LiveOutput | TextOutput) -> None:
        self.tag = tag
        self._router = router
        self._output = output

    def close(self) -> None:
        """All of them have ended: show what is to last. What still comes is shown as it comes.

        In a front end that cannot change what it has shown, this prints the text of all, in order. Call it when the
        results are there, from any thread, also long after the cell; a second call does nothing.
        """
        self._router.close(self._output)

    def __enter__(self) -> Lanes:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class _Cell:
    """A cell with remote work: the request that ran it, the names of its own tasks, and their output."""

    def __init__(self, request: Request, number: int, part: int = 0) -> None:
        self.request = request
        self.msg_id: str = _msg_id(request)
        self._number = number
        self.tag = shoal.output.make_cell_tag(f"In[{number}]", f"{self.msg_id}/{part}" if part else self.msg_id)
        self.names: set[str] = set()
        #: Made with the first of it.
        self.output: LiveOutput | TextOutput | None = None
        self._displays: DisplayMeter | None = None
        #: Parts with a tag of their own: one cell may announce tasks several times.
        self._num_parts = 0

    def pass_display(self, data: str, settings: OutputSettings) -> str:
        """Return what to show for a display; nothing, if it is too much and that has been said."""
        if self._displays is None:
            self._displays = DisplayMeter(settings.displays)
        return self._displays.passed(data)

    def make_part(self) -> _Cell:
        self._num_parts += 1
        return _Cell(self.request, self._number, self._num_parts)


def _msg_id(request: Request) -> str:
    return str(request.get("header", {}).get("msg_id", ""))


def _describe(elided: dict[str, int]) -> str:
    what = "lines" if elided["lines"] else "characters"
    return f"… {elided['lines'] or elided['chars']:,} more {what}, printed faster than they can be sent"
