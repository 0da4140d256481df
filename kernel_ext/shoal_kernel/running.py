"""A launched cell, seen from the notebook: wait, stop, show its error, bring its names back."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from shoal_kernel.cell import VALUE, CellResult, Loss
from shoal_kernel.cell_run import CellRun, CellTimeoutError
from shoal_kernel.packing import unpack
from shoal_kernel.tracebacks import trim

if TYPE_CHECKING:
    from IPython.core.interactiveshell import InteractiveShell


def run_to_end(run: CellRun, timeout: float | None) -> Any:
    """Wait for a launched cell and return its value.

    Raises
    ------
    KeyboardInterrupt
        The stop button: the cell has been stopped.
    CellTimeoutError
        It took longer than *timeout* seconds, and was stopped.
    Exception
        The cell's own, with the cell's own frames.
    """
    try:
        ready = run.wait(timeout)
    except KeyboardInterrupt as interrupt:
        raise _interrupted(run.stop(), interrupt) from None
    if not ready:
        raise CellTimeoutError(f"the cell did not end within {timeout:g} s; {run.stop()}", timeout=timeout)
    return run.result()


def _interrupted(said: str, interrupt: KeyboardInterrupt) -> KeyboardInterrupt:
    interrupt.__traceback__ = None
    interrupt.args = (said,)
    interrupt._render_traceback_ = lambda: [f"KeyboardInterrupt: {said}"]  # type: ignore[attr-defined]
    return interrupt


def show_only(error: BaseException, filename: str, shell: InteractiveShell) -> None:
    """Cut the frames that lead into the cell off an error, and let IPython show none but the cell's.

    The traceback of the error when it is caught holds the frames of the notebook too, as Python wants it.
    """
    traceback = trim(error.__traceback__, filename)
    error.__traceback__ = traceback
    for link in _chain(error):
        link.__traceback__ = trim(link.__traceback__, filename) or link.__traceback__

    def render() -> list[str]:
        lines: list[str] = shell.InteractiveTB.structured_traceback(type(error), error, traceback, tb_offset=0)
        return lines

    if not hasattr(error, "_render_traceback_"):
        error._render_traceback_ = render  # type: ignore[attr-defined]


def _chain(error: BaseException) -> Iterator[BaseException]:
    """Yield what *error* was raised from, and so on; at most once each."""
    seen = {id(error)}
    link = error.__cause__ or error.__context__
    while link is not None and id(link) not in seen:
        seen.add(id(link))
        yield link
        link = link.__cause__ or link.__context__


def bring_back(result: CellResult, user_ns: dict[str, Any]) -> Any:
    """Put the names a cell wrote into the notebook and return its value; what cannot come is said on stderr."""
    received: dict[str, Any] = {}
    failures = unpack(result.package, user_ns, into=received)
    losses = [*result.losses, *(Loss(name, name, _reason(error)) for name, error in failures.items())]
    for name, module in result.modules.items():
        try:
            received[name] = importlib.import_module(module)
        except Exception as error:  # boundary: importing runs anybody's code
            losses.append(Loss(name, name, _reason(error)))
    value = received.pop(VALUE, None)
    user_ns.update(received)
    for loss in losses:
        what = "the value" if loss.name == VALUE else f"`{loss.name}`"
        where = "" if loss.path in (loss.name, "the value") else f": `{loss.path}`"
        print(f"{what} stays remote{where}: {loss.reason}", file=sys.stderr)
    return value


def _reason(error: BaseException) -> str:
    return f"{type(error).__name__}: {error}"
