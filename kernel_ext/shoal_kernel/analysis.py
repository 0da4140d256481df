"""What a cell reads from the notebook and what it writes to it, found without running it.

The analysis errs on the safe side in both directions: a name that *may* be read before the cell has assigned
it is shipped; a name is reported as undefined only if reading it is certain to come first and nothing else could
have made it. The rules of :mod:`shoal_kernel.scopes` say which scope a name belongs to, :mod:`shoal_kernel.visiting`
follows the order of evaluation.
"""

from __future__ import annotations
import __future__

import ast
import dataclasses
import sys
from collections.abc import Container, Sequence

from shoal_kernel.visiting import Read, Visit

#: Set where annotations are not evaluated: by request, or (all bits) from Python 3.14 on.
_LAZY = -1 if sys.version_info >= (3, 14) else __future__.annotations.compiler_flag


@dataclasses.dataclass(frozen=True)
class CellAnalysis:
    """What :func:`analyse` found."""

    tree: ast.Module
    #: Names that may come from the notebook, in the order of their first reading; builtins among them.
    reads: dict[str, Read]
    #: Names the cell may bind at its top level, or from its functions with ``global``.
    writes: frozenset[str]
    #: Names that come back even if they hold the object they held before: assigned whatever happens, or changed
    #: by an assignment to a part of them (``x += …``, ``x[i] = …``, ``x.a = …``).
    rebinds: frozenset[str]
    #: Modules of ``from … import *``.
    star_imports: tuple[str, ...]
    #: Whether names may appear that no analysis can see (star imports, ``globals()``, ``exec`` …).
    is_dynamic: bool
    #: Whether the last statement is an expression, whose value is the cell's.
    has_value: bool
    #: Whether a trailing ``;`` asks not to show that value.
    is_silenced: bool

    def undefined(self, known: Container[str]) -> list[Read]:
        """Return the required names that are not in *known* (the notebook's names and the builtins)."""
        if self.is_dynamic:
            return []
        return [read for read in self.reads.values() if read.is_required and read.name not in known]


def analyse(source: str, filename: str = "<cell>", flags: int = 0) -> CellAnalysis:
    """Analyse a cell.

    Parameters
    ----------
    source
        Plain Python, top-level ``await`` allowed.
    filename
        Appears in a syntax error.
    flags
        Compiler flags of ``from __future__`` imports made earlier.

    Raises
    ------
    SyntaxError
        The source is not Python, or the compiler refuses it (``return`` at top level).
    """
    flags |= ast.PyCF_ALLOW_TOP_LEVEL_AWAIT
    tree = compile(source, filename, "exec", flags | ast.PyCF_ONLY_AST, dont_inherit=True)
    assert isinstance(tree, ast.Module)
    compile(source, filename, "exec", flags, dont_inherit=True)
    visit = Visit(lazy_annotations=bool(flags & _LAZY) or _has_future_annotations(tree.body))
    visit.block(tree.body)
    has_value = bool(tree.body) and isinstance(tree.body[-1], ast.Expr)
    return CellAnalysis(
        tree=tree,
        reads=visit.settled_reads(),
        writes=frozenset(visit.maybe),
        rebinds=frozenset(visit.rebinds),
        star_imports=tuple(visit.star_imports),
        is_dynamic=visit.is_dynamic,
        has_value=has_value,
        is_silenced=has_value and _ends_with_semicolon(source, tree.body[-1]),
    )


def _has_future_annotations(body: Sequence[ast.stmt]) -> bool:
    futures = [node for node in body if isinstance(node, ast.ImportFrom) and node.module == "__future__"]
    return any(alias.name == "annotations" for node in futures for alias in node.names)


def _ends_with_semicolon(source: str, last: ast.stmt) -> bool:
    assert last.end_lineno is not None and last.end_col_offset is not None
    # The parser's lines end at \n, \r\n and \r only, unlike those of str.splitlines.
    line = source.replace("\r\n", "\n").replace("\r", "\n").split("\n")[last.end_lineno - 1]
    return line.encode()[last.end_col_offset :].lstrip().startswith(b";")
