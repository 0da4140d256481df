"""How a notebook shows errors: without our frames, and groups with each member as it would be shown alone."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from shoal_kernel import debugging
from shoal_kernel.grouping import CellErrors
from shoal_kernel.tracebacks import hide_internals

if TYPE_CHECKING:
    from IPython.core.interactiveshell import InteractiveShell


class ErrorDisplay:
    """Stands before a shell's ``showtraceback`` from :meth:`start` to :meth:`stop`.

    Others put theirs there, too. One that was there before is called with what we make of the error, groups included,
    and is there again afterwards. One that has come after us stays, and what it calls of ours only passes on then.
    """

    def __init__(self, shell: InteractiveShell) -> None:
        self._shell: Any = shell
        self._own: Callable[..., None] = self._show
        self._before: Callable[..., None] | None = None
        self._is_on = False

    def start(self) -> None:
        debugging.start()
        self._before = vars(self._shell).get("showtraceback")
        vars(self._shell)["showtraceback"] = self._own
        self._is_on = True

    def stop(self) -> None:
        self._is_on = False
        if vars(self._shell).get("showtraceback") is self._own:
            if self._before is None:
                del vars(self._shell)["showtraceback"]
            else:
                vars(self._shell)["showtraceback"] = self._before
        debugging.stop()

    def _show(self, exc_tuple: Any = None, *args: Any, **kwargs: Any) -> None:
        if not self._is_on:
            self._pass_on(exc_tuple, *args, **kwargs)
            return
        kind, error, traceback = sys.exc_info() if exc_tuple is None else exc_tuple
        if isinstance(error, BaseException):
            error.__traceback__ = traceback
            debugging.remember(error)
            hide_internals(error)
            exc_tuple = kind, error, error.__traceback__
        if isinstance(error, CellErrors):
            error.render = self._render
        if isinstance(error, CellErrors) and self._before is None:
            # IPython prints groups as Python does, and does not ask them.
            self._shell._get_exc_info(exc_tuple)  # notes it for debuggers
            self._shell._showtraceback(kind, error, error._render_traceback_())
        else:
            self._pass_on(exc_tuple, *args, **kwargs)

    def _pass_on(self, exc_tuple: Any, *args: Any, **kwargs: Any) -> None:
        if self._before is not None:
            self._before(exc_tuple, *args, **kwargs)
        else:
            type(self._shell).showtraceback(self._shell, exc_tuple, *args, **kwargs)

    def _render(self, error: BaseException) -> list[str]:
        formatter = self._shell.InteractiveTB
        lines: list[str] = formatter.structured_traceback(type(error), error, error.__traceback__, tb_offset=0)
        return lines
