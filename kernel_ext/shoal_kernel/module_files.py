"""Local modules as files: where they are, what is in them, which others they import. Nothing is imported to find out.

A module is *local* if its file lies in one of the user's folders on the import path, not where packages are
installed, and if Python would import that file and no other under the module's name.
"""

from __future__ import annotations

import ast
import dataclasses
import importlib
import os
import sys
import time
from collections.abc import Iterable, Iterator, Sequence
from importlib.machinery import ModuleSpec, PathFinder

from shoal_kernel.module_sync import digest_of, is_installed, with_packages

#: Packages that executors run on: to import them anew would pull the rug from under their own feet.
RUNTIME = frozenset(
    {"cloudpickle", "dask", "distributed", "shoal", "shoal_kernel", "shoal_labextension", "shoal_ml", "__main__"}
)
#: Nanoseconds in which a file system's clock may stand still: a file that was changed just before it was read may have
#: been changed again without looking it.
_COARSE_CLOCK = 2 * 10**9
#: What a statement may have other statements in.
_BLOCKS = ("body", "orelse", "finalbody", "handlers", "cases")


def user_folders() -> tuple[str, ...]:
    """Return the folders on the import path that belong to the user, not to this Python."""
    folders = dict.fromkeys(os.path.abspath(path) for path in sys.path if os.path.isdir(path or "."))
    prefixes = tuple(prefix.rstrip(os.sep) + os.sep for prefix in {sys.prefix, sys.base_prefix})
    return tuple(folder for folder in folders if not (folder + os.sep).startswith(prefixes))


@dataclasses.dataclass(frozen=True)
class ModuleFile:
    """Where a module is."""

    name: str
    folder: str
    #: In *folder*, with slashes.
    path: str

    @property
    def location(self) -> str:
        return os.path.join(self.folder, *self.path.split("/"))

    @property
    def package(self) -> str:
        """What its relative imports start from."""
        return self.name if self.path.endswith("/__init__.py") else self.name.rpartition(".")[0]


@dataclasses.dataclass(frozen=True)
class ModuleText:
    """What is in a module's file."""

    text: bytes
    digest: str
    #: Names that it may import, local or not.
    imports: frozenset[str]
    #: Why it is not Python.
    error: SyntaxError | None = None


class Finder:
    """Finds local modules by name, as things are at the moment it is made."""

    def __init__(self, folders: Sequence[str]) -> None:
        self._folders = [folder for folder in folders if not is_installed(folder)]
        self._found: dict[str, ModuleFile | None] = {}
        #: Local files that are not used, since the standard library has a module of that name.
        self.shadowed: set[str] = set()

    def find(self, name: str) -> ModuleFile | None:
        """Return where a local module is; None for a namespace package and for whatever is not local."""
        if name not in self._found:
            self._found[name] = self._find(name)
        return self._found[name]

    def _find(self, name: str) -> ModuleFile | None:
        top = name.partition(".")[0]
        if top in RUNTIME:
            return None
        stem = name.replace(".", "/")
        for folder in self._folders:
            for path in (f"{stem}/__init__.py", f"{stem}.py"):
                file = ModuleFile(name, folder, path)
                if os.path.isfile(file.location):
                    return file if self._is_importable(top, file) else None
        return None

    def _is_importable(self, top: str, file: ModuleFile) -> bool:
        if top in sys.stdlib_module_names:
            self.shadowed.add(file.path)
            return False
        module = sys.modules.get(top)
        spec = _find_spec(top) if module is None else getattr(module, "__spec__", None)
        if spec is None:
            return False
        places = [spec.origin or "", *(spec.submodule_search_locations or ())]
        here = os.path.join(file.folder, top)
        return not {f"{here}.py", os.path.join(here, "__init__.py"), here}.isdisjoint(map(os.path.abspath, places))

    def loaded(self, names: Iterable[str]) -> Iterator[str]:
        """Yield those of *names* that are loaded, local modules."""
        folders = tuple(os.path.join(folder, "") for folder in self._folders)
        for name in names:
            location = getattr(sys.modules.get(name), "__file__", None)
            if not isinstance(location, str) or not location.endswith(".py"):
                continue
            location = os.path.abspath(location)
            file = self.find(name) if location.startswith(folders) else None
            if file is not None and file.location == location:
                yield name


def _find_spec(name: str) -> ModuleSpec | None:
    """Return what Python would import; a file that is too new for what it remembers of folders is found too."""
    spec = PathFinder.find_spec(name)
    if spec is None:
        importlib.invalidate_caches()
        spec = PathFinder.find_spec(name)
    return spec


class Reader:
    """Reads modules, each again only when it seems to have changed."""

    def __init__(self) -> None:
        self._texts: dict[ModuleFile, tuple[tuple[int, int, int], ModuleText]] = {}

    def read(self, file: ModuleFile) -> ModuleText:
        """Return what is in a module's file.

        Raises
        ------
        OSError
            It cannot be read.
        """
        status = os.stat(file.location)
        look = (status.st_mtime_ns, status.st_size, status.st_ino)
        before, known = self._texts.get(file, (None, None))
        if known is not None and look == before:
            return known
        with open(file.location, "rb") as stream:
            text = stream.read()
        digest = digest_of(text)
        if known is None or known.digest != digest:
            known = _parse(text, digest, file)
        if time.time_ns() - status.st_mtime_ns < _COARSE_CLOCK:
            look = (0, 0, 0)
        self._texts[file] = (look, known)
        return known


def _parse(text: bytes, digest: str, file: ModuleFile) -> ModuleText:
    try:
        tree = compile(text, file.location, "exec", ast.PyCF_ONLY_AST, dont_inherit=True)
    except SyntaxError as error:
        return ModuleText(text, digest, frozenset(), error)
    except (ValueError, RecursionError, MemoryError) as error:  # null bytes; nested too deep for the parser
        return ModuleText(text, digest, frozenset(), SyntaxError(str(error) or "too deeply nested"))
    return ModuleText(text, digest, frozenset(imported_names(tree, file.package)))


def imported_names(tree: ast.AST, package: str = "") -> Iterator[str]:
    """Yield the names of modules that code may import, wherever in it.

    ``from a.b import c`` gives ``a``, ``a.b`` and ``a.b.c``, which may be a module.
    """
    for statement in _statements(tree):
        if isinstance(statement, ast.Import):
            for alias in statement.names:
                yield from with_packages(alias.name)
        elif isinstance(statement, ast.ImportFrom):
            base = _absolute(statement, package)
            if base:
                yield from with_packages(base)
                yield from (f"{base}.{alias.name}" for alias in statement.names if alias.name != "*")


def _statements(tree: ast.AST) -> Iterator[ast.AST]:
    """Yield every statement; expressions, which are most of a tree and never import, are not walked."""
    todo = [tree]
    while todo:
        node = todo.pop()
        yield node
        for block in _BLOCKS:
            children = getattr(node, block, ())
            if isinstance(children, list):  # the body of a lambda or a conditional expression is none
                todo.extend(children)


def _absolute(statement: ast.ImportFrom, package: str) -> str:
    if not statement.level:
        return statement.module or ""
    parts = package.split(".") if package else []
    kept = len(parts) - statement.level + 1
    if kept < 1:  # above the outermost package: an error when it runs
        return ""
    return ".".join([*parts[:kept], *([statement.module] if statement.module else [])])
