"""From a cell's text to what is sent: every check that can be made here is made before anything leaves."""

from __future__ import annotations
import __future__

import builtins
import re
from collections import ChainMap
from collections.abc import Container, Mapping, MutableMapping
from typing import Any

from IPython.core.error import UsageError

from shoal.model.suggest import did_you_mean
from shoal_kernel.analysis import CellAnalysis, analyse
from shoal_kernel.cell import CellSource, CellSpec, explain_loss
from shoal_kernel.errors import CellSyntaxError, UndefinedNameError, UnsendableVariableError
from shoal_kernel.module_files import user_folders
from shoal_kernel.packing import Package, UnpicklableVariable, pack
from shoal_kernel.shipping import LARGE
from shoal_kernel.visiting import Read

#: What a line starts or ends with, or has after an assignment, if it is IPython's and not Python's.
_NOT_PYTHON = re.compile(r"^\s*(?P<mark>%%?|!!?|\?)|^[^'\"#=]*=\s*(?P<assigned>[%!])\s*\w|(?P<help>\?)\s*$")
#: Names IPython adds to the namespace or replaces; code in an executor has its own, or none.
_OWN_NAMES = frozenset({"display", "exit", "get_ipython", "open", "quit"})
_FUTURE_FLAGS = sum({getattr(__future__, name).compiler_flag for name in __future__.all_feature_names})


def prepare(
    source: CellSource,
    label: str,
    user_ns: dict[str, Any],
    local_ns: Mapping[str, Any] | None = None,
    flags: int = 0,
    there: Container[str] = frozenset(),
) -> tuple[CellSpec, Package]:
    """Check a cell and pack what it reads.

    Parameters
    ----------
    label
        What errors call the cell.
    user_ns
        The notebook's variables.
    local_ns
        Variables of the function that the magic was used in, which come first.
    flags
        The notebook compiler's flags; those of ``from __future__`` are kept.
    there
        Names that the cell finds where it runs; they are not sent.

    Raises
    ------
    UsageError
        There is nothing to run.
    CellSyntaxError, UndefinedNameError, UnsendableVariableError
        See there; each leads to the line at fault.
    """
    flags &= _FUTURE_FLAGS
    analysis = _parse(source, label, flags)
    if not analysis.tree.body:
        raise UsageError("`%%remote` needs Python below its first line, and there is none; nothing was sent.")
    variables: MutableMapping[str, Any] = user_ns if local_ns is None else ChainMap({}, dict(local_ns), user_ns)
    _check_names(analysis, variables, there, source, label)
    try:
        package = pack(
            analysis.reads,
            variables,
            user_ns,
            skip=lambda name, value: name in there or _belongs_to_ipython(name, value),
            apart=LARGE,
        )
    except UnpicklableVariable as error:
        raise _unsendable(error, analysis, source, label) from None
    spec = CellSpec(
        source=source,
        rebinds=analysis.rebinds,
        wants_value=analysis.has_value and not analysis.is_silenced,
        flags=flags,
        paths=user_folders(),
    )
    return spec, package


def _parse(source: CellSource, label: str, flags: int) -> CellAnalysis:
    try:
        return analyse(source.code, source.filename, flags)
    except SyntaxError as error:
        line, column = error.lineno or 1, max(0, (error.offset or 1) - 1)
        text = _line(source, line)
        found = _NOT_PYTHON.search(text)
        if found is None:
            message = f"{error.msg}; nothing was sent."
        elif found["mark"] == "%%":
            message = f"a cell has one `%%remote`: put `{text.strip().split()[0]}` above it; nothing was sent."
        else:
            message = f"`{text.strip()}` is for the notebook, a remote cell is plain Python; nothing was sent."
        raise CellSyntaxError(message, label=label, line=line, column=column, text=text) from None


def _check_names(
    analysis: CellAnalysis, variables: Mapping[str, Any], there: Container[str], source: CellSource, label: str
) -> None:
    shell_read = analysis.reads.get("get_ipython")
    if shell_read is not None and shell_read.is_required:
        message = "`get_ipython()` reaches the notebook, which a remote cell cannot; nothing was sent."
        raise CellSyntaxError(message, **_place(shell_read, source, label))
    known = ChainMap(dict(variables), vars(builtins))
    missing = [read for read in analysis.undefined(known) if read.name not in there]
    if missing:
        first = missing[0]
        others = "".join(f", nor is `{read.name}` (line {read.line})" for read in missing[1:])
        hint = did_you_mean(first.name, [*variables, *vars(builtins)])
        raise UndefinedNameError(
            f"`{first.name}` is not defined in the notebook or earlier in this cell{others}; nothing was sent.{hint}",
            missing=tuple(read.name for read in missing),
            **_place(first, source, label),
        )


def _unsendable(
    error: UnpicklableVariable, analysis: CellAnalysis, source: CellSource, label: str
) -> UnsendableVariableError:
    loss = explain_loss(error, error.name)
    where = "" if loss.path == loss.name else f": `{loss.path}`"
    via = f" (read by `{error.reader}`)" if error.reader else ""
    # A variable that only functions read is shown where the cell names the first of them.
    read = analysis.reads.get(error.name) or analysis.reads.get(error.reader) or next(iter(analysis.reads.values()))
    return UnsendableVariableError(
        f"variable `{loss.name}`{via} cannot be sent{where}: {loss.reason}. Nothing was sent; make it in the cell.",
        variable=loss.name,
        path=loss.path,
        **_place(read, source, label),
    )


def _place(read: Read, source: CellSource, label: str) -> dict[str, Any]:
    text = _line(source, read.line)
    column = len(text.encode()[: read.column].decode(errors="replace"))
    return {"label": label, "line": read.line, "column": column, "text": text}


def _line(source: CellSource, number: int) -> str:
    lines = source.code.replace("\r\n", "\n").replace("\r", "\n").split("\n")
    return lines[number - 1] if number <= len(lines) else ""


def _belongs_to_ipython(name: str, value: Any) -> bool:
    """Whether *value* is what IPython put under *name*: an executor has ``display`` and the builtins of its own."""
    module = getattr(value, "__module__", None) or type(value).__module__
    return name in _OWN_NAMES and module.partition(".")[0] in ("IPython", "ipykernel")
