"""Tracebacks from elsewhere, made fit for IPython and debuggers.

A traceback that has travelled knows files, names and lines, but its code objects no longer know where their functions
begin. IPython needs that to print the lines around the one that failed, ``pdb`` to list a function. The source tells.
"""

from __future__ import annotations

import ast
import dataclasses
import linecache
from collections.abc import Iterator
from types import FrameType, TracebackType


@dataclasses.dataclass(frozen=True)
class _Block:
    """A function or class in a source file; the outermost is the module."""

    name: str
    qualname: str
    first_line: int
    last_line: int


def trim(traceback: TracebackType | None, filename: str) -> TracebackType | None:
    """Cut what comes before the first frame of *filename*; None if there is no such frame."""
    while traceback is not None and traceback.tb_frame.f_code.co_filename != filename:
        traceback = traceback.tb_next
    return traceback


def complete(traceback: TracebackType | None) -> TracebackType | None:
    """Return the same traceback with frames whose code knows its first line and its qualified name."""
    links: list[TracebackType] = []
    while traceback is not None:
        links.append(traceback)
        traceback = traceback.tb_next
    blocks: dict[str, list[_Block]] = {}
    following: TracebackType | None = None
    for link in reversed(links):
        filename = link.tb_frame.f_code.co_filename
        if filename not in blocks:
            blocks[filename] = list(_blocks_of(filename))
        frame = _frame_like(link.tb_frame, link.tb_lineno, blocks[filename])
        following = TracebackType(following, frame, frame.f_lasti, link.tb_lineno)
    return following


def _blocks_of(filename: str) -> Iterator[_Block]:
    source = "".join(linecache.getlines(filename))
    try:
        tree = ast.parse(source)
    except (SyntaxError, ValueError):
        return
    yield from _nested_blocks(tree, "")


def _nested_blocks(node: ast.AST, prefix: str) -> Iterator[_Block]:
    for child in ast.iter_child_nodes(node):
        if isinstance(child, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)):
            first = min([child.lineno, *(decorator.lineno for decorator in child.decorator_list)])
            yield _Block(child.name, prefix + child.name, first, child.end_lineno or child.lineno)
            inner = prefix + child.name + ("." if isinstance(child, ast.ClassDef) else ".<locals>.")
            yield from _nested_blocks(child, inner)
        else:
            yield from _nested_blocks(child, prefix)


def _frame_like(frame: FrameType, line: int, blocks: list[_Block]) -> FrameType:
    """Return a frame with the file, the name, the line and the variables of *frame*."""
    name = frame.f_code.co_name
    around = [block for block in blocks if block.name == name and block.first_line <= line <= block.last_line]
    if around:
        first, qualname = around[-1].first_line, around[-1].qualname
    else:
        first, qualname = (1 if name == "<module>" else line), name
    stop = ast.Raise(ast.Name("__stop", ast.Load()))
    # The lines of a code object count from its first one.
    ast.increment_lineno(
        ast.fix_missing_locations(ast.copy_location(stop, ast.Pass(lineno=0, col_offset=0))), line - first + 1
    )
    code = compile(ast.Module([stop], []), frame.f_code.co_filename, "exec")
    code = code.replace(co_firstlineno=first, co_name=name, co_qualname=qualname)
    variables = dict(frame.f_locals)
    try:
        exec(code, {**frame.f_globals, "__stop": _Stop}, variables)
    except _Stop as error:
        assert error.__traceback__ is not None and error.__traceback__.tb_next is not None
        made = error.__traceback__.tb_next.tb_frame
    del made.f_globals["__stop"]
    return made


class _Stop(Exception):
    """Raised in a frame to get hold of it."""
