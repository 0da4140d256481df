"""Local modules that a remote cell may use: what they are now, what has changed, and whether they are Python at all.

A module that was edited since the notebook imported it counts as it is on disk, as with ``%autoreload``: the executor
(:mod:`shoal_kernel.module_sync`) imports that.
"""

from __future__ import annotations

import ast
import dataclasses
import os
import sys
import threading
import types
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import shoal
from shoal_kernel.errors import CellError
from shoal_kernel.module_files import Finder, ModuleFile, ModuleText, Reader, imported_names, user_folders
from shoal_kernel.module_sync import Module, SyncedModules, digest_of
from shoal_kernel.packing import global_reads

if TYPE_CHECKING:
    from IPython.core.interactiveshell import InteractiveShell

#: Modules, and bytes of all their texts, that are kept in step at most: more is no code that one edits.
MAX_MODULES, MAX_NBYTES = 1_000, 8 << 20
#: Files named in one line at most.
_MAX_NAMED = 5


class ModuleSyntaxError(CellError, ValueError):
    """A local module that the cell uses is not Python. ``module`` is its name; ``label`` its file."""

    module: str


@dataclasses.dataclass(frozen=True)
class PreparedModules:
    """What a cell needs of the notebook's local modules."""

    #: Travels with the cell.
    synced: SyncedModules
    #: The modules' texts, for nodes that do not have the files.
    sources: Mapping[str, bytes]
    #: Lines to be said: what has changed since the last remote cell, and what is not as it seems.
    said: tuple[str, ...] = ()


@dataclasses.dataclass(frozen=True)
class _Found:
    file: ModuleFile
    text: ModuleText


class ModuleSync:
    """Follows the local modules of one notebook."""

    def __init__(self, shell: InteractiveShell) -> None:
        self._shell = shell
        self._lock = threading.Lock()
        self._reader = Reader()
        self._folders: tuple[str, ...] = ()
        #: Names in ``sys.modules`` that have been looked at.
        self._examined: set[str] = set()
        #: What the last remote cell was given.
        self._last: dict[str, _Found] = {}
        self._notes_said: set[str] = set()
        self._stored: tuple[object, str, shoal.ObjectRef] | None = None

    def prepare(self, source: ast.AST | str, folders: Sequence[str] | None = None) -> PreparedModules:
        """Look at the modules that a cell may use.

        Parameters
        ----------
        source
            The cell, or its syntax tree.
        folders
            Where modules are the user's own; found on the import path if not given.

        Raises
        ------
        ModuleSyntaxError
            One that the cell uses is not Python.
        """
        tree = ast.parse(source) if isinstance(source, str) else source
        return self.prepare_for([*imported_names(tree), *_modules_of_names(tree, self._shell.user_ns)], folders)

    def prepare_for(self, modules: Iterable[str], folders: Sequence[str] | None = None) -> PreparedModules:
        """Look at the modules that code may use which uses these, by name, itself."""
        with self._lock:
            return self._prepare(dict.fromkeys(modules), folders)

    def _prepare(self, used: Iterable[str], folders: Sequence[str] | None) -> PreparedModules:
        folders = user_folders() if folders is None else tuple(folders)
        if folders != self._folders:
            self._folders, self._examined = tuple(folders), set()
        finder = Finder(folders)
        self._examined &= sys.modules.keys()
        new = sys.modules.keys() - self._examined
        loaded = sorted(finder.loaded(new))
        self._examined |= new
        notes: list[str] = []
        found = self._follow([*used, *self._last, *loaded], finder, notes)
        found = self._mend(found, self._used_of(used, found), notes)
        notes += [
            f"`{path}` is named like a module of Python's own, which is what executors import."
            for path in sorted(finder.shadowed)
        ]
        said = [*self._changes(found), *self._new(notes)]
        self._last = found
        return _prepared(found, tuple(said))

    def sources_ref(self, prepared: PreparedModules) -> shoal.ObjectRef:
        """Store the sources, once for each state of the modules and each session."""
        session, digest = shoal.init(), prepared.synced.digest
        if self._stored is None or self._stored[:2] != (session, digest):
            self._stored = (session, digest, shoal.put(dict(prepared.sources)))
        return self._stored[2]

    def _follow(self, names: Iterable[str], finder: Finder, notes: list[str]) -> dict[str, _Found]:
        """Return the local modules among *names* and those that they import, as far as there is room."""
        found: dict[str, _Found] = {}
        room, left_out = MAX_NBYTES, ""
        todo = list(dict.fromkeys(names))[::-1]
        seen = set(todo)
        while todo:
            file = finder.find(todo.pop())
            if file is None:
                continue
            try:
                room -= (nbytes := os.path.getsize(file.location))
                if room < 0 or len(found) == MAX_MODULES:
                    room += nbytes
                    left_out = left_out or file.path
                    continue
                text = self._reader.read(file)
            except OSError as error:
                notes.append(f"`{file.path}` cannot be read ({error.strerror}), so executors may not have it.")
                continue
            found[file.name] = _Found(file, text)
            more = sorted(text.imports - seen, reverse=True)
            seen.update(more)
            todo[:0] = more
        if left_out:
            notes.append(
                f"`{left_out}`, and maybe more, is not kept in step: the local modules are too many, or too big."
            )
        return found

    def _used_of(self, names: Iterable[str], found: Mapping[str, _Found]) -> set[str]:
        """Return the local modules that the cell itself uses, directly or through others."""
        used: set[str] = set()
        todo = list(names)
        while todo:
            name = todo.pop()
            if name in found and name not in used:
                used.add(name)
                todo.extend(found[name].text.imports)
        return used

    def _mend(self, found: dict[str, _Found], used: set[str], notes: list[str]) -> dict[str, _Found]:
        """Refuse modules that are not Python if the cell uses them; others stay as they last were."""
        mended = {}
        for name, module in found.items():
            if module.text.error is None:
                mended[name] = module
            elif name in used:
                raise _syntax_error(module)
            else:
                line = module.text.error.lineno or 1
                notes.append(f"`{module.file.path}` is not Python (line {line}): executors keep what it was before.")
                if name in self._last:
                    mended[name] = self._last[name]
        return mended

    def _changes(self, found: Mapping[str, _Found]) -> Iterator[str]:
        changed, gone = [], []
        for name, before in self._last.items():
            now = found.get(name)
            if now is None:
                if not os.path.lexists(before.file.location):
                    gone.append(before.file.path)
            elif now.text.digest != before.text.digest or now.file != before.file:
                changed.append(now.file.path)
        if changed:
            yield f"synced {_enumerate(changed)}"
        if gone:
            yield f"{_enumerate(gone)} {'is' if len(gone) == 1 else 'are'} gone"

    def _new(self, notes: Iterable[str]) -> Iterator[str]:
        """Yield the notes that have not been said."""
        for note in notes:
            if note not in self._notes_said:
                self._notes_said.add(note)
                yield note


def _modules_of_names(tree: ast.AST, user_ns: Mapping[str, Any]) -> Iterator[str]:
    """Yield the modules that the notebook's variables named in a cell come from, also through its functions."""
    todo = [node.id for node in ast.walk(tree) if isinstance(node, ast.Name)]
    seen: set[str] = set()
    while todo:
        name = todo.pop()
        if name in seen or name not in user_ns:
            continue
        seen.add(name)
        value = user_ns[name]
        if isinstance(value, types.ModuleType):
            yield value.__name__
        elif isinstance(value, types.FunctionType) and value.__globals__ is user_ns:
            todo.extend(global_reads(value.__code__))
        else:
            # Of an object, what its class says: asking itself might run somebody's `__getattr__`.
            home = value.__module__ if isinstance(value, types.FunctionType | type) else type(value).__module__
            if isinstance(home, str):
                yield home


def _syntax_error(module: _Found) -> ModuleSyntaxError:
    error = module.text.error
    assert error is not None
    return ModuleSyntaxError(
        f"{error.msg}; nothing was sent.",
        label=module.file.path,
        line=error.lineno or 1,
        column=max(0, (error.offset or 1) - 1),
        text=error.text or "",
        module=module.file.name,
    )


def _prepared(found: Mapping[str, _Found], said: tuple[str, ...]) -> PreparedModules:
    folders = tuple(dict.fromkeys(module.file.folder for module in found.values()))
    modules = tuple(
        Module(
            name,
            folders.index(module.file.folder),
            module.file.path,
            module.text.digest,
            tuple(sorted(module.text.imports & found.keys())),
        )
        for name, module in sorted(found.items())
    )
    sources = {module.key: found[module.name].text.text for module in modules}
    digest = digest_of(repr((folders, modules)).encode()) if modules else ""
    return PreparedModules(SyncedModules(folders, modules, digest), sources, said)


def _enumerate(paths: Sequence[str]) -> str:
    named = ", ".join(sorted(paths)[:_MAX_NAMED])
    more = len(paths) - _MAX_NAMED
    return f"{named} and {more} more" if more > 0 else named
