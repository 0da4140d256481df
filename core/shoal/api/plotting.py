"""``shoal.plot``: pictures of what the notebook's work was and is. The data come from here, the drawing from bokeh."""

from __future__ import annotations

import dataclasses
from typing import Any

from shoal.api.analysis import AnalysisPage, analysis_page
from shoal.api.ipython import draw
from shoal.api.memory import memory
from shoal.api.session import owner_or_init
from shoal.model.cells import cell_name
from shoal.model.errors import OptionError
from shoal.observe.cell_progress import CellWork
from shoal.observe.durations import Durations
from shoal.observe.timeline import Slice, Span

#: Values that memory is added up of: the biggest.
MAX_VALUES = 10_000


@dataclasses.dataclass(frozen=True, slots=True)
class CellTimeline:
    """When the work of a cell was done.

    Attributes
    ----------
    cell
        What people call it.
    spans
        The first pieces of work, one by one.
    lanes
        The executors that they ran in, by number.
    width, slices
        For all of its work: the seconds that a slice of time is wide, and what was done in each.
    """

    cell: str
    spans: tuple[Span, ...]
    lanes: tuple[str, ...]
    width: float
    slices: tuple[Slice, ...]


class Plots:
    """Pictures for a notebook, as ``shoal.plot``. Each has a table beside it, and can be saved as one HTML file."""

    def timeline(self, cell: str | None = None) -> Any:
        """Draw when the tasks and calls of a cell ran, and in which executor.

        Parameters
        ----------
        cell
            What the cell is called, such as ``"In[3]"``; by default the newest that has submitted work.

        Returns
        -------
        shoal_kernel.plots.Picture
            Shows itself; ``.save(path)`` writes an HTML file, ``.figure`` is the bokeh figure, ``.rows`` the table.

        Raises
        ------
        OptionError
            No such cell has submitted work from this process, or it is long ago.

        Notes
        -----
        The first 300 pieces of work are drawn one by one; below them stands how much ran at a time, which counts all.
        """
        return draw("timeline", timeline=_timeline(_find_cell(cell)))

    def durations(self) -> Any:
        """Draw how long the tasks and calls of each function took: how many were about so long.

        Counts all that the newest 100 cells, and code outside of cells, have submitted from this process.

        Returns
        -------
        shoal_kernel.plots.Picture
            See :meth:`timeline`.
        """
        found: dict[str, Durations] = {}
        for tally in owner_or_init().results.cells.tallies():
            found.setdefault(tally.name, Durations()).merge(tally.durations)
        return draw("durations", functions={name: list(durations.classes()) for name, durations in found.items()})

    def memory(self) -> Any:
        """Draw which cells' values fill the object stores, as :func:`shoal.memory` knows them.

        Returns
        -------
        shoal_kernel.plots.Picture
            See :meth:`timeline`.
        """
        return draw("memory", cells=_values_by_cell())

    def analysis(self, limit: int = 100_000) -> AnalysisPage:
        """Draw what the whole cluster has done: a page with all of it, to look at closely or to give to others.

        When work ran in which executor, with a strip to choose the time; how much of each cell's work ran at a time;
        memory and object stores in the last minutes; values by cell; how long work took; copies between nodes; and the
        numbers as tables. It needs bokeh, and takes seconds where much has been done.

        Parameters
        ----------
        limit
            Tasks and calls that it is made of: the newest that have ended, 1 to 200,000.

        Returns
        -------
        AnalysisPage
            Shows itself in a notebook; ``.save(path)`` writes one HTML file that needs nothing else.

        Raises
        ------
        OptionError
            *limit* is out of range.
        ModuleNotFoundError
            There is no bokeh here: ``pip install 'shoal[kernel]'``.
        """
        return analysis_page(limit, _values_by_cell())

    def __repr__(self) -> str:
        return "<shoal.plot: .timeline(), .durations(), .memory(), .analysis()>"


def _values_by_cell() -> dict[str, dict[str, int]]:
    """Return the bytes of the values that each cell has made, by where they are."""
    cells: dict[str, dict[str, int]] = {}
    for use in memory(limit=MAX_VALUES).objects:
        amounts = cells.setdefault(use.cell or "no cell", {})
        amounts[use.where] = amounts.get(use.where, 0) + use.nbytes
    return cells


def _find_cell(name: str | None) -> CellWork:
    cells = owner_or_init().results.cells.cells()
    found = [cell for cell in cells if name in (None, cell.tag, cell_name(cell.tag))]
    if not found:
        known = ", ".join(dict.fromkeys(f"`{cell_name(cell.tag)}`" for cell in cells)) or "none"
        wanted = f"called {name!r}" if name is not None else "at all"
        raise OptionError(
            f"No cell {wanted} has submitted work from here (known: {known}). In a notebook cells are known from "
            "`%load_ext shoal` on.",
            option="cell",
        )
    return found[-1]


def _timeline(cell: CellWork) -> CellTimeline:
    lines = cell.timeline
    return CellTimeline(
        cell_name(cell.tag),
        tuple(lines.spans),
        tuple(lines.lanes),
        lines.width,
        tuple(lines.slices()),
    )


plot = Plots()

__all__ = ["CellTimeline", "Plots", "plot"]
