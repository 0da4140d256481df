"""Cells that run remotely because their metadata says so, without magic text.

A front end that sends a cell's metadata with it (JupyterLab does; ipykernel hands it on from 7.3, IPython from 9.16)
can place a cell: ``{"shoal": {"remote": "--num-cpus 2"}}`` is as good as ``%%remote --num-cpus 2`` above it. Runners
that send none (nbclient, nbval, papermill) run the cell in the notebook: the magic is the portable form.
"""

from __future__ import annotations

import ast
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from IPython.core.interactiveshell import InteractiveShell

#: The key in a cell's metadata, and in what is there.
KEY, REMOTE = "shoal", "remote"


class Placing(ast.NodeTransformer):
    """Puts a call of the magic in the place of a cell that its metadata sends elsewhere."""

    def __init__(self, shell: InteractiveShell) -> None:
        self._shell: Any = shell
        #: The magic's line, for the cell that runs now; None to let it run here.
        self._line: str | None = None
        self._raw_cell = ""

    def start(self) -> None:
        self._shell.events.register("pre_run_cell", self._note)
        self._shell.ast_transformers.append(self)

    def stop(self) -> None:
        self._shell.ast_transformers.remove(self)
        self._shell.events.unregister("pre_run_cell", self._note)

    def _note(self, info: Any) -> None:
        metadata = getattr(info, "cell_meta", None) or {}
        about = metadata.get(KEY) if isinstance(metadata, dict) else None
        line = about.get(REMOTE) if isinstance(about, dict) else None
        self._raw_cell = info.raw_cell or ""
        has_magic = self._raw_cell.lstrip().startswith("%%")
        self._line = line if isinstance(line, str) and not has_magic else None

    def visit(self, node: ast.AST) -> ast.AST:
        """Called by IPython with what it is about to run: the cell as a module."""
        if self._line is None or not isinstance(node, ast.Module) or not node.body:
            return node
        line, self._line = self._line, None  # code that the cell runs in turn is not placed
        shell = ast.Call(ast.Name("get_ipython", ast.Load()), [], [])
        magic = ast.Attribute(shell, "run_cell_magic", ast.Load())
        call = ast.Call(magic, [ast.Constant("remote"), ast.Constant(line), ast.Constant(self._raw_cell)], [])
        statement = ast.copy_location(ast.Expr(call), node.body[0])
        return ast.fix_missing_locations(ast.Module([statement], []))
