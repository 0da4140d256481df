"""Running a notebook cell in an executor.

Executors import this module: it needs the standard library and cloudpickle, nothing of Jupyter.
"""

from __future__ import annotations

import ast
import asyncio
import builtins
import contextlib
import dataclasses
import inspect
import linecache
import os
import sys
import threading
import types
from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager
from typing import Any

import shoal
from shoal.api.output import limit_displays
from shoal.model.display_limits import DisplayLimits
from shoal_kernel import module_sync, showing
from shoal_kernel.module_sync import SyncedModules
from shoal_kernel.packing import Package, UnpicklableVariable, pack, unpack

#: What a module's namespace holds besides the variables of the cell.
_IMPLICIT = frozenset(types.ModuleType("__main__").__dict__) | {"__annotations__", "__builtins__", "__file__"}
#: Under this name the cell's value travels: no variable can be called so.
VALUE = "<value>"


@dataclasses.dataclass(frozen=True)
class CellSource:
    """A cell's text and where it stands, so that both sides show the same lines."""

    #: The user's Python, padded above with empty lines: line numbers are those of the whole cell.
    code: str
    #: What the notebook's compiler calls the cell.
    filename: str
    #: The whole cell as a listing for tracebacks; its lines above the Python are comments.
    listing: str

    def remember(self) -> None:
        """Let tracebacks and ``inspect.getsource`` find the listing under the cell's filename."""
        lines = self.listing.splitlines(keepends=True)
        linecache.cache[self.filename] = (len(self.listing), None, lines, self.filename)


@dataclasses.dataclass(frozen=True)
class CellSpec:
    """A cell to run."""

    source: CellSource
    #: Names that come back even when they hold the object they held before.
    rebinds: frozenset[str]
    #: Whether the value of a last expression is wanted.
    wants_value: bool
    #: Compiler flags of ``from __future__`` imports made earlier in the notebook.
    flags: int = 0
    #: Folders the notebook imports from.
    paths: tuple[str, ...] = ()
    #: Whether the names that the cell writes come back.
    brings_names: bool = True
    #: Whether its value stays in the cluster: it is returned apart, as it is.
    keeps_value: bool = False
    #: The name that stands for this value in the notebook.
    stays: str = ""
    #: Entered around the cell: what makes a rank of it, for one.
    around: AbstractContextManager[Any] | None = None
    #: The notebook's local modules as they are now, and the ref of their texts; None to leave them alone.
    modules: SyncedModules | None = None
    sources: Any = None
    #: How much it may display.
    displays: DisplayLimits | None = None


@dataclasses.dataclass(frozen=True)
class Loss:
    """A variable that stays remote, and why."""

    name: str
    #: Leads to the part at fault, such as ``model.logger._lock``.
    path: str
    reason: str


@dataclasses.dataclass(frozen=True)
class CellResult:
    """What comes back: the names the cell wrote and its value."""

    package: Package
    losses: tuple[Loss, ...] = ()
    #: Names bound to modules, which are imported on the other side, and the modules.
    modules: dict[str, str] = dataclasses.field(default_factory=dict)
    #: MIME bundle and metadata of a value that cannot travel.
    shown: tuple[dict[str, Any], dict[str, Any]] | None = None


#: What a cell returns whose value stays in the cluster.
Kept = tuple[CellResult, Any]


def run_cell(spec: CellSpec, package: Package, own: Package | None = None, *stored: Any) -> CellResult | Kept:
    """Run a cell in a fresh ``__main__`` that holds the variables of *package*, and of the part's *own*.

    Errors of the cell are the user's own. Their tracebacks begin with frames of ours; the cell's filename tells where
    it starts.

    Parameters
    ----------
    stored
        What the package left in the object store.

    Returns
    -------
    result
        With ``spec.keeps_value`` a pair: the result without its value, and the value.
    """
    main = types.ModuleType("__main__")
    namespace = main.__dict__
    namespace["__builtins__"] = builtins
    threads = set(threading.enumerate())
    result = run_in(main, spec, (package.filled(stored), own))
    if not spec.keeps_value and threads.issuperset(threading.enumerate()):
        # The cell's functions and its namespace hold one another: arrays and refs would stay for the collector.
        namespace.clear()
    return result


def run_in(main: types.ModuleType, spec: CellSpec, packages: Iterable[Package | None]) -> CellResult | Kept:
    """Run a cell in *main* after putting the variables of *packages* there."""
    namespace = main.__dict__
    if spec.displays is not None:
        limit_displays(spec.displays)
    if spec.modules is not None:
        module_sync.rebind(namespace, module_sync.apply(spec.modules, lambda: shoal.get(spec.sources)))
    add_paths(spec.paths)
    spec.source.remember()
    with _as_main(main), showing.in_executor(), spec.around or contextlib.nullcontext():
        for package in packages:
            for name, failure in unpack(package, namespace).items() if package is not None else ():
                failure.add_note(f"while unpacking the notebook's variable `{name}`")
                raise failure
        return _run_and_collect(spec, namespace)


def _run_and_collect(spec: CellSpec, namespace: dict[str, Any]) -> CellResult | Kept:
    before = dict(namespace)
    value = execute(spec.source, spec.flags, namespace)
    showing.flush_figures(value)
    written = [
        name
        for name, now in namespace.items()
        if spec.brings_names
        and name not in _IMPLICIT
        and name != spec.stays
        and (name not in before or now is not before[name] or name in spec.rebinds)
    ]
    if spec.keeps_value:
        return _collect(written, namespace, namespace), value
    if value is None or not spec.wants_value:
        return _collect(written, namespace, namespace)
    return _collect([*written, VALUE], {**namespace, VALUE: value}, namespace, spec.displays)


def add_paths(paths: tuple[str, ...]) -> None:
    """Let modules beside the notebook be imported, where this machine has the folders."""
    sys.path += [path for path in paths if path not in sys.path and os.path.isdir(path)]


@contextlib.contextmanager
def _as_main(main: types.ModuleType) -> Iterator[None]:
    """Pickle, dataclasses and type hints look classes of the cell up in ``sys.modules["__main__"]``."""
    before = sys.modules.get("__main__")
    sys.modules["__main__"] = main
    try:
        yield
    finally:
        if before is not None:
            sys.modules["__main__"] = before


def execute(source: CellSource, flags: int, namespace: dict[str, Any]) -> Any:
    """Run a cell in *namespace* and return the value of its last expression, None if it ends otherwise.

    Statements and expression share one event loop if anything in them is awaited.
    """
    filename = source.filename
    flags |= ast.PyCF_ALLOW_TOP_LEVEL_AWAIT
    tree = compile(source.code, filename, "exec", flags | ast.PyCF_ONLY_AST, dont_inherit=True)
    assert isinstance(tree, ast.Module)
    parts: list[tuple[ast.Module | ast.Expression, str]] = [(tree, "exec")]
    if tree.body and isinstance(tree.body[-1], ast.Expr):
        parts.append((ast.Expression(tree.body[-1].value), "eval"))
        del tree.body[-1]
    codes = [compile(part, filename, mode, flags, dont_inherit=True) for part, mode in parts]
    if any(code.co_flags & inspect.CO_COROUTINE for code in codes):
        return asyncio.run(_await_all(codes, namespace))
    return [eval(code, namespace) for code in codes][-1]


async def _await_all(codes: list[types.CodeType], namespace: dict[str, Any]) -> Any:
    value = None
    for code in codes:
        value = eval(code, namespace)
        if code.co_flags & inspect.CO_COROUTINE:
            value = await value
    return value


def _collect(
    names: list[str], variables: dict[str, Any], namespace: dict[str, Any], displays: DisplayLimits | None = None
) -> CellResult:
    """Pack what comes back; what cannot be pickled is left out and named."""
    modules = {name: variables[name].__name__ for name in names if isinstance(variables[name], types.ModuleType)}
    names = [name for name in names if name not in modules]
    losses: list[Loss] = []
    shown = None
    while True:
        try:
            package = pack(names, variables, namespace, follow=False)
        except UnpicklableVariable as error:
            names.remove(error.name)
            losses.append(explain_loss(error, "the value" if error.name == VALUE else error.name))
            if error.name == VALUE:
                shown = showing.within(displays or DisplayLimits(), showing.mime_bundle(error.value))
        else:
            return CellResult(package, tuple(losses), modules, shown)


def explain_loss(error: UnpicklableVariable, name: str) -> Loss:
    """Find the part of a variable that does not pickle."""
    from shoal.runtime import pickle_path, refs

    with refs.collecting():  # refs do travel: the search shall not stop at them
        path, reason = pickle_path.explain(error.value, name)
    if path == name and error.__cause__ is not None:
        reason = str(error.__cause__) or type(error.__cause__).__name__
    return Loss(error.name, path, reason.strip().rstrip("."))
