"""Where a remote cell stands in the notebook: its filename for the compiler, its line numbers, its text."""

from __future__ import annotations

import re
import sys
from types import FrameType
from typing import TYPE_CHECKING, Any

from shoal_kernel.cell import CellSource

if TYPE_CHECKING:
    from IPython.core.interactiveshell import InteractiveShell


def running_number(shell: InteractiveShell) -> int:
    """Return the number of the running cell: since IPython 9 the shell's own count is the next one's by then."""
    hook: Any = shell.displayhook
    return int(hook.prompt_count)


class CellWatch:
    """Remembers the text of the running cell, which a magic is not told."""

    def __init__(self, shell: InteractiveShell) -> None:
        self._shell = shell
        self._raw_cell = ""

    def start(self) -> None:
        self._shell.events.register("pre_run_cell", self._note)

    def stop(self) -> None:
        self._shell.events.unregister("pre_run_cell", self._note)

    def _note(self, info: Any) -> None:
        self._raw_cell = info.raw_cell or ""

    def locate(self, body: str) -> CellSource:
        """Return the source of a magic's *body*, with the lines and the filename of the cell around it.

        A body that is not the end of the running cell (one made up by a program) is a cell of its own.
        """
        above = self._lines_above(body)
        filename = self._filename()
        if above is None or filename is None:
            return self.locate_line(body)
        head = self._raw_cell.split("\n")[:above]
        listing = "".join(f"# {line}\n" for line in head) + body
        return CellSource(code="\n" * above + body, filename=filename, listing=listing)

    def locate_line(self, code: str) -> CellSource:
        """Return the source of Python that is no cell itself, such as a line magic's expression."""
        number = re.search(r"\d+", self.number())
        filename = self._shell.compile.cache(code, int(number[0]) if number else 0)
        return CellSource(code=code, filename=filename, listing=code)

    def label(self, source: CellSource) -> str:
        """What tracebacks call the cell: ``Cell In[3]``."""
        return " ".join(self._shell.compile.format_code_name(source.filename) or ("Cell", source.filename))

    def number(self) -> str:
        """What the notebook calls the running cell: ``In[3]``."""
        name = self._shell.compile.format_code_name(self._filename() or "")
        return name[1] if name else f"In[{running_number(self._shell)}]"

    def _lines_above(self, body: str) -> int | None:
        raw, end = self._raw_cell.rstrip(), body.rstrip()
        if not raw.endswith(end) or raw == end:
            return None
        return raw[: len(raw) - len(end)].count("\n")

    def _filename(self) -> str | None:
        """The innermost frame that is code of a cell tells."""
        frame: FrameType | None = sys._getframe()
        while frame is not None:
            filename = frame.f_code.co_filename
            if self._shell.compile.format_code_name(filename) is not None:
                return filename
            frame = frame.f_back
        return None
