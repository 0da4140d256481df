"""Errors about a cell that are raised before anything of it is sent, shown as Python shows a syntax error."""

from __future__ import annotations

from shoal.errors import SerializationError, ShoalError


class CellError(ShoalError):
    """A cell that cannot be sent. ``label`` names the cell, ``line`` and ``column`` (from 1 and 0) the place in it."""

    label: str
    line: int
    column: int
    #: The line at fault, as the user wrote it.
    text: str

    def _render_traceback_(self) -> list[str]:
        """What IPython shows: the place, and one line that says what is wrong."""
        stripped = self.text.lstrip()
        caret = " " * max(0, self.column - (len(self.text) - len(stripped))) + "^"
        place = [f"  {self.label}, line {self.line}", f"    {stripped.rstrip()}", f"    {caret}"]
        return [*place, f"{self.shown_name}: {self}"]

    @property
    def shown_name(self) -> str:
        """What Python would call the error."""
        return "SyntaxError"


class CellSyntaxError(CellError, ValueError):
    """The cell is not Python, or uses what only the notebook itself can do (``!shell``, ``%magic``).

    Not a ``SyntaxError``: IPython would show its own call stack with that one.
    """


class UndefinedNameError(CellError, NameError):
    """The cell reads a name that exists neither in the notebook nor earlier in the cell; ``missing`` lists all such."""

    missing: tuple[str, ...]

    @property
    def shown_name(self) -> str:
        return "NameError"


class UnsendableVariableError(CellError, SerializationError):
    """The cell reads a variable that does not pickle. ``variable`` names it, ``path`` leads to the part at fault."""

    variable: str

    @property
    def shown_name(self) -> str:
        return "SerializationError"
