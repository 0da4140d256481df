"""The stop button in an ordinary cell: the work that the cell has submitted stops with it.

A ``%%remote`` cell sees to that itself (:mod:`shoal_kernel.running`). Actors and the session live on.
"""

from __future__ import annotations

import asyncio
import sys
import time
from typing import TYPE_CHECKING, Any

import shoal
from shoal.errors import OptionError
from shoal_kernel.cell_run import STOP_TIMEOUT

if TYPE_CHECKING:
    from IPython.core.interactiveshell import InteractiveShell

    from shoal_kernel.routing import OutputRouter

#: Seconds between two looks at what is still running.
INTERVAL = 0.01


class Interrupting:
    """Stops the work of cells that were interrupted."""

    def __init__(self, shell: InteractiveShell, router: OutputRouter) -> None:
        self._shell: Any = shell
        self._router = router

    def start(self) -> None:
        self._shell.events.register("post_run_cell", self._cell_has_run)

    def stop(self) -> None:
        self._shell.events.unregister("post_run_cell", self._cell_has_run)

    def _cell_has_run(self, result: Any) -> None:
        tag = self._router.ended_tag()
        error = getattr(result, "error_in_exec", None)
        # ipykernel cancels a cell that awaits.
        stopped = isinstance(error, KeyboardInterrupt | asyncio.CancelledError)
        if stopped and tag is not None and shoal.is_initialized():
            said = stop_work_of(tag)
            if said:
                print(said, file=sys.stderr)


def stop_work_of(tag: str) -> str:
    """Stop everything that a cell has submitted and say in one line what came of it; "" if there was nothing."""
    try:
        work = shoal.progress(tag)
    except OptionError:  # it has submitted nothing
        return ""
    running = work.look().pending
    if not running:
        return ""
    begin = time.monotonic()
    work.cancel()
    try:
        patient = _have_ended(work)
    except KeyboardInterrupt:
        patient = False
    if not patient:
        work.cancel(force=True)
        _have_ended(work)
    left = work.look().pending
    what = f"{running:,} tasks and calls" if running > 1 else "1 task or call"
    if left:
        return f"shoal: asked {what} of this cell to stop; {left:,} are still in an actor's code that does not listen."
    how = "" if patient else "; what did not listen was ended with its process"
    return f"shoal: stopped {what} of this cell in {time.monotonic() - begin:.1f} s{how}."


def _have_ended(work: shoal.CellProgress) -> bool:
    """Wait a while for the end of what is stopped; returns whether it has come."""
    deadline = time.monotonic() + STOP_TIMEOUT
    while work.look().pending and time.monotonic() < deadline:
        time.sleep(INTERVAL)
    return not work.look().pending
