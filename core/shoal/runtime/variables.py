"""Which variables this process has: a program's, or a notebook's with what IPython keeps of its own accord."""

from __future__ import annotations

import sys
import types
from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

from shoal.runtime import failed_tasks
from shoal.runtime.frames import has_travelled

if TYPE_CHECKING:
    from IPython.core.interactiveshell import InteractiveShell

#: Modules whose frames are in every traceback of a notebook.
_SHELLS = ("IPython.", "ipykernel.")
#: Names under which the last outputs can be had.
LAST_OUTPUTS = ("_", "__", "___")


class Variable(NamedTuple):
    """Something by which a value can be reached."""

    #: In words: "`x`", "`Out[3]`", "the last error's traceback (`x` in `f`)".
    name: str
    value: object
    #: Kept by the notebook of its own accord: to forget it costs the user nothing that they asked for.
    is_history: bool = False


class Namespace(Protocol):
    """Where a person's variables are."""

    def variables(self) -> Iterable[Variable]:
        """Return them all."""

    def scopes(self) -> Iterable[dict[str, Any]]:
        """Return the dictionaries that functions refer to as their globals: not what a function holds."""

    def forget_history(self) -> None:
        """Let go of what is kept for no more than being shown again: outputs, tracebacks."""


class MainNamespace:
    """The variables of a program."""

    def variables(self) -> Iterator[Variable]:
        for name, value in list(vars(sys.modules["__main__"]).items()):
            if not name.startswith("__"):
                yield Variable(f"`{name}`", value)
        yield from traceback_variables(last_errors(), self.scopes())

    def scopes(self) -> list[dict[str, Any]]:
        return [vars(sys.modules["__main__"])]

    def forget_history(self) -> None:
        forget_last_errors()


class NotebookNamespace:
    """Variables of the user, outputs, and the last error."""

    def __init__(self, shell: InteractiveShell) -> None:
        self._shell = shell

    def variables(self) -> Iterator[Variable]:
        """Give variables of the user, then outputs by number, then what only the last error keeps."""
        outputs = self._outputs()
        shown = {id(value) for value in outputs.values()}
        names = self._shell.user_ns
        for name, value in list(names.items()):
            if self._is_history_name(name):
                if name in LAST_OUTPUTS and value is not None and id(value) not in shown:
                    yield Variable(f"`{name}`", value, is_history=True)
            elif not self._is_hidden(name, value):
                yield Variable(f"`{name}`", value)
        for number, value in list(outputs.items()):
            yield Variable(f"`Out[{number}]`", value, is_history=True)
        yield from traceback_variables(self._tracebacks(), self.scopes())
        yield from _kept()

    def scopes(self) -> list[dict[str, Any]]:
        """Return the user's namespace, and the builtins, to which IPython adds the last output."""
        return [self._shell.user_ns, self._shell.user_global_ns, vars(__import__("builtins"))]

    def forget_history(self) -> None:
        """As ``%reset -f out`` does, also where IPython keeps outputs a second time, and the last error with them."""
        for keeper in _keepers:
            keeper.forget()
        shell: Any = self._shell
        for number in list(self._outputs()):
            for names in (shell.user_ns, shell.user_ns_hidden):
                names.pop(f"_{number}", None)
        self._outputs().clear()
        hook = shell.displayhook
        for name in LAST_OUTPUTS:
            if id(shell.user_ns.get(name)) == id(getattr(hook, name, None)):
                shell.user_ns[name] = ""
            setattr(hook, name, "")
            if name in shell.user_ns_hidden:
                shell.user_ns_hidden[name] = ""
        shell.last_execution_result = None
        for handler in (shell.InteractiveTB, shell.SyntaxTB):
            handler.tb = None
        for name in ("_ipython_exc", "_last_traceback"):
            shell.user_ns.pop(name, None)
        forget_last_errors()
        failed_tasks.release()

    def _outputs(self) -> dict[int, Any]:
        found = self._shell.user_ns.get("_oh")
        return found if isinstance(found, dict) else {}

    def _tracebacks(self) -> list[types.TracebackType]:
        shell: Any = self._shell
        kept = getattr(shell.InteractiveTB, "tb", None)
        return [*last_errors(), *([kept] if isinstance(kept, types.TracebackType) else [])]

    @staticmethod
    def _is_history_name(name: str) -> bool:
        return name in LAST_OUTPUTS or name in ("_oh", "Out") or (name[:1] == "_" and name[1:].isdigit())

    def _is_hidden(self, name: str, value: object) -> bool:
        """Whether IPython, not the user, has put it there."""
        hidden = self._shell.user_ns_hidden
        return name.startswith("__") or (name in hidden and hidden[name] is value) or name in ("_ih", "In", "_dh")


class Keeper(NamedTuple):
    """Something that keeps values for the notebook without a variable of the user's."""

    #: In words: "variables of remote cells".
    name: str
    values: Callable[[], Iterable[object]]
    #: Lets all of them go.
    forget: Callable[[], None]


_keepers: list[Keeper] = []


def add_keeper(keeper: Keeper) -> None:
    """Have what *keeper* keeps named by :func:`shoal.memory`, and let go with the history."""
    _keepers.append(keeper)


def remove_keeper(keeper: Keeper) -> None:
    _keepers.remove(keeper)


def _kept() -> Iterator[Variable]:
    for keeper in _keepers:
        yield Variable(keeper.name, list(keeper.values()), is_history=True)


_chosen: Namespace | None = None


def set_namespace(namespace: Namespace | None) -> None:
    """Have *namespace* say which variables there are; None leaves it to the process."""
    global _chosen
    _chosen = namespace


def get_namespace() -> Namespace:
    """Return the variables of the notebook, if this process has one, else those of the program."""
    if _chosen is not None:
        return _chosen
    shell = sys.modules["IPython"].get_ipython() if "IPython" in sys.modules else None
    return MainNamespace() if shell is None else NotebookNamespace(shell)


def last_errors() -> list[types.TracebackType]:
    """Return the tracebacks that Python keeps for debuggers."""
    found = [getattr(sys, "last_traceback", None), getattr(getattr(sys, "last_exc", None), "__traceback__", None)]
    return [traceback for traceback in found if isinstance(traceback, types.TracebackType)]


def forget_last_errors() -> None:
    for name in ("last_type", "last_value", "last_traceback", "last_exc"):
        if hasattr(sys, name):
            delattr(sys, name)


def traceback_variables(
    tracebacks: Iterable[types.TracebackType], scopes: Iterable[dict[str, Any]]
) -> Iterator[Variable]:
    """Give the local variables of all frames that these tracebacks keep."""
    skipped = {id(scope) for scope in scopes}
    seen = set()
    for traceback in tracebacks:
        step: types.TracebackType | None = traceback
        while step is not None:
            frame = step.tb_frame
            step = step.tb_next
            if has_travelled(frame):
                continue  # what it has are copies, made when somebody looks
            if id(frame) in seen or frame.f_globals is frame.f_locals or id(frame.f_locals) in skipped:
                continue
            if str(frame.f_globals.get("__name__")).startswith(_SHELLS):
                continue  # they know everything, and hold it anyway
            seen.add(id(frame))
            for name, value in list(frame.f_locals.items()):
                where = f"the traceback of the last error (`{name}` in `{frame.f_code.co_name}`)"
                yield Variable(where, value, is_history=True)
