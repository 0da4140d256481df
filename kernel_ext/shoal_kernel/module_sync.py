"""Local modules in an executor: what it has imported from an older version is forgotten before the next cell runs.

The notebook sends what its modules look like (:mod:`shoal_kernel.modules`). Where its folders are on this machine,
with the same text in them, modules are imported from there. Elsewhere the texts are fetched, written to a directory
of this node's that goes when the node does, and imported from that. Only ``.py`` files travel: data files beside
them do not.

What tasks and actors run is pickled together with what the modules are (:class:`SyncedCode`), and loaded when they are
that.

Imported by executors: the standard library only.
"""

from __future__ import annotations

import atexit
import contextlib
import dataclasses
import hashlib
import importlib
import importlib.util
import os
import pickle
import shutil
import sys
import tempfile
import threading
import types
import zlib
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any


@dataclasses.dataclass(frozen=True)
class Module:
    """One local module as the notebook's machine has it."""

    name: str
    #: Number of its folder in :attr:`SyncedModules.folders`.
    folder: int
    #: Of its file in that folder, with slashes.
    path: str
    digest: str
    #: Names of the local modules that it imports.
    imports: tuple[str, ...] = ()

    @property
    def key(self) -> str:
        """Its name among the sources that travel."""
        return f"{self.folder}/{self.path}"


@dataclasses.dataclass(frozen=True)
class SyncedModules:
    """What the notebook's local modules are now. ``digest`` tells two such states apart; "" asks for nothing."""

    folders: tuple[str, ...] = ()
    modules: tuple[Module, ...] = ()
    digest: str = ""


#: Fetches the modules' texts, by :attr:`Module.key`.
Fetch = Callable[[], Mapping[str, bytes]]


def with_packages(name: str) -> list[str]:
    """Return a module's name after those of the packages that it is in, outermost first."""
    parts = name.split(".")
    return [".".join(parts[:end]) for end in range(1, len(parts) + 1)]


def digest_of(text: bytes) -> str:
    """Return what a module's text is known by."""
    return hashlib.blake2b(text, digest_size=12).hexdigest()


class ModuleKeeper:
    """The local modules of one process."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._digest = ""
        #: What was on disk when each module could first be imported here.
        self._applied: dict[str, str] = {}
        #: Entries of ``sys.path`` that hold fetched texts.
        self._own_entries: list[str] = []

    def apply(self, synced: SyncedModules, fetch: Fetch) -> frozenset[str]:
        """Make the next import of each module give what *synced* describes.

        Parameters
        ----------
        fetch
            Called if a folder of the notebook's is not here, or has other texts.

        Returns
        -------
        dropped
            Names of the modules that were forgotten; those that hold on to them still see the older version
            (:func:`rebind`).
        """
        with self._lock:
            if synced.digest in ("", self._digest):
                return frozenset()
            self._open_folders(synced, fetch)
            importlib.invalidate_caches()
            # Modules that ordinary tasks have imported are of a version that nobody knows: they count as changed.
            digests = {module.name: module.digest for module in synced.modules}
            changed = {name for name in {*digests, *self._applied} if self._applied.get(name) != digests.get(name)}
            dropped = _drop(_with_dependents(changed, synced.modules))
            self._applied, self._digest = digests, synced.digest
            return dropped

    def _open_folders(self, synced: SyncedModules, fetch: Fetch) -> None:
        for entry in self._own_entries:
            with contextlib.suppress(ValueError):  # user code may have taken it out
                sys.path.remove(entry)
        self._own_entries = []
        fetched: Path | None = None
        for number, folder in enumerate(synced.folders):
            modules = [module for module in synced.modules if module.folder == number]
            if _has_same_texts(folder, modules):
                _forget_stale_bytecode(folder, modules)
                _add_folder(folder)
                continue
            if fetched is None:
                fetched = _write_out(synced.digest, fetch())
            # In front of all others: it holds nothing that is named like a module of the standard library.
            entry = str(fetched / str(number))
            sys.path.insert(len(self._own_entries), entry)
            self._own_entries.append(entry)


def _has_same_texts(folder: str, modules: Iterable[Module]) -> bool:
    try:
        return all(digest_of(Path(folder, module.path).read_bytes()) == module.digest for module in modules)
    except OSError:
        return False


def _forget_stale_bytecode(folder: str, modules: Iterable[Module]) -> None:
    """Remove bytecode that Python would take for that of the present text.

    It compares times in whole seconds: a file edited twice within one, to the same length, looks unchanged.
    """
    for module in modules:
        source = os.path.join(folder, module.path)
        with contextlib.suppress(OSError, NotImplementedError):
            bytecode = importlib.util.cache_from_source(source)
            if os.stat(bytecode).st_mtime_ns <= os.stat(source).st_mtime_ns:
                os.unlink(bytecode)


def _add_folder(folder: str) -> None:
    """Let modules be imported from *folder*: before what is installed, as in the notebook, and after Python's own."""
    if folder not in sys.path:
        installed = (number for number, entry in enumerate(sys.path) if is_installed(entry))
        sys.path.insert(next(installed, len(sys.path)), folder)


def is_installed(path: str) -> bool:
    """Whether *path* is where packages are installed."""
    return not {"site-packages", "dist-packages"}.isdisjoint(path.split(os.sep))


def _write_out(digest: str, sources: Mapping[str, bytes]) -> Path:
    """Write texts to a directory that all executors of this node share, and return it."""
    root = _node_directory()
    target = root / digest
    if target.is_dir():
        return target
    draft = Path(tempfile.mkdtemp(dir=root))
    for key, text in sources.items():
        path = draft / key
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(text)
    try:
        draft.rename(target)
    except OSError:  # another executor was faster
        shutil.rmtree(draft, ignore_errors=True)
    return target


def _node_directory() -> Path:
    """A directory for this user alone that is removed with the node; in a process without one, at its exit."""
    from shoal.runtime.session import find_owner

    owner = find_owner()
    if owner is not None and owner.store is not None:
        root = Path(owner.store.directory, "modules")
        root.mkdir(mode=0o700, exist_ok=True)
        return root
    root = Path(tempfile.mkdtemp(prefix=f"shoal-{os.getuid()}-modules-"))
    atexit.register(shutil.rmtree, root, ignore_errors=True)
    return root


def _with_dependents(changed: set[str], modules: Iterable[Module]) -> set[str]:
    """Add the modules that import what has changed, and so on: they hold its functions. Parts go with their package."""
    importers: dict[str, list[str]] = {}
    for module in modules:
        parent = module.name.rpartition(".")[0]
        for imported in (*module.imports, parent):
            importers.setdefault(imported, []).append(module.name)
    found, todo = set(changed), list(changed)
    while todo:
        for name in importers.get(todo.pop(), ()):
            if name not in found:
                found.add(name)
                todo.append(name)
    return found


def _drop(names: set[str]) -> frozenset[str]:
    """Forget modules that are loaded, and what lies below them."""
    loaded = frozenset(name for name in list(sys.modules) if not names.isdisjoint(with_packages(name)))
    for name in loaded:
        module = sys.modules.pop(name)
        parent, _, child = name.rpartition(".")
        holder = sys.modules.get(parent)
        if getattr(holder, "__dict__", {}).get(child) is module:
            delattr(holder, child)
    return loaded


def rebind(namespace: dict[str, Any], dropped: frozenset[str]) -> None:
    """Let the variables of a namespace that outlives its cells see the new versions.

    Names bound to dropped modules, or to functions and classes at their top level, get what a new import gives. What
    is no longer there, or cannot be imported, stays as it is.
    """
    for name, value in list(namespace.items()):
        is_module = isinstance(value, types.ModuleType)
        if not is_module and not isinstance(value, types.FunctionType | type):
            continue
        home = value.__name__ if is_module else value.__module__
        if home not in dropped:
            continue
        with contextlib.suppress(Exception):  # boundary: importing runs anybody's code
            module = importlib.import_module(home)
            namespace[name] = module if is_module else getattr(module, value.__qualname__)


_keeper = ModuleKeeper()
apply = _keeper.apply


@dataclasses.dataclass(frozen=True)
class SyncedCode:
    """A pickled function or class, and the modules that it is to find. Its own pickle gives the function or class."""

    synced: SyncedModules
    #: Tells it from the same function at another time: where its modules were the same, others may have come since.
    version: int
    #: The modules' texts, by :attr:`Module.key`: compressed, or the ref of them.
    sources: Any
    pickled: bytes
    #: Module and qualified name under which a remote function or actor class has it; "" if it is not from one of them.
    home: tuple[str, str] = ("", "")

    def __reduce__(self) -> tuple[Any, ...]:
        return load_code, (self.synced, self.version, self.sources, self.pickled, self.home)


def pack_sources(sources: Mapping[str, bytes]) -> bytes:
    """Return texts as one compressed piece."""
    return zlib.compress(pickle.dumps(dict(sources)), 1)


def load_code(
    synced: SyncedModules, version: int, sources: Any, pickled: bytes, home: tuple[str, str] = ("", "")
) -> Any:
    """Load a function or class: in an executor with its modules as they are described, elsewhere as they are."""
    from shoal.runtime.session import get_emit

    if get_emit() is not None:
        apply(synced, lambda: _sources(sources))
    found = _find_remote(*home) if home[0] else None
    return pickle.loads(pickled) if found is None else found


def _find_remote(module: str, name: str) -> Any:
    """Return what a remote function or actor class of a module is made of, as the module is now.

    Such a function has been pickled by value: under its name there is the remote one.
    """
    from shoal.api.remote import ActorClass, RemoteFunction

    found: Any = importlib.import_module(module)
    for part in name.split("."):
        found = getattr(found, part, None)
    return found.__wrapped__ if isinstance(found, RemoteFunction | ActorClass) else None  # type: ignore[union-attr]


def _sources(sources: Any) -> Mapping[str, bytes]:
    import shoal

    found: Mapping[str, bytes]
    found = pickle.loads(zlib.decompress(sources)) if isinstance(sources, bytes) else shoal.get(sources)
    return found
