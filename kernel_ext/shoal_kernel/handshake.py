"""Packages that the notebook uses, compared with what the nodes have.

Everything that takes time happens on a thread of its own, and the table of differences appears under the cell that was
running when it was asked for. Each node is asked once about each package.
"""

from __future__ import annotations

import functools
import sys
import threading
import time
import types
from collections.abc import Collection, Mapping
from importlib import metadata
from typing import TYPE_CHECKING, Any

import shoal
from shoal.api.session import stay_in_background
from shoal.errors import ShoalError
from shoal.model.tables import Table
from shoal.runtime import session
from shoal.runtime.versions import versions_of
from shoal_kernel.publishing import Publisher, Request

if TYPE_CHECKING:
    from IPython.core.interactiveshell import InteractiveShell

#: Packages compared at most; who uses more has many that use each other.
MAX_PACKAGES = 100
#: Rows shown at most.
MAX_ROWS = 20
#: Seconds that a node gets to answer; one that is busy for longer is asked another time.
ANSWER_TIMEOUT = 30.0
#: Seconds between two looks for nodes that have joined.
LOOK_INTERVAL = 10.0
#: What the notebook and the extension bring along, and what was compared when the cluster was joined.
_OWN = frozenset({"IPython", "ipykernel", "shoal", "shoal_kernel", "__main__", "builtins"})
#: What a node has of a package that it does not have.
MISSING = "missing"


class Handshake:
    """Compares, for one notebook."""

    def __init__(self, shell: InteractiveShell) -> None:
        self._publisher = Publisher(shell)
        self._lock = threading.Lock()
        self._owner: object = None
        #: Import packages of the notebook that were looked at.
        self._seen: frozenset[str] = frozenset()
        self._looked = float("-inf")
        #: What each node has answered, by host (or id), and whether a thread is asking now.
        self._answers: dict[str, dict[str, str]] = {}
        self._asking = False

    def check(self, variables: Mapping[str, Any]) -> None:
        """Begin to compare what the notebook's *variables* come from, if there is anything new; returns at once.

        To be called on the thread that runs the cell, once there is a cluster.
        """
        used = imported_packages(variables)
        now = time.monotonic()
        with self._lock:
            owner = session.find_owner()
            if owner is not self._owner:
                self._owner, self._seen, self._answers, self._asking = owner, frozenset(), {}, False
            is_new = not used <= self._seen
            if owner is None or self._asking or not (is_new or now - self._looked > LOOK_INTERVAL) or not used:
                return
            self._seen |= used
            self._looked, self._asking = now, True
        arguments = (owner, self._seen, self._publisher.running_request())
        threading.Thread(target=self._run, args=arguments, name="shoal-handshake", daemon=True).start()

    def _run(self, owner: object, packages: frozenset[str], request: Request) -> None:
        stay_in_background()
        try:
            here = versions_of(distributions_of(packages))
            table = differences(here, self._ask(owner, here))
            if table is not None:
                data = {"text/plain": str(table), "text/html": table._repr_html_()}
                self._publisher.display({"data": data}, request, is_running=False)
        except (ShoalError, TimeoutError):
            pass  # the cluster has gone meanwhile, or has no time: it is asked again with the next new package
        finally:
            with self._lock:
                if self._owner is owner:
                    self._asking = False

    def _ask(self, owner: object, here: Mapping[str, str]) -> dict[str, dict[str, str]]:
        """Ask each node what it has not been asked yet; returns what has been answered now."""
        nodes = {node.labels.get("host", node.id): node for node in shoal.nodes()}
        refs = {}
        for name, node in nodes.items():
            unknown = [package for package in here if package not in self._answers.get(name, {})]
            if unknown:
                placed = shoal.NodeAffinity(node.id, soft=False)
                # Not the work of the cell that runs.
                task = shoal.remote(versions_of).options(
                    num_cpus=0, scheduling_strategy=placed, name="shoal handshake", cell="shoal handshake"
                )
                refs[name] = (unknown, task.remote(unknown))
        news: dict[str, dict[str, str]] = {}
        for name, (asked, ref) in refs.items():
            found = shoal.get(ref, timeout=ANSWER_TIMEOUT)
            news[name] = {package: found.get(package, MISSING) for package in asked}
        with self._lock:
            if self._owner is owner:
                for name, answer in news.items():
                    self._answers.setdefault(name, {}).update(answer)
        return news


def imported_packages(variables: Mapping[str, Any]) -> frozenset[str]:
    """Return the top-level packages that a notebook's variables come from: modules, functions, classes, objects."""
    found = set()
    for name, value in list(variables.items()):
        if name.startswith("_"):
            continue
        if isinstance(value, types.ModuleType):
            module: Any = value.__name__
        elif isinstance(value, types.FunctionType | types.BuiltinFunctionType | type):
            module = value.__module__
        else:
            module = type(value).__module__
        if isinstance(module, str):
            found.add(module.partition(".")[0])
    return frozenset(found - _OWN)


def distributions_of(packages: Collection[str]) -> list[str]:
    """Return the distributions that import packages belong to; of what belongs to none there is nothing to compare."""
    known = _distributions_by_package()
    if not known.keys() | sys.stdlib_module_names >= set(packages):  # something was installed meanwhile
        _distributions_by_package.cache_clear()
        known = _distributions_by_package()
    found = dict.fromkeys(name for package in sorted(packages) for name in known.get(package, ()))
    return list(found)[:MAX_PACKAGES]


@functools.cache
def _distributions_by_package() -> Mapping[str, list[str]]:
    return metadata.packages_distributions()


def differences(here: Mapping[str, str], nodes: Mapping[str, Mapping[str, str]]) -> Table | None:
    """Return a table of the packages of which nodes have other versions than the notebook; None if there are none."""
    rows = []
    for package, version in here.items():
        there: dict[str, list[str]] = {}
        for node, versions in nodes.items():
            if package in versions and versions[package] != version:
                there.setdefault(versions[package], []).append(node)
        if there:
            said = "; ".join(f"{other} ({_enumerate(names)})" for other, names in sorted(there.items()))
            rows.append((package, version, said))
    if not rows:
        return None
    more = f" {len(rows) - MAX_ROWS} more differ." if len(rows) > MAX_ROWS else ""
    note = f"shoal: packages that this notebook uses differ on the cluster; results may too.{more}"
    return Table("differing packages", ("package", "here", "nodes"), rows[:MAX_ROWS], note)


def _enumerate(names: list[str]) -> str:
    return ", ".join(names) if len(names) <= 3 else f"{', '.join(names[:3])} and {len(names) - 3} more"
