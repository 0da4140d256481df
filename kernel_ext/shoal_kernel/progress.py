"""The progress of cells: which are shown, since when, and when they are over.

A thread looks five times a second at the cells that have work, and sleeps while there are none. A cell whose work is
over within half a second shows nothing. One whose work is over, but that still runs in the notebook and may submit
more, counts as going on; when it ends, so does its progress, before the notebook takes it for done.

Where nothing that was shown can change, progress is told in lines, if that is wanted
(:mod:`~shoal_kernel.progress_lines`).
"""

from __future__ import annotations

import dataclasses
import logging
import threading
from collections import OrderedDict, deque
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any

from shoal.api.progress import CellProgress, watch_work
from shoal.observe.cell_progress import Progress
from shoal_kernel import progress_lines
from shoal_kernel.film import Film
from shoal_kernel.progress_lines import ProgressLines
from shoal_kernel.routing import OutputRouter

if TYPE_CHECKING:
    from IPython.core.interactiveshell import InteractiveShell

    from shoal_kernel.progress_widget import ProgressWidget

logger = logging.getLogger("shoal")

#: Seconds of work after which a cell's progress is shown, and between two looks at it.
DELAY, INTERVAL = 0.5, 0.2
#: Cells that are over whose widgets are kept: for pages that are reloaded, and for more work of the same cell.
MAX_KEPT = 20


@dataclasses.dataclass(slots=True)
class _Watched:
    cell: CellProgress
    widget: ProgressWidget | ProgressLines | None


class ProgressWatch:
    """Shows the progress of a shell's cells while the extension is loaded."""

    def __init__(self, shell: InteractiveShell, router: OutputRouter) -> None:
        self._shell = shell
        self._router = router
        #: Cells that have work, as thread ``shoal-io`` finds out, which must not wait for anything that is shown.
        self._news: deque[CellProgress] = deque()
        self._news_came, self._end = threading.Event(), threading.Event()
        #: Held while something is shown.
        self._lock = threading.RLock()
        self._cells: dict[str, _Watched] = {}
        self._kept: OrderedDict[str, ProgressWidget | ProgressLines] = OrderedDict()
        #: Whether the notebook runs a cell.
        self._is_running = False
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        self._shell.events.register("pre_run_cell", self._cell_begins)
        self._shell.events.register("post_run_cell", self._cell_ends)
        watch_work(self._notice)

    def stop(self) -> None:
        """Show everything for the last time, as it is now."""
        watch_work(None)
        self._shell.events.unregister("pre_run_cell", self._cell_begins)
        self._shell.events.unregister("post_run_cell", self._cell_ends)
        self._end.set()
        self._news_came.set()
        if self._thread is not None:
            self._thread.join()
        with self._lock:
            for watched in list(self._cells.values()):
                self._finish(watched)
            for widget in self._kept.values():
                widget.close()
            self._kept.clear()

    def _notice(self, cell: CellProgress) -> None:
        self._news.append(cell)
        self._news_came.set()
        if self._thread is None:
            self._thread = threading.Thread(target=self._run, name="shoal-progress", daemon=True)
            self._thread.start()

    def _cell_begins(self, _: object = None) -> None:
        self._is_running = True

    def _cell_ends(self, _: object = None) -> None:
        self._is_running = False
        if self._cells:
            with self._lock:
                self._look_at_all()

    def _run(self) -> None:
        _belong_to_no_request(self._shell)
        while True:
            if not self._cells:
                self._news_came.wait()
            if self._end.wait(INTERVAL):
                return
            with self._lock:
                self._news_came.clear()
                while self._news:
                    cell = self._news.popleft()
                    self._cells[cell.cell] = _Watched(cell, self._kept.pop(cell.cell, None))
                self._look_at_all()

    def _look_at_all(self) -> None:
        for watched in list(self._cells.values()):
            self._look_at(watched)

    def _look_at(self, watched: _Watched) -> None:
        cell, progress = watched.cell, watched.cell.look()
        is_running = self._is_running and cell.cell == self._router.running_tag()
        try:
            if progress.pending and watched.widget is None and progress.elapsed >= DELAY:
                watched.widget = self._widget(cell, progress)
            if watched.widget is not None:
                watched.widget.show(progress)
        except Exception:  # boundary: whatever is wrong with widgets here, the cell goes on
            logger.exception("the progress of %s cannot be shown", cell.name)
            watched.widget = None
        if not progress.pending and not (is_running and watched.widget is not None) and cell.unwatch():
            self._finish(watched)

    def _widget(self, cell: CellProgress, progress: Progress) -> ProgressWidget | ProgressLines | None:
        page = self._router.live_page(cell.cell)
        if page is None:
            page = self._router.progress_page(cell.cell) if progress.elapsed >= progress_lines.DELAY else None
            return None if page is None else ProgressLines(page)
        # Imported here because it takes longer than all else that `%load_ext` does.
        from shoal_kernel.progress_widget import ProgressWidget

        return ProgressWidget(page, cell)

    def _finish(self, watched: _Watched) -> None:
        cell, widget = watched.cell, watched.widget
        self._cells.pop(cell.cell, None)
        if widget is None:
            return
        try:
            widget.finish(cell.look(), Film.of(cell.timeline), cell.failures())
        except Exception:  # boundary, as above
            logger.exception("the progress of %s cannot be shown", cell.name)
        self._kept[cell.cell] = widget
        while len(self._kept) > MAX_KEPT:
            self._kept.popitem(last=False)[1].close()


def _belong_to_no_request(shell: Any) -> None:
    """Have the presses of buttons that this thread shows handled at once, while the notebook runs a cell.

    JupyterLab sends them to a subshell. From 7.4 on, ipykernel sends them on to the shell whose request the widget's
    last update belonged to, and a thread's updates belong to the running cell, which would have to end first.
    """
    parent = getattr(getattr(shell, "kernel", None), "_shell_parent", None)
    if isinstance(parent, ContextVar):
        parent.set({})  # of this thread only
