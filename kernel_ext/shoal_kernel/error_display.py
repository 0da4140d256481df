"""How a notebook shows errors: without our frames, and groups with each member as it would be shown alone."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

from shoal_kernel import debugging
from shoal_kernel.grouping import CellErrors
from shoal_kernel.tracebacks import hide_internals

if TYPE_CHECKING:
    from IPython.core.interactiveshell import InteractiveShell


class ErrorDisplay:
    """Stands before a shell's ``showtraceback`` from :meth:`start` to :meth:`stop`."""

    def __init__(self, shell: InteractiveShell) -> None:
        self._shell: Any = shell

    def start(self) -> None:
        debugging.start()
        vars(self._shell)["showtraceback"] = self._show

    def stop(self) -> None:
        vars(self._shell).pop("showtraceback", None)
        debugging.stop()

    def _show(self, exc_tuple: Any = None, *args: Any, **kwargs: Any) -> None:
        kind, error, traceback = sys.exc_info() if exc_tuple is None else exc_tuple
        if isinstance(error, BaseException):
            error.__traceback__ = traceback
            debugging.remember(error)
            hide_internals(error)
            exc_tuple = kind, error, error.__traceback__
        if isinstance(error, CellErrors):
            # IPython prints groups as Python does, and does not ask them.
            error.render = self._render
            self._shell._get_exc_info(exc_tuple)  # notes it for debuggers
            self._shell._showtraceback(kind, error, error._render_traceback_())
        else:
            type(self._shell).showtraceback(self._shell, exc_tuple, *args, **kwargs)

    def _render(self, error: BaseException) -> list[str]:
        formatter = self._shell.InteractiveTB
        lines: list[str] = formatter.structured_traceback(type(error), error, error.__traceback__, tb_offset=0)
        return lines
