"""``shoal.progress``: how far the work of a notebook cell is."""

from __future__ import annotations

from collections.abc import Callable

from shoal.model.cells import cell_name
from shoal.model.errors import OptionError
from shoal.observe.cell_progress import CellWork, Progress
from shoal.observe.progress_words import describe
from shoal.observe.timeline import Timeline
from shoal.runtime import payload as payloads
from shoal.runtime import session as current
from shoal.runtime.base_owner import BaseOwner

#: Characters of an error that are told.
MAX_ERROR = 200


class CellProgress:
    """The work of one cell, as it is whenever you look. Prints as a sentence.

    It counts what the cell itself has submitted, tasks and actor calls, and not what these submit in turn.

    Attributes
    ----------
    cell
        The cell's tag.
    name
        What the notebook calls it: ``In[3]``.
    """

    def __init__(self, owner: BaseOwner, work: CellWork) -> None:
        self._owner = owner
        self._work = work
        self.cell = work.tag
        self.name = cell_name(work.tag)

    def look(self) -> Progress:
        """Return the counts as they are now, in all and by function."""
        return self._work.look()

    @property
    def timeline(self) -> Timeline:
        """When the work was done."""
        return self._work.timeline

    def failures(self) -> list[tuple[str, str]]:
        """Return the first errors: each as the function's name and the error's type and text."""
        return [(name, _describe_error(payload)) for name, payload in list(self._work.failures)]

    def cancel(self, *, force: bool = False) -> None:
        """Stop all of it that has not ended, and what that has submitted; returns at once.

        By *force* the processes of its tasks are ended; those of actors are not.
        """
        self._owner.cancel_cell(self.cell, force=force)

    def unwatch(self) -> bool:
        """Have :func:`watch_work` tell of the cell again; returns False if there is work to look at already."""
        self._work.watched = False
        if self.look().pending and not self._work.watched:
            self._work.watched = True
            return False
        return True

    def __repr__(self) -> str:
        return describe(self.look())


def progress(cell: str | None = None) -> CellProgress:
    """Return how far the work of a notebook cell is.

    Parameters
    ----------
    cell
        The cell: its tag, or its name such as ``In[3]``, which means its last run. By default the one that was the
        last to submit its first work.

    Raises
    ------
    OptionError
        No cell of this name has submitted anything; cells long gone are forgotten.
    NotInitializedError
        There is no cluster.
    """
    owner = current.get_owner()
    owner.catch_up()
    cells = owner.results.cells.cells()
    for work in reversed(cells):
        if cell is None or cell in (work.tag, cell_name(work.tag)):
            return CellProgress(owner, work)
    known = ", ".join(f"`{cell_name(work.tag)}`" for work in cells[-5:]) or "none"
    what = "No cell has" if cell is None else f"`{cell}` has not"
    raise OptionError(f"{what} submitted any work here; cells that have: {known}.", option="cell")


def watch_work(callback: Callable[[CellProgress], None] | None) -> None:
    """Have *callback* called with each cell that has work in this process and that nobody looks at; None ends that.

    It is called on thread ``shoal-io``, so it must be quick. Look at the cell until nothing is pending, and then call
    :meth:`CellProgress.unwatch`.
    """
    if callback is None:
        current.set_work_watcher(None)
        return

    def watcher(work: CellWork) -> None:
        owner = current.find_owner()
        if owner is not None:
            callback(CellProgress(owner, work))

    current.set_work_watcher(watcher)


def _describe_error(payload: tuple[object, ...]) -> str:
    try:
        payloads.load(payload)
    except BaseException as error:  # whatever user code raised
        first = (str(error).splitlines() or [""])[0]
        text = f"{type(error).__name__}: {first}" if first else type(error).__name__
        return text if len(text) <= MAX_ERROR else text[: MAX_ERROR - 1] + "…"
    return ""
