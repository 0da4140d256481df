"""Specs: what a cluster that is started without a driver is to be, checked before anything starts.

A spec is a mapping, in a file of its own (``*.yaml``, ``*.json``) or sent by the panel::

    name: night shift                            # what to call the cluster; a file's name by default
    cluster_class: dask.distributed.LocalCluster # any class that starts a Dask cluster; without it and `address`
    options: {n_workers: 4}                      # a cluster starts on this machine, with options of `shoal.init`
    address: tls://10.0.0.4:8786                 # or: join the Dask cluster that runs there
    tls: {ca: ca.pem, cert: cert.pem, key: key.pem}
    python: /opt/envs/big/bin/python             # the interpreter to start it with
    nodes: 4
    adaptive: {minimum: 0, maximum: 8}           # as many nodes as there is work for
    idle_stop: 3600                              # seconds without work after which it ends
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import math
import os
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import yaml

from shoal.model.errors import OptionError
from shoal.model.options import TaskOptions, check_labels, is_number, with_changes
from shoal.model.suggest import did_you_mean

#: Bytes of a spec's file at most.
MAX_NBYTES = 1 << 20
#: The shortest idle time after which a cluster may be ended, in seconds.
LEAST_IDLE = 5.0
#: Options of a cluster that starts on this machine: those of `shoal.init`.
EMBEDDED_OPTIONS = ("num_cpus", "num_gpus", "resources", "labels", "object_store_memory")
_TLS_ROLES = ("ca", "cert", "key")
_SUFFIXES = (".yaml", ".yml", ".json")
_DOTTED = re.compile(r"[^\W\d]\w*(\.[^\W\d]\w*)+")
#: Says where in a file the value at a path of keys is: ``line 3: ``, or "".
Where = Callable[[tuple[str, ...]], str]


class SpecError(OptionError):
    """A spec that cannot be used; the message has one line for each fault."""


@dataclasses.dataclass(frozen=True, slots=True)
class Spec:
    """A spec that was checked; see the module's description."""

    name: str
    cluster_class: str = ""
    options: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    address: str = ""
    tls: Mapping[str, str] = dataclasses.field(default_factory=dict)
    python: str = ""
    nodes: int | None = None
    #: Fewest and most nodes; None for a fixed number.
    adaptive: tuple[int, int] | None = None
    #: Seconds; 0 for never.
    idle_stop: float = 0.0

    def to_json(self) -> dict[str, Any]:
        return dataclasses.asdict(self)

    def describe(self) -> dict[str, Any]:
        """Return what may be shown to anybody: no options, which may hold passwords."""
        return {
            "name": self.name,
            "kind": "address" if self.address else "dask" if self.cluster_class else "local",
            "cluster_class": self.cluster_class,
            "address": self.address,
            "nodes": self.nodes,
            "adaptive": None
            if self.adaptive is None
            else dict(zip(("minimum", "maximum"), self.adaptive, strict=True)),
            "idle_stop": self.idle_stop,
        }


@dataclasses.dataclass(frozen=True, slots=True)
class NamedSpec:
    """A spec's file: either its spec, or what is wrong with it."""

    name: str
    path: Path
    spec: Spec | None
    problem: str = ""


def specs_directory() -> Path:
    """Return where this user's named specs are."""
    from jupyter_core.paths import jupyter_config_dir

    return Path(jupyter_config_dir()) / "shoal" / "specs"


def list_specs() -> list[NamedSpec]:
    """Return the named specs by name, those with faults included."""
    found: dict[str, NamedSpec] = {}
    with contextlib.suppress(OSError):
        for path in sorted(specs_directory().iterdir()):
            if path.suffix in _SUFFIXES and not path.name.startswith("."):
                found.setdefault(path.stem, _named(path))
    return [found[name] for name in sorted(found)]


def find_spec(name: str) -> Spec:
    """Return the named spec.

    Raises
    ------
    SpecError
        There is none of this name, or it has faults.
    """
    specs = {found.name: found for found in list_specs()}
    found = specs.get(name)
    if found is None:
        where = specs_directory()
        raise SpecError(f"There is no spec `{name}` in {where}.{did_you_mean(name, specs)}", option="spec")
    if found.spec is None:
        raise SpecError(found.problem, option="spec")
    return found.spec


def read_spec(path: Path) -> Spec:
    """Read a spec's file.

    Raises
    ------
    SpecError
        It cannot be read, or has faults; the message names file and lines.
    """
    try:
        with path.open("rb") as file:
            data = file.read(MAX_NBYTES + 1)
        if len(data) > MAX_NBYTES:
            raise SpecError(f"{path.name} is larger than {MAX_NBYTES >> 20} MiB: that is no spec.", option="spec")
        text = data.decode()
    except (OSError, UnicodeDecodeError) as error:
        raise SpecError(f"{path.name} cannot be read: {error}", option="spec") from error
    try:
        fields = json.loads(text) if path.suffix == ".json" else yaml.safe_load(text)
        # Tabs are allowed in JSON and not in YAML, which tells lines.
        root = yaml.compose(text.replace("\t", " "), yaml.SafeLoader)
    except (yaml.YAMLError, ValueError) as error:
        raise SpecError(f"{path.name}, {_syntax_error(error)}", option="spec") from error
    try:
        return check_spec(fields, path.stem, lambda keys: f"{path.name}, line {_line(root, keys)}: ", path.parent)
    except RecursionError:
        raise SpecError(f"{path.name} refers to itself.", option="spec") from None


def check_spec(fields: Any, name: str = "", where: Where = lambda keys: "", directory: Path | None = None) -> Spec:
    """Return *fields* as a spec.

    Parameters
    ----------
    name
        What it is called if it does not say.
    where
        Says where in its file a key is.
    directory
        What paths of TLS files are relative to.

    Raises
    ------
    SpecError
        It has faults: keys that do not exist, values of another type or out of range.
    """
    checker = _Checker(where)
    if not isinstance(fields, dict):
        raise SpecError(f"{where(())}a spec is a mapping of keys to values, not {_typed(fields)}.", option="spec")
    known = [field.name for field in dataclasses.fields(Spec)]
    for key in fields:
        if key not in known:
            checker.fault((str(key),), f"there is no key `{key}`.{did_you_mean(str(key), known)}")
    spec = Spec(
        name=checker.text(fields, "name", name or "cluster"),
        cluster_class=checker.text(fields, "cluster_class", ""),
        options=checker.mapping(fields, "options"),
        address=checker.text(fields, "address", ""),
        tls=checker.tls(fields, directory),
        python=checker.text(fields, "python", ""),
        nodes=checker.count(fields, "nodes", 0),
        adaptive=checker.adaptive(fields),
        idle_stop=checker.idle_stop(fields),
    )
    checker.together(spec)
    if checker.faults:
        raise SpecError("\n".join(checker.faults), option="spec")
    return spec


class _Checker:
    """Checks value by value, and goes on after a fault, so that all are told at once."""

    def __init__(self, where: Where) -> None:
        self._where = where
        self.faults: list[str] = []

    def fault(self, keys: tuple[str, ...], text: str) -> None:
        self.faults.append(f"{self._where(keys)}{text}")

    def text(self, fields: Mapping[str, Any], key: str, default: str) -> str:
        value = fields.get(key, default)
        if isinstance(value, str) and value.isprintable() and (value or not default):
            return value
        self.fault((key,), f"`{key}` is to be a text, not {_typed(value)}.")
        return default

    def mapping(self, fields: Mapping[str, Any], key: str) -> dict[str, Any]:
        value = fields.get(key)
        if value is None:
            return {}
        if not isinstance(value, dict) or not all(isinstance(name, str) for name in value):
            self.fault((key,), f"`{key}` is to be a mapping of names to values, not {_typed(value)}.")
            return {}
        try:
            json.dumps(value, allow_nan=False)
        except (TypeError, ValueError) as error:
            self.fault((key,), f"`{key}` holds what JSON cannot: {error}.")
            return {}
        return value

    def count(self, fields: Mapping[str, Any], key: str, least: int, keys: tuple[str, ...] = ()) -> int | None:
        value = fields.get(key)
        if value is None:
            return None
        if isinstance(value, bool) or not isinstance(value, int) or value < least:
            self.fault((*keys, key), f"`{key}` is to be a whole number from {least} up, not {_typed(value)}.")
            return None
        return value

    def adaptive(self, fields: Mapping[str, Any]) -> tuple[int, int] | None:
        given = self.mapping(fields, "adaptive")
        if not given:
            return None
        for key in given:
            if key not in ("minimum", "maximum"):
                hint = did_you_mean(key, ("minimum", "maximum"))
                self.fault(("adaptive", key), f"`adaptive` has no `{key}`.{hint}")
        least = self.count(given, "minimum", 0, ("adaptive",)) or 0
        most = self.count(given, "maximum", 1, ("adaptive",))
        if most is None:
            if "maximum" not in given:
                self.fault(("adaptive",), "`adaptive` needs a `maximum`.")
            return None
        if most < least:
            self.fault(("adaptive",), f"`maximum` ({most}) is less than `minimum` ({least}).")
        return least, most

    def idle_stop(self, fields: Mapping[str, Any]) -> float:
        value = fields.get("idle_stop") or 0
        if is_number(value) and math.isfinite(value) and (value == 0 or value >= LEAST_IDLE):
            return float(value)
        self.fault(
            ("idle_stop",),
            f"`idle_stop` is to be seconds, {LEAST_IDLE:g} or more, or 0 for never, not {_typed(value)}.",
        )
        return 0.0

    def tls(self, fields: Mapping[str, Any], directory: Path | None) -> dict[str, str]:
        given = self.mapping(fields, "tls")
        for key in given:
            if key not in _TLS_ROLES:
                hint = did_you_mean(key, _TLS_ROLES)
                self.fault(("tls", key), f"`tls` has no `{key}`; it has `ca`, `cert` and `key`.{hint}")
        found = {}
        for role in _TLS_ROLES if given else ():
            path = given.get(role)
            if not isinstance(path, str) or not path:
                self.fault(("tls",), f"`tls` needs the path of a file as `{role}`.")
                continue
            full = Path(os.path.expanduser(path))
            full = full if full.is_absolute() or directory is None else directory / full
            if not os.access(full, os.R_OK) or not full.is_file():
                self.fault(("tls", role), f"the file `{path}` cannot be read.")
            found[role] = str(full)
        return found

    def together(self, spec: Spec) -> None:
        """Check what goes with what."""
        if spec.cluster_class and spec.address:
            self.fault(("address",), "`cluster_class` starts a cluster and `address` joins one: leave one of them out.")
        if spec.cluster_class and not _DOTTED.fullmatch(spec.cluster_class):
            self.fault(
                ("cluster_class",),
                f"`cluster_class` is to be a path such as `dask.distributed.LocalCluster`, not `{spec.cluster_class}`.",
            )
        if spec.address and not re.fullmatch(r"(tls|tcp|ws|wss|ucx)://\S+", spec.address):
            self.fault(("address",), f"`{spec.address}` is no address such as `tls://10.0.0.4:8786`.")
        if spec.tls and not spec.address:
            self.fault(("tls",), "`tls` goes with `address`.")
        if spec.address:
            for key, value in (("options", spec.options), ("nodes", spec.nodes), ("adaptive", spec.adaptive)):
                if value:
                    self.fault((key,), f"`{key}` does not go with `address`: that cluster is somebody else's to scale.")
        elif not spec.cluster_class:
            self._embedded(spec)
        if spec.python and not (os.path.isabs(spec.python) and os.access(spec.python, os.X_OK)):
            self.fault(("python",), f"`{spec.python}` is not the full path of a Python interpreter.")

    def _embedded(self, spec: Spec) -> None:
        options = spec.options
        for key in options:
            if key not in EMBEDDED_OPTIONS:
                hint = did_you_mean(key, EMBEDDED_OPTIONS)
                self.fault(("options", key), f"a cluster on this machine has no option `{key}`.{hint}")
        self.count(options, "num_cpus", 1, ("options",))
        self.count(options, "object_store_memory", 1 << 20, ("options",))
        if spec.nodes == 0 or (spec.adaptive is not None and spec.adaptive[0] == 0):
            self.fault(("nodes" if spec.nodes == 0 else "adaptive",), "a cluster on this machine has 1 node or more.")
        try:
            changes = {"num_gpus": options.get("num_gpus") or 0, "resources": options.get("resources") or {}}
            with_changes(TaskOptions(), changes)
            check_labels("labels", options.get("labels") or {})
        except (OptionError, TypeError) as error:
            self.fault(("options",), str(error))


def _named(path: Path) -> NamedSpec:
    try:
        return NamedSpec(path.stem, path, read_spec(path))
    except SpecError as error:
        return NamedSpec(path.stem, path, None, str(error))


def _typed(value: Any) -> str:
    text = repr(value)
    return f"{text[:60]} ({type(value).__name__})" if value is not None else "nothing"


def _syntax_error(error: Exception) -> str:
    mark = getattr(error, "problem_mark", None)
    if mark is not None:
        return f"line {mark.line + 1}: {getattr(error, 'problem', '') or error}."
    if isinstance(error, json.JSONDecodeError):
        return f"line {error.lineno}: {error.msg}."
    return f"line 1: {error}."


def _line(node: Any, keys: tuple[str, ...]) -> int:
    """Return the line of the key at a path, or of what is nearest above it."""
    line = node.start_mark.line + 1 if node is not None else 1
    for key in keys:
        for name, value in node.value if isinstance(node, yaml.MappingNode) else ():
            if name.value == key:
                line, node = name.start_mark.line + 1, value
                break
        else:
            return line
    return line
