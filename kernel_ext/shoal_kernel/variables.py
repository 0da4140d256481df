"""The notebook's variables, and what IPython keeps of its own accord: for ``shoal.memory``."""

from __future__ import annotations

import types
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from shoal.notebook import Variable, forget_last_errors, last_errors, traceback_variables

if TYPE_CHECKING:
    from IPython.core.interactiveshell import InteractiveShell

#: Names under which the last outputs can be had.
LAST_OUTPUTS = ("_", "__", "___")


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

    def scopes(self) -> list[dict[str, Any]]:
        """Return the user's namespace, and the builtins, to which IPython adds the last output."""
        return [self._shell.user_ns, self._shell.user_global_ns, vars(__import__("builtins"))]

    def forget_history(self) -> None:
        """As ``%reset -f out`` does, also where IPython keeps outputs a second time, and the last error with them."""
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
