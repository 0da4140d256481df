"""Tracebacks that travel: real frame objects again on the other side.

What travels of a frame is where its code is: file, function, first line, line. What is rebuilt is a frame whose
code knows all of that, so that IPython prints the lines around the one that failed, and ``pdb`` can walk and list.
Variables stay behind.
"""

from __future__ import annotations

import ast
from types import FrameType, TracebackType

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


def load(frames: list[WireFrame]) -> TracebackType | None:
    """Rebuild a traceback."""
    following: TracebackType | None = None
    for wire in reversed(frames):
        frame = _frame(wire)
        following = TracebackType(following, frame, frame.f_lasti, wire[4])
    return following


def _frame(wire: WireFrame) -> FrameType:
    """Make a frame by raising in code that looks like the original: the only way Python has."""
    filename, name, qualname, first, line, module = wire
    stop = ast.Raise(ast.Name("__stop", ast.Load()))
    # The lines of a code object count from its first one.
    ast.increment_lineno(
        ast.fix_missing_locations(ast.copy_location(stop, ast.Pass(lineno=0, col_offset=0))), line - first + 1
    )
    code = compile(ast.Module([stop], []), filename, "exec")
    code = code.replace(co_firstlineno=first, co_name=name, co_qualname=qualname)
    try:
        exec(code, {"__name__": module, "__file__": filename, "__stop": _Stop}, {})
    except _Stop as error:
        assert error.__traceback__ is not None and error.__traceback__.tb_next is not None
        frame = error.__traceback__.tb_next.tb_frame
    del frame.f_globals["__stop"]
    return frame


class _Stop(Exception):
    """Raised in a frame to get hold of it."""
