"""shoal in a notebook: ``%load_ext shoal`` brings ``%%remote``, and puts the output of tasks under their cells."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from IPython.core.interactiveshell import InteractiveShell

__all__ = ["draw", "live_view", "load_ipython_extension", "unload_ipython_extension"]


def load_ipython_extension(shell: InteractiveShell) -> None:
    """Install the magics and the routing of output; harmless if they are there."""
    from shoal_kernel.extension import load

    load(shell)


def unload_ipython_extension(shell: InteractiveShell) -> None:
    """Take everything out again; a running cluster stays."""
    from shoal_kernel.extension import unload

    unload(shell)


def live_view(what: Any) -> dict[str, Any]:
    """Return the MIME bundle of a live view of *what*, if it is something that has one."""
    from shoal_kernel import cluster_widget

    return cluster_widget.live_view(what)


def draw(picture: str, **options: Any) -> Any:
    """Return one of the pictures of ``shoal.plot``."""
    from shoal_kernel import plots

    return getattr(plots, f"draw_{picture}")(**options)
