"""Tasks and actors of a notebook follow its local modules, as remote cells do.

The function or class of a task that was submitted after a module was edited is pickled once more, and travels with what
the modules are then (:class:`~shoal_kernel.module_sync.SyncedCode`). What is looked at: the modules when a cell begins,
and those that a function imports when it is pickled.
"""

from __future__ import annotations

import dis
import functools
import itertools
import pickle
import threading
import types
from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING, Any

from shoal.runtime import session
from shoal_kernel.module_files import RUNTIME
from shoal_kernel.module_sync import SyncedCode, pack_sources
from shoal_kernel.modules import ModuleSync, PreparedModules
from shoal_kernel.packing import global_reads

if TYPE_CHECKING:
    from IPython.core.interactiveshell import InteractiveShell

#: Bytes of compressed texts that travel with each function; more is stored once and travels as a ref.
MAX_INSIDE = 1 << 20
_versions = itertools.count(1)


class CodeSync:
    """The hook of one notebook."""

    def __init__(self, shell: InteractiveShell, modules: ModuleSync, is_on: Callable[[], bool]) -> None:
        self._shell = shell
        self._modules = modules
        self._is_on = is_on
        self._lock = threading.RLock()
        self._is_stale = True
        self._version = 0
        #: Modules that functions use which have been looked at since the cell began.
        self._seen: set[str] = set()
        self._prepared: PreparedModules | None = None
        #: The texts of the modules, as they travel.
        self._sources: tuple[object, str, Any] | None = None

    def start(self) -> None:
        self._shell.events.register("pre_run_cell", self._cell_begins)
        session.set_code_hook(self)

    def stop(self) -> None:
        session.set_code_hook(None)
        self._shell.events.unregister("pre_run_cell", self._cell_begins)

    def _cell_begins(self, _: object = None) -> None:
        self._is_stale = True

    @property
    def version(self) -> int:
        """Another number as soon as a module has changed."""
        if self._is_stale:
            with self._lock:
                if self._is_stale:
                    self._is_stale = False
                    self._seen.clear()
                    self._look(())
        return self._version

    def wrap(self, target: Any, pickled: bytes) -> bytes:
        """Return the pickle of a function or class together with the modules; its own where there are none.

        Raises
        ------
        ModuleSyntaxError
            A module that it uses is not Python.
        """
        home = getattr(target, "__module__", None) or ""
        if home.partition(".")[0] in RUNTIME - {"__main__"}:
            return pickled
        with self._lock:
            used = list(dict.fromkeys(_modules_of(target)))
            if not self._seen.issuperset(used):
                self._look(used)
                self._seen.update(used)
            prepared = self._prepared
            if prepared is None or not prepared.synced.modules:
                return pickled
            name = getattr(target, "__qualname__", "")
            is_local = any(module.name == home for module in prepared.synced.modules)
            code = SyncedCode(
                prepared.synced,
                self._version,
                self._sources_of(prepared),
                pickled,
                (home, name) if is_local and name and "<locals>" not in name else ("", ""),
            )
            return pickle.dumps(code)

    def _look(self, used: Iterable[str]) -> None:
        """Look at the modules, and at those that a function uses."""
        prepared = self._modules.prepare_for(used) if self._is_on() else None
        if _digest(prepared) != _digest(self._prepared):
            self._version = next(_versions)
        self._prepared = prepared
        for line in prepared.said if prepared is not None else ():
            print(f"shoal: {line}")

    def _sources_of(self, prepared: PreparedModules) -> Any:
        owner, digest = session.find_owner(), prepared.synced.digest
        if self._sources is None or self._sources[:2] != (owner, digest):
            packed: Any = pack_sources(prepared.sources)
            self._sources = (owner, digest, packed)
        packed = self._sources[2]
        return packed if len(packed) <= MAX_INSIDE else self._modules.sources_ref(prepared)


def _digest(prepared: PreparedModules | None) -> str:
    return "" if prepared is None else prepared.synced.digest


def _modules_of(target: Any) -> Iterator[str]:
    """Yield the modules that a function or class comes from or uses: also through the notebook's own functions."""
    todo: list[Any] = [target]
    seen: set[int] = set()
    while todo:
        value = todo.pop()
        if id(value) in seen:
            continue
        seen.add(id(value))
        if isinstance(value, types.ModuleType):
            yield value.__name__
            continue
        if isinstance(value, functools.partial):
            todo.append(value.func)
            continue
        home = getattr(value if isinstance(value, types.FunctionType | type) else type(value), "__module__", None)
        if isinstance(home, str):
            yield home
        if isinstance(value, type) and home == "__main__":
            todo += [part for part in vars(value).values() if isinstance(part, types.FunctionType)]
            todo += value.__bases__
        elif isinstance(value, types.FunctionType) and home == "__main__":
            yield from _imports(value.__code__)
            names = value.__globals__
            todo += [names[name] for name in set(global_reads(value.__code__)) if name in names]


def _imports(code: types.CodeType) -> Iterator[str]:
    for instruction in dis.get_instructions(code):
        if instruction.opname == "IMPORT_NAME":
            yield instruction.argval
    for constant in code.co_consts:
        if isinstance(constant, types.CodeType):
            yield from _imports(constant)
