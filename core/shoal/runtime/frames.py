"""Tracebacks that travel: real frame objects again on the other side.

What travels of a frame is where its code is: file, function, first line, line. What is rebuilt is a frame whose
code knows all of that, so that IPython prints the lines around the one that failed, and ``pdb`` can walk and list.
Its variables are those that have travelled beside it (see ``captured_locals``), or none.
"""

from __future__ import annotations

import ast
from collections.abc import Sequence
from types import FrameType, TracebackType

from shoal.runtime.travelled_variables import EMPTY, NOTHING, Globals, Locals, Scope, Values

#: File, name, qualified name, first line, line, module.
WireFrame = tuple[str, str, str, int, int, str]


def dump(traceback: TracebackType | None) -> list[WireFrame]:
    """Return what travels of a traceback, outermost frame first."""
    frames = []
    while traceback is not None:
        code = traceback.tb_frame.f_code
        module = traceback.tb_frame.f_globals.get("__name__")
        frames.append(
            (
                code.co_filename,
                code.co_name,
                code.co_qualname,
                code.co_firstlineno,
                traceback.tb_lineno or code.co_firstlineno,
                module if isinstance(module, str) else "",
            )
        )
        traceback = traceback.tb_next
    return frames


def load(frames: list[WireFrame], scopes: Sequence[Scope] = (), values: Values = NOTHING) -> TracebackType | None:
    """Rebuild a traceback; *scopes* has the variables of each frame, if they have travelled with *values*."""
    following: TracebackType | None = None
    for number, wire in reversed(list(enumerate(frames))):
        frame = _frame(wire, scopes[number] if number < len(scopes) else EMPTY, values)
        following = TracebackType(following, frame, frame.f_lasti, wire[4])
    return following


def has_travelled(frame: FrameType) -> bool:
    """Whether a frame is one that was rebuilt here."""
    return type(frame.f_globals) is Globals


def has_variables(frame: FrameType) -> bool:
    """Whether a frame is one that was rebuilt here, and its variables are known."""
    return has_travelled(frame) and len(frame.f_locals) > 0


def task_of(frame: FrameType) -> str:
    """Return the id of the task that a rebuilt frame comes from; "" if nobody knows."""
    return frame.f_globals.task_id if type(frame.f_globals) is Globals else ""


def _frame(wire: WireFrame, scope: Scope, values: Values) -> FrameType:
    """Make a frame by raising in code that looks like the original: the only way Python has.

    It is code of a module, whose ``f_locals`` is the very mapping that it is given.
    """
    filename, name, qualname, first, line, module = wire
    stop = ast.Raise(ast.Name("__stop", ast.Load()))
    # The lines of a code object count from its first one.
    ast.increment_lineno(
        ast.fix_missing_locations(ast.copy_location(stop, ast.Pass(lineno=0, col_offset=0))), line - first + 1
    )
    code = compile(ast.Module([stop], []), filename, "exec")
    code = code.replace(co_firstlineno=first, co_name=name, co_qualname=qualname)
    implicit = {"__name__": module, "__file__": filename, "__stop": _Stop}
    outer = Globals(implicit, values, {**scope.outer, **scope.local} if name == "<module>" else scope.outer)
    try:
        exec(code, outer, Locals(values, scope))
    except _Stop as error:
        assert error.__traceback__ is not None and error.__traceback__.tb_next is not None
        frame = error.__traceback__.tb_next.tb_frame
    del frame.f_globals["__stop"]
    return frame


class _Stop(Exception):
    """Raised in a frame to get hold of it."""
