"""The live progress of a cell on the page: ipywidgets while it goes on, plain HTML once it is over.

Widgets, because a page that was reloaded finds them again in the kernel, which it does not with updates of a display,
and because a button of HTML could do nothing. What stays in the notebook is the HTML. A reloaded page cannot be told of
it, so the widget takes the same form.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import ipywidgets

from shoal.api.progress import CellProgress
from shoal.observe.cell_progress import Progress
from shoal_kernel import progress_view as view
from shoal_kernel.film import Film
from shoal_kernel.publishing import Block, Page

_MODEL = "application/vnd.jupyter.widget-view+json"
#: What front ends without widgets show while it goes on.
_WITHOUT_WIDGETS = "The work of this cell goes on; how it ends will be shown here."
_AUTO = {"width": "auto"}


class ProgressWidget:
    """One cell's: shown with the first :meth:`show`. The callbacks of its buttons come on other threads."""

    def __init__(self, page: Page, cell: CellProgress) -> None:
        self._block = Block(page)
        self._cell = cell
        self._drawn: Progress | None = None
        self._live = ipywidgets.HTML()
        self._functions = ipywidgets.HTML(layout={"display": "none"})
        self._stop = ipywidgets.Button(
            description=f"Stop {cell.name}", tooltip="Cancel all work of this cell", icon="stop", layout=_AUTO
        )
        self._stop.on_click(self._cancel)
        self._fold = ipywidgets.ToggleButton(
            description="By function", tooltip="Show the counts of each function", icon="table", layout=_AUTO
        )
        self._fold.observe(self._toggle, "value")
        self._buttons = ipywidgets.HBox([self._stop, self._fold])
        self._box = ipywidgets.VBox()

    def show(self, progress: Progress) -> None:
        """Show it while it goes on."""
        if progress == self._drawn:
            return
        self._live.value = view.render_live(progress)
        if self._fold.value:
            self._functions.value = view.render_functions(progress)
        if self._drawn is None:  # for the first time, or once more after its end
            self._box.children = [self._live, self._buttons, self._functions]
            model = {"version_major": 2, "version_minor": 0, "model_id": self._box.model_id}
            self._block.show({_MODEL: model, "text/html": _WITHOUT_WIDGETS, "text/plain": _WITHOUT_WIDGETS})
        self._drawn = progress

    def finish(self, progress: Progress, film: Film, failures: Sequence[tuple[str, str]]) -> None:
        """Put the snapshot that stays in its place."""
        html = view.render_snapshot(progress, film, failures)
        self._block.show({"text/html": html, "text/plain": view.render_snapshot_text(progress, film, failures)})
        self._live.value = html
        self._box.children = [self._live]
        self._drawn = None

    def close(self) -> None:
        """Let the widgets go; the snapshot stays."""
        for widget in (self._box, self._buttons, self._functions, self._fold, self._stop, self._live):
            widget.close()
            widget.layout.close()
        for widget in (self._functions, self._fold, self._stop, self._live):
            widget.style.close()

    def _toggle(self, change: Any) -> None:
        """A press of *By function*."""
        self._functions.value = view.render_functions(self._cell.look()) if change["new"] else ""
        self._functions.layout.display = "" if change["new"] else "none"

    def _cancel(self, _: Any) -> None:
        """A press of *Stop*."""
        self._cell.cancel()
        self._stop.disabled = True
        self._stop.description = f"Stopping {self._cell.name}"
