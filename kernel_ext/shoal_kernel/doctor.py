"""Which of the notebook's variables can travel to the cluster, how, and what is at fault where one cannot.

Variables are pickled in a forked child of the notebook, one after the other: one that hangs or crashes costs a moment,
and nothing that pickling does to a value is seen here.
"""

from __future__ import annotations

import importlib.util
import inspect
import pickle
import sys
import sysconfig
import types
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

import shoal
from shoal.model.amounts import format_nbytes
from shoal.model.tables import Table
from shoal.runtime.guarded_child import run_guarded
from shoal.runtime.payload import INLINE_LIMIT
from shoal.runtime.stand_ins import kind_of
from shoal_kernel.cell import explain_loss
from shoal_kernel.packing import UnpicklableVariable, pack
from shoal_kernel.shipping import nbytes_by_name

#: Seconds for one variable, and for all.
PATIENCE, MAX_SECONDS = 2.0, 15.0
_HEADS = ("variable", "type", "travels", "size", "how, or what is at fault")
_INSTALLED = tuple({sysconfig.get_path(name) for name in ("stdlib", "platstdlib", "purelib", "platlib")})


class _Finding(NamedTuple):
    travels: str
    size: str
    how: str


def diagnose(namespace: dict[str, Any], names: Iterable[str] | None = None) -> Table:
    """Say of each variable whether it pickles, how large it is then, and how it would travel.

    Takes :data:`MAX_SECONDS` seconds at most. Runs no code of the user's but what pickling runs, and that in a child.

    Parameters
    ----------
    namespace
        The notebook's variables.
    names
        Those to look at; by default all that the user has made.

    Returns
    -------
    table
        Those that do not travel come first, then the largest.
    """
    wanted = list(dict.fromkeys(names)) if names is not None else _made_by_user(namespace)
    missing = [name for name in wanted if name not in namespace]
    present = [name for name in wanted if name in namespace]
    answers = run_guarded(
        present,
        lambda name: pickle.dumps(_look_safely(name, namespace)),
        MAX_SECONDS,
        patience=PATIENCE,
        max_children=len(present) + 1,
    )
    rows: list[tuple[int, int, tuple[str, ...]]] = []
    for name, answer in zip(present, answers, strict=True):
        nbytes, finding = pickle.loads(answer) if answer is not None else (0, _LOST)
        row = (name, kind_of(namespace[name]), finding.travels, finding.size, finding.how)
        rows.append((_ORDER.index(finding.travels), -nbytes, row))
    rows.sort(key=lambda entry: entry[:2])
    notes = [f"There is no variable `{name}`." for name in missing]
    if not rows and not missing:
        notes.append("There are no variables yet.")
    return Table("variables", _HEADS, [row for _, _, row in rows], " ".join(notes))


_ORDER = ("no", "perhaps", "yes")
_LOST = _Finding("no", "", f"pickling it takes longer than {PATIENCE:g} s, or ends the process that does it")


def _made_by_user(namespace: Mapping[str, Any]) -> list[str]:
    hidden = {"In", "Out", "exit", "quit", "open", "get_ipython"}
    return [name for name in namespace if not name.startswith("_") and name not in hidden]


def _look_safely(name: str, namespace: dict[str, Any]) -> tuple[int, _Finding]:
    """Runs in the child, and must not raise."""
    try:
        return _look(name, namespace)
    except BaseException as error:  # boundary: reducers are user code, and may raise anything
        return 0, _Finding("no", "", f"{type(error).__name__}: {error}")


def _look(name: str, namespace: dict[str, Any]) -> tuple[int, _Finding]:
    value = namespace[name]
    module = _module_needed(value)
    if isinstance(value, types.ModuleType):
        return 0, _by_reference(value.__name__, "imported there")
    try:
        package = pack([name], {name: value}, namespace, follow=False)
    except UnpicklableVariable as error:
        loss = explain_loss(error, name)
        return 0, _Finding("no", "", f"`{loss.path}`: {loss.reason}")
    nbytes = nbytes_by_name(package)[name]
    size = format_nbytes(nbytes)
    if isinstance(value, shoal.ObjectRef):
        return 0, _Finding("yes", "", "as a ref: its value is in the cluster")
    if module:
        finding = _by_reference(module, f"needs the module `{module}` there")
        return nbytes, finding._replace(size=size)
    how = "inside the message" if nbytes <= INLINE_LIMIT else "through the object store"
    return nbytes, _Finding("yes", size, how + _captures(value, namespace))


def _captures(value: Any, namespace: dict[str, Any]) -> str:
    """Say which large values a function carries along."""
    if not isinstance(value, types.FunctionType):
        return ""
    captured = inspect.getclosurevars(value).nonlocals
    defaults = {
        name: parameter.default
        for name, parameter in inspect.signature(value).parameters.items()
        if parameter.default is not parameter.empty
    }
    found = []
    for word, parts in (("captures", captured), ("has the default", defaults)):
        for name, part in parts.items():
            nbytes = nbytes_by_name(pack([name], {name: part}, namespace, follow=False))[name]
            if nbytes > INLINE_LIMIT:
                found.append(f"{word} `{name}`, {format_nbytes(nbytes)}")
    return f"; {', '.join(found)}" if found else ""


def _by_reference(module: str, how: str) -> _Finding:
    top = module.partition(".")[0]
    if _is_installed(top):
        return _Finding("yes", "", how)
    return _Finding("perhaps", "", f"{how}; `{top}` is no installed package, so the cluster may not have it")


def _module_needed(value: Any) -> str:
    """Return the module that the class of *value*, or *value* itself, is imported from; "" for code of the notebook."""
    owner = value if isinstance(value, type | types.FunctionType) else type(value)
    module = getattr(owner, "__module__", None)
    return module if isinstance(module, str) and module not in ("__main__", "builtins") else ""


def _is_installed(top: str) -> bool:
    if top in sys.builtin_module_names or top in sys.stdlib_module_names:
        return True
    module = sys.modules.get(top)
    spec = getattr(module, "__spec__", None) if module is not None else importlib.util.find_spec(top)
    places = [spec.origin or "", *(spec.submodule_search_locations or ())] if spec is not None else []
    return any(place.startswith(_INSTALLED) for place in places)
