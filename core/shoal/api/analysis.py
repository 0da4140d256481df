"""``shoal.plot.analysis``: the analysis page of this driver's cluster."""

from __future__ import annotations

import dataclasses
import numbers
from collections.abc import Mapping
from html import escape
from pathlib import Path

from shoal.api.looking import look
from shoal.api.session import Session, current_session, owner_or_init
from shoal.model.errors import OptionError
from shoal.model.options import is_number
from shoal.observe.analysis import MAX_RECORDS
from shoal.observe.records import Batch

#: Seconds to wait for the records, and pixels that the page is high in a notebook.
TIMEOUT, HEIGHT = 30.0, 900


@dataclasses.dataclass(frozen=True, slots=True)
class AnalysisPage:
    """One HTML page that needs nothing else.

    Attributes
    ----------
    title
        What it is of.
    html
        The page.
    """

    title: str
    html: str

    def save(self, path: str | Path) -> Path:
        """Write it to a file; returns its path."""
        path = Path(path)
        path.write_text(self.html, encoding="utf-8")
        return path

    def __repr__(self) -> str:
        return f"<{self.title}: `.save(path)` writes it as one HTML file>"

    def _repr_html_(self) -> str:
        style = f"border:0;width:100%;height:{HEIGHT}px"
        return f'<iframe title="{escape(self.title)}" style="{style}" srcdoc="{escape(self.html)}"></iframe>'


def analysis_page(limit: int, values: Mapping[str, Mapping[str, int]]) -> AnalysisPage:
    """Draw the page; see :meth:`shoal.api.plotting.Plots.analysis`."""
    if not (is_number(limit, numbers.Integral) and 1 <= limit <= MAX_RECORDS):
        raise OptionError(f"`limit` must be a whole number from 1 to {MAX_RECORDS:,}, not {limit!r}.", option="limit")
    from shoal.observe.analysis_page import render

    owner = owner_or_init()
    session = current_session()
    snapshot = session.snapshot(TIMEOUT)
    if isinstance(session, Session):
        snapshot = {**snapshot, "cell_memory": look(owner, "cell_memory", timeout=TIMEOUT)}
        batches = [Batch(*row) for row in look(owner, "records", int(limit), timeout=TIMEOUT)]
    else:
        batches = session.records.newest(int(limit))
    try:
        html = render(snapshot, batches, values)
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(
            f"The analysis page is drawn by bokeh ({error}): `pip install 'shoal[kernel]'`."
        ) from None
    return AnalysisPage(f"Analysis of {session.name}", html)


__all__ = ["AnalysisPage", "analysis_page"]
