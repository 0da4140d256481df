"""What comes of a cell, on its way into the notebook: names, values, errors."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import shoal
from shoal_kernel.cell_run import CellRun, Ended
from shoal_kernel.remote_value import RemoteValue
from shoal_kernel.running import bring_back, show_only

if TYPE_CHECKING:
    from IPython.core.interactiveshell import InteractiveShell


class Receiver:
    """Takes what has ended of one launched cell."""

    def __init__(
        self, shell: InteractiveShell, keep: str | None = None, learn: Callable[[list[str]], None] = lambda names: None
    ) -> None:
        """Make the receiver.

        Parameters
        ----------
        keep
            Under this name the notebook gets what stands for the value; None if the value comes.
        learn
            Called with the names in an actor after its cell.
        """
        self._shell = shell
        self._keep = keep
        self._learn = learn

    def take(self, run: CellRun, ended: Ended) -> Any:
        """Bring names and values into the notebook; returns the value, or raises the cell's error."""
        if ended.error is not None:
            run.source.remember()  # another notebook's, maybe
            show_only(ended.error, run.source.filename, self._shell)
            raise ended.error
        values = []
        for result, more in zip(ended.results, ended.more, strict=True):
            assert result is not None
            values.append(bring_back(result, self._shell.user_ns))
            if result.shown is not None:
                self._shell.display_pub.publish(data=result.shown[0], metadata=result.shown[1])
            if self._keep is not None:
                values[-1] = RemoteValue(more[0], run.name)
            if more[1:] or (more and self._keep is None):
                self._learn(shoal.get(more[-1]))
        value = run.collect(values)
        if self._keep is None:
            return value
        self._shell.user_ns[self._keep] = value
        return None
