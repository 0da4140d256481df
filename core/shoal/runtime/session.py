"""The owner of this process, for whoever needs *the* runtime: the API, and refs that arrive in values."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Protocol

from shoal.model.errors import NotInitializedError
from shoal.runtime import refs

if TYPE_CHECKING:
    from shoal.model.messages import Output
    from shoal.observe.cell_progress import CellWork
    from shoal.runtime.base_owner import BaseOwner

logger = logging.getLogger("shoal")

_owner: BaseOwner | None = None
#: Why this process is to have no runtime; "" if it may.
_barred = ""
_emit: Callable[[str, str], bool] | None = None
_output_listener: Callable[[Output], None] | None = None
_cell_source: Callable[[], str | None] | None = None
_work_watcher: Callable[[CellWork], None] | None = None
_code_hook: CodeHook | None = None


class CodeHook(Protocol):
    """Has a say in what tasks and actors run: a notebook whose modules are edited. Asked on whatever thread submits."""

    @property
    def version(self) -> int:
        """Another number as soon as functions are to be pickled anew; asked for at every submission."""

    def wrap(self, target: Any, pickled: bytes) -> bytes:
        """Return the pickle to send for that of a function or class: it gives what is to be run when it is loaded."""


def set_owner(owner: BaseOwner | None, emit: Callable[[str, str], bool] | None = None) -> None:
    """Make *owner* this process's runtime; ``emit(kind, data)`` sends output of the running task (executors only)."""
    global _owner, _emit
    _owner, _emit = owner, emit
    refs.set_current_owner(get_owner if owner is not None else None)


def get_owner() -> BaseOwner:
    """Return the runtime.

    Raises
    ------
    NotInitializedError
        There is none.
    """
    if _owner is None:
        raise NotInitializedError(_barred or "shoal has no cluster in this process. Call `shoal.init()` first.")
    return _owner


def find_owner() -> BaseOwner | None:
    return _owner


def bar(reason: str) -> None:
    """Leave the runtime, and have this process not get another unasked: whoever needs one is told the *reason*."""
    global _barred
    set_owner(None)
    _barred = reason


def is_barred() -> bool:
    return bool(_barred)


def set_cell_source(source: Callable[[], str | None] | None) -> None:
    """Have *source* say which cell is running, for work submitted in it."""
    global _cell_source
    _cell_source = source


def current_cell() -> str | None:
    """Return the tag of the cell that is running, where somebody knows."""
    return _cell_source() if _cell_source is not None else None


def set_work_watcher(watcher: Callable[[CellWork], None] | None) -> None:
    """Have *watcher* told of each cell that has work in this process and that nobody watches.

    It is called where the work is counted, so it must be quick. It then looks at the cell until nothing is pending,
    and sets ``watched`` to False to be told of the next work.
    """
    global _work_watcher
    _work_watcher = watcher


def tell_work_watcher(cell: CellWork) -> None:
    """Have a cell watched that has work now."""
    if _work_watcher is not None:
        cell.watched = True
        try:
            _work_watcher(cell)
        except Exception:  # boundary: whoever watches, the work goes on
            logger.exception("a watcher of cells has failed")


def set_output_listener(listener: Callable[[Output], None] | None) -> None:
    """Have *listener* hear what work that this executor has submitted prints, on its way to the driver."""
    global _output_listener
    _output_listener = listener


def get_output_listener() -> Callable[[Output], None] | None:
    return _output_listener


def get_emit() -> Callable[[str, str], bool] | None:
    return _emit


def set_code_hook(hook: CodeHook | None) -> None:
    """Have *hook* asked about the functions and classes that this process submits; None for nobody."""
    global _code_hook
    _code_hook = hook


def get_code_hook() -> CodeHook | None:
    return _code_hook


def code_version() -> int:
    """Return what tells whether a function was pickled as it would be now; 0 where nobody has a say."""
    return 0 if _code_hook is None else _code_hook.version
