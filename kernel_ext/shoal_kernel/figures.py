"""The matplotlib backend of executors: figures are drawn without a window and shown under the cell that made them."""

from __future__ import annotations

from typing import Any

from matplotlib.backend_bases import FigureManagerBase
from matplotlib.backends.backend_agg import FigureCanvasAgg

from shoal_kernel import showing

FigureCanvas = FigureCanvasAgg
FigureManager = FigureManagerBase


def show(*args: Any, **kwargs: Any) -> None:
    """Show every open figure and close it, as ``plt.show()`` does in a notebook."""
    showing.flush_figures()
