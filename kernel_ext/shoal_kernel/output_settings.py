"""How output is shown: what users can set, and what the front end can do."""

from __future__ import annotations

import dataclasses
from typing import Any

from shoal.model.display_limits import DisplayLimits
from shoal_kernel.lanes import Budget

#: Lines of a cell's stream, or of its lanes, that reach the page, and characters per line on average. A million
#: characters is what a page draws without a pause, and what Jupyter's server lets through in a second where it limits
#: that (`iopub_data_rate_limit`). Of short lines, a page draws many more than anybody reads.
MAX_LINES, CHARS_PER_LINE = 25_000, 40
#: A cap of few lines still leaves room for one that is long.
MIN_CHARS = 64 * 1024
#: Bytes of one display, and of all displays of a cell: a picture of a screen's size has one or two million, an
#: interactive plot that carries its own JavaScript some millions.
MAX_DISPLAY, MAX_DISPLAYS = 10_000_000, 100_000_000


@dataclasses.dataclass(frozen=True)
class OutputSettings:
    """What ``%config Remote`` says about output.

    Attributes
    ----------
    live
        Whether tasks' output is drawn in a block that changes. None decides by the front end.
    max_lines
        Lines of one cell that reach the page, for each of its streams and for its lanes together: announced lanes have
        equal shares, so that none takes another's. The characters are bounded too, by 40 a line.
    max_display, max_displays
        Bytes of one display of the remote work of a cell, and of all of them, as they travel: with pictures in base64.
    progress_lines
        Whether the progress of cells is told in lines where it cannot be shown in a widget. None: in a terminal.
    """

    live: bool | None = None
    max_lines: int = MAX_LINES
    max_display: float = MAX_DISPLAY
    max_displays: float = MAX_DISPLAYS
    progress_lines: bool | None = None

    @property
    def displays(self) -> DisplayLimits:
        """The limits of displays, and how they are changed."""
        setting = "`%config Remote.{}` changes that, and a file has room for any size"
        return DisplayLimits(
            self.max_display, self.max_displays, setting.format("max_display"), setting.format("max_displays")
        )

    @property
    def max_chars(self) -> int:
        return max(MIN_CHARS, self.max_lines * CHARS_PER_LINE)

    def budget(self, num_shares: int = 1) -> Budget:
        """Return one of so many equal shares of the cap."""
        return Budget(max(1, self.max_lines // num_shares), max(1, self.max_chars // num_shares))

    def is_live(self, request: dict[str, Any]) -> bool:
        """Return whether to draw for the front end that sent *request*.

        Front ends in which a person edits cells say which cell an execute request is from: JupyterLab and Notebook 7
        send ``cellId`` along. nbclient (nbconvert, papermill, nbmake), nbval and consoles do not, and some of them do
        not know displays that change.
        """
        return bool(request.get("metadata", {}).get("cellId")) if self.live is None else self.live

    def tells_progress(self, is_terminal: bool) -> bool:
        """Return whether progress is told in lines: runners that compare what is printed shall find it the same."""
        return is_terminal if self.progress_lines is None else self.progress_lines
