"""A cell's way through the cluster: submit, wait, stop, bring back."""

from __future__ import annotations

import dataclasses
import importlib
import sys
import time
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import shoal
from shoal.errors import ShoalError
from shoal_kernel.cell import VALUE, CellResult, CellSpec, Loss, run_cell
from shoal_kernel.packing import Package, unpack
from shoal_kernel.tracebacks import trim

if TYPE_CHECKING:
    from IPython.core.interactiveshell import InteractiveShell

#: Seconds that an interrupted cell gets to end before the notebook goes on without it.
STOP_TIMEOUT = 2.0


class CellTimeoutError(ShoalError, TimeoutError):
    """The cell took longer than ``--timeout`` allows and was stopped. ``timeout`` is in seconds."""

    timeout: float

    def _render_traceback_(self) -> list[str]:
        return [f"TimeoutError: {self}"]


@dataclasses.dataclass(frozen=True)
class RunOptions:
    """How to run a cell; ``None`` and 0 leave a thing to the cluster."""

    tag: str
    name: str
    num_cpus: float | None = None
    memory: int | None = None
    timeout: float | None = None

    def for_task(self) -> dict[str, Any]:
        """Return the options of the cell's task. A cell has side effects: it never runs twice unasked."""
        given = {"num_cpus": self.num_cpus, "memory": self.memory}
        chosen = {name: value for name, value in given.items() if value is not None}
        return {**chosen, "name": self.name, "cell": self.tag, "max_retries": 0}


def run_remotely(spec: CellSpec, package: Package, options: RunOptions, shell: InteractiveShell) -> CellResult:
    """Run a prepared cell in the cluster and wait for it.

    Raises
    ------
    KeyboardInterrupt
        The stop button: the cell has been told to stop, and was given :data:`STOP_TIMEOUT` seconds to do so.
    CellTimeoutError
        It took longer than ``options.timeout``, and was stopped.
    Exception
        The cell's own, with the cell's own frames.
    """
    ref = shoal.remote(run_cell).options(**options.for_task()).remote(spec, package)
    try:
        ready, _ = shoal.wait([ref], timeout=options.timeout)
    except KeyboardInterrupt as interrupt:
        raise _interrupted(stop(ref, options.name), interrupt) from None
    if not ready:
        said = stop(ref, options.name)
        message = f"the cell did not end within {options.timeout:g} s; {said}"
        raise CellTimeoutError(message, timeout=options.timeout)
    try:
        result: CellResult = shoal.get(ref)
    except Exception as error:
        show_only(error, spec.source.filename, shell)
        raise
    return result


def stop(ref: shoal.ObjectRef, name: str) -> str:
    """Cancel a cell's task, wait for its end, and say in one line what came of it."""
    begin = time.monotonic()
    shoal.cancel(ref)
    try:
        ready, _ = shoal.wait([ref], timeout=STOP_TIMEOUT)
    except KeyboardInterrupt:
        ready = []
    if ready:
        return f"stopped `{name}` in {time.monotonic() - begin:.1f} s."
    return f"asked `{name}` to stop, but it is still in code that does not listen."


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
