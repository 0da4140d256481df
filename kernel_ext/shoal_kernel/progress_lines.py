"""The progress of a cell as lines, where nothing that was shown can change: one for each tenth of its work."""

from __future__ import annotations

from collections.abc import Sequence

from shoal.observe.cell_progress import Progress
from shoal.observe.progress_words import describe
from shoal_kernel.film import Film
from shoal_kernel.publishing import Page

#: Seconds of work after which a cell's progress is told.
DELAY = 3.0


class ProgressLines:
    """One cell's. Of work that is one piece nothing is said."""

    def __init__(self, page: Page) -> None:
        self._page = page
        #: Tenths of the work that have been told.
        self._told = 0

    def show(self, progress: Progress) -> None:
        """Say how far it is, if another tenth has ended."""
        tenths = 10 * progress.num_ended // max(1, progress.submitted)
        if tenths > self._told and progress.pending:
            self._say(progress)
            self._told = tenths

    def finish(self, progress: Progress, film: Film, failures: Sequence[tuple[str, str]]) -> None:
        """Say what came of it."""
        if progress.submitted > 1:
            self._say(progress)
        self._told = 0

    def close(self) -> None:
        """There is nothing to let go."""

    def _say(self, progress: Progress) -> None:
        self._page.write("stderr", f"{describe(progress)}\n")
