"""The owner of this process, for whoever needs *the* runtime: the API, and refs that arrive in values."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from shoal.model.errors import NotInitializedError
from shoal.runtime import refs

if TYPE_CHECKING:
    from shoal.runtime.base_owner import BaseOwner

_owner: BaseOwner | None = None
_emit: Callable[[str, str], bool] | None = None
_cell_source: Callable[[], str | None] | None = None


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
        raise NotInitializedError("shoal has no cluster in this process. Call `shoal.init()` first.")
    return _owner


def find_owner() -> BaseOwner | None:
    return _owner


def set_cell_source(source: Callable[[], str | None] | None) -> None:
    """Have *source* say which cell is running, for work submitted in it."""
    global _cell_source
    _cell_source = source


def current_cell() -> str | None:
    """Return the tag of the cell that is running, where somebody knows."""
    return _cell_source() if _cell_source is not None else None


def get_emit() -> Callable[[str, str], bool] | None:
    return _emit
