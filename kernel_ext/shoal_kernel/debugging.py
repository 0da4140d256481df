"""Looking into a remote error: a post-mortem on the frames it has travelled with, or the same work once more, here.

The last remote error is kept for that: its frames, with variables of a mebibyte at most, and what its task or cell was
called with, if that is not much; not the frames of the notebook, which would keep the notebook's own values alive.
"""

from __future__ import annotations

import builtins
import contextlib
import dataclasses
import sys
import traceback as tracebacks
from collections.abc import Callable, Iterator
from types import TracebackType
from typing import TYPE_CHECKING, Any

from IPython.core.error import UsageError
from IPython.core.getipython import get_ipython

import shoal
from shoal.runtime import failed_tasks, frames, session
from shoal_kernel.cell import execute
from shoal_kernel.packing import FromStore, Package, unpack
from shoal_kernel.tracebacks import chain, hide_internals, linked, steps, trim

if TYPE_CHECKING:
    from shoal_kernel.tasks import CellTasks

#: Failed tasks whose arguments are kept.
KEPT_TASKS = 16
#: Bytes that a cell has read and that are kept with its error.
MAX_KEPT = 64 << 20


@dataclasses.dataclass(frozen=True)
class Failure:
    """A remote error."""

    #: What a traceback ends with.
    headline: str
    #: The remote frames.
    traceback: TracebackType
    #: The part of a cell that failed, if a cell did: its tasks, and which of them.
    cell: tuple[CellTasks, int] | None = None

    @property
    def task_id(self) -> str:
        return frames.task_of(self.traceback.tb_frame)


_last: Failure | None = None


def start() -> None:
    """Have arguments of failing tasks kept."""
    failed_tasks.keep(KEPT_TASKS)


def stop() -> None:
    """Keep nothing any more."""
    release()
    failed_tasks.keep(0)


def release() -> None:
    """Forget the last error, and what failed tasks were called with."""
    global _last
    _last = None
    failed_tasks.release()


def remember(error: BaseException) -> None:
    """Keep a remote error as the last one; others are passed over."""
    global _last
    found = _failure(error)
    if found is not None and (_last is None or _last.traceback.tb_frame is not found.traceback.tb_frame):
        _last = found


def remember_cell(error: BaseException, tasks: CellTasks, number: int) -> None:
    """Keep the error of a cell's part, and what it was called with, as the last one."""
    global _last
    found = _failure(error)
    if found is not None:
        few = not isinstance(tasks.package, Package) or _nbytes(tasks.package) <= MAX_KEPT
        _last = dataclasses.replace(found, cell=(tasks, number) if few else None)


def _nbytes(package: Package) -> int:
    here = [part for part in (package.stream, *package.buffers) if not isinstance(part, FromStore)]
    return sum(memoryview(part).nbytes for part in here) + sum(map(_nbytes, package.apart))


def _failure(error: BaseException) -> Failure | None:
    for link in linked(error):
        remote = [step for step in steps(link.__traceback__) if frames.has_travelled(step.tb_frame)]
        traceback = chain(remote)
        if traceback is not None:
            return Failure("".join(tracebacks.format_exception_only(link)).strip(), traceback)
    return None


# -- post-mortem ---------------------------------------------------------------------------------------------------


def post_mortem(error: BaseException | None = None) -> None:
    """Open the notebook's debugger on the remote frames of *error*, by default of the last remote error.

    Raises
    ------
    UsageError
        There is none, or the front end cannot ask for input.
    """
    failure = _chosen(error)
    shell = _shell_that_asks()
    print(failure.headline)
    if not any(frames.has_variables(step.tb_frame) for step in steps(failure.traceback)):
        print("Its local variables did not travel: `SHOAL_ERROR_LOCALS` is 0 there, or its process fails very often.")
    _open(shell, failure.traceback)


def _chosen(error: BaseException | None) -> Failure:
    failure = _last if error is None else _failure(error)
    if failure is None:
        what = "There has been no remote error" if error is None else f"{type(error).__name__} is not a remote error"
        raise UsageError(f"{what}, so there is nothing to look into.")
    return failure


def _shell_that_asks() -> Any:
    """Return the shell, if its front end can ask for a debugger's commands: else the debugger would end at once."""
    shell: Any = get_ipython()
    kernel = getattr(shell, "kernel", None)
    if shell is None or (kernel is not None and not kernel._allow_stdin):
        raise UsageError(
            "A debugger asks for its commands, and this front end does not answer questions (nbconvert, papermill and "
            "nbclient do not). In JupyterLab, or a console, it can be used."
        )
    return shell


def _open(shell: Any, traceback: TracebackType) -> None:
    debugger = shell.debugger_cls()
    with _plain_display():
        debugger.reset()
        debugger.botframe = traceback.tb_frame
        debugger.interaction(None, traceback)


@contextlib.contextmanager
def _plain_display() -> Iterator[None]:
    """The debugger's values are printed where its prompt is; they are no outputs of a cell."""
    before, sys.displayhook = sys.displayhook, sys.__displayhook__
    try:
        yield
    finally:
        sys.displayhook = before


# -- once more, here -----------------------------------------------------------------------------------------------


def rerun(error: BaseException | None = None) -> Any:
    """Run what failed again in the notebook's process, and open the debugger where it fails.

    The code, the variables and the arguments are those that it had there; what it finds in its surroundings (files,
    devices, other packages) is what there is here. ``breakpoint()`` in it works.

    Returns
    -------
    value
        If it does not fail here: what it returns.

    Raises
    ------
    UsageError
        There has been no remote error, what it was called with is not there any more, or the front end cannot ask for
        input.
    """
    failure = _chosen(error)
    shell = _shell_that_asks()
    call, filename = _again(failure)
    print(f"running it again here; it failed with {failure.headline.splitlines()[-1]}")
    try:
        value = call()
    except Exception as again:  # boundary: it is the user's code
        again.__traceback__ = trim(again.__traceback__, filename) or again.__traceback__
        hide_internals(again)
        print("".join(tracebacks.format_exception_only(again)).strip())
        if again.__traceback__ is not None:
            _open(shell, again.__traceback__)
        return None
    print("It did not fail here.")
    return value


def _again(failure: Failure) -> tuple[Callable[[], Any], str]:
    """Return what runs it again, and the file in which the user's code begins."""
    if failure.cell is not None:
        tasks, number = failure.cell
        return (lambda: _run_cell(tasks, number)), tasks.spec.source.filename
    work = failed_tasks.find(failure.task_id)
    owner = session.find_owner()
    if work is None or owner is None:
        raise UsageError(
            "What it was called with is not there any more: the last failed tasks and cells of this session are kept, "
            "unless they are large. `%remote debug` shows its frames."
        )
    why = failed_tasks.why_not_here(work)
    if why:
        raise UsageError(f"`{work.target.name}` cannot be run again here: {why}. `%remote debug` shows its frames.")
    function, args, kwargs = failed_tasks.call_of(work, owner)
    return (lambda: function(*args, **kwargs)), function.__code__.co_filename if hasattr(function, "__code__") else ""


def _run_cell(tasks: CellTasks, number: int) -> Any:
    package: Package = shoal.get(tasks.package) if isinstance(tasks.package, shoal.ObjectRef) else tasks.package
    spec = tasks.spec
    namespace: dict[str, Any] = {"__name__": "__main__", "__builtins__": builtins}
    spec.source.remember()
    for part in (package.filled(shoal.get(list(tasks.stored))), tasks.parts[number].own):
        for name, failure in unpack(part, namespace).items() if part is not None else ():
            failure.add_note(f"while unpacking the cell's variable `{name}`")
            raise failure
    return execute(spec.source, spec.flags, namespace)
