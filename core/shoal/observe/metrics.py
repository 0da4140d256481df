"""Metrics of user code, as a process collects them: cheap to count, and told to the controller as changes.

There is one :class:`Registry` in each process (:data:`REGISTRY`). Its metrics live as long as the process, whatever
clusters it joins; a metric is what its name says, so whoever makes another of that name gets the same one.
"""

from __future__ import annotations

import os
import re
import threading
import warnings
from bisect import bisect_left
from collections.abc import Callable, Sequence
from itertools import pairwise
from math import inf
from typing import NamedTuple

from shoal.model.errors import OptionError

COUNTER, GAUGE, HISTOGRAM = "counter", "gauge", "histogram"
#: Combinations of tag values of one metric, in one process and in one job.
MAX_SERIES = 1_000
#: Metrics of one process, tags of one metric and classes of one histogram at most.
MAX_METRICS, MAX_TAGS, MAX_BOUNDARIES = 1_000, 16, 100
#: Characters of a name, of a tag's value, and of a description.
MAX_NAME_CHARS, MAX_VALUE_CHARS, MAX_DESCRIPTION_CHARS = 100, 200, 500
#: What the names of the built-in metrics begin with.
RESERVED_PREFIX = "shoal_"
#: Labels that are ours, or Prometheus's.
RESERVED_TAGS = ("job", "instance", "job_id", "process", "le", "quantile")

_NAME = re.compile(r"[a-zA-Z_][a-zA-Z0-9_]*")
_RESERVED_ENDS = ("_total", "_bucket", "_sum", "_count", "_created", "_info")


class Definition(NamedTuple):
    """What a metric is. ``boundaries`` are the upper ends of a histogram's classes, rising; the last class has none."""

    name: str
    kind: str
    description: str
    tag_keys: tuple[str, ...]
    boundaries: tuple[float, ...]

    def differs(self, other: Definition) -> str:
        """Say in which way the two cannot be one metric; "" if they can."""
        if self.kind != other.kind:
            return f"a {self.kind}, not a {other.kind}"
        if self.tag_keys != other.tag_keys:
            return f"with the tags {list(self.tag_keys)}, not {list(other.tag_keys)}"
        if self.boundaries != other.boundaries:
            return f"with the boundaries {list(self.boundaries)}, not {list(other.boundaries)}"
        return ""


#: A change as it travels: the metric's name, the values of its tags, and numbers. A counter's is what came to it, a
#: gauge's its value, a histogram's are what came to the sum and to each class.
Change = tuple[str, tuple[str, ...], tuple[float, ...]]
#: A definition as it travels.
DefinitionRow = tuple[str, str, str, tuple[str, ...], tuple[float, ...]]


class Series:
    """One metric with certain values of its tags, in this process. Its methods may be called on any thread."""

    __slots__ = ("_registry", "boundaries", "changed", "counts", "name", "tag_values", "total")

    def __init__(self, registry: Registry, name: str, tag_values: tuple[str, ...], boundaries: Sequence[float]) -> None:
        self._registry = registry
        self.name = name
        self.tag_values = tag_values
        self.boundaries = boundaries
        #: Whether the registry knows that there is something to take.
        self.changed = False
        #: Of a counter or histogram: what came to it since it was last taken; of a gauge: its value.
        self.total = 0.0
        self.counts: list[int] = []

    def add(self, amount: float) -> None:
        """Count."""
        with _lock:
            self.total += amount
        if not self.changed:
            self._registry.note(self)

    def put(self, value: float) -> None:
        """Set a gauge."""
        self.total = value
        if not self.changed:
            self._registry.note(self)

    def observe(self, value: float) -> None:
        """Count a value in its class."""
        index = bisect_left(self.boundaries, value)
        with _lock:
            if not self.counts:
                self.counts = [0] * (len(self.boundaries) + 1)
            self.counts[index] += 1
            self.total += value
        if not self.changed:
            self._registry.note(self)


class Metric:
    """One metric of this process."""

    def __init__(self, registry: Registry, definition: Definition) -> None:
        self._registry = registry
        self.definition = definition
        self._series: dict[tuple[str, ...], Series] = {}
        #: Gets what there is no room for; nobody looks at it.
        self._beyond: Series | None = None

    def series(self, tag_values: tuple[str, ...]) -> tuple[Series, bool]:
        """Return what counts for these values of the tags, and whether it does: beyond the limit it does not."""
        with _lock:
            found = self._series.get(tag_values)
            if found is not None:
                return found, True
            if len(self._series) < MAX_SERIES:
                found = self._series[tag_values] = self._make(tag_values)
                return found, True
            if self._beyond is not None:
                return self._beyond, False
            self._beyond = self._make(tag_values)
            self._beyond.changed = True
        warnings.warn(
            f"The metric `{self.definition.name}` has {MAX_SERIES:,} combinations of tag values in this process; "
            "further ones are not counted. Use tags that have few values.",
            UserWarning,
            stacklevel=4,
        )
        return self._beyond, False

    def all_series(self) -> list[Series]:
        return list(self._series.values())

    def _make(self, tag_values: tuple[str, ...]) -> Series:
        return Series(self._registry, self.definition.name, tag_values, self.definition.boundaries)


class Registry:
    """The metrics of a process, and what has changed in them since it was last taken."""

    def __init__(self) -> None:
        self._metrics: dict[str, Metric] = {}
        self._changed: list[Series] = []
        #: Metrics whose definition whoever takes the changes knows.
        self._told: set[str] = set()
        self._wake: Callable[[], None] | None = None

    def define(self, definition: Definition) -> Metric:
        """Return the metric of this name.

        Raises
        ------
        OptionError
            There is one that is something else, or there are too many.
        """
        with _lock:
            metric = self._metrics.get(definition.name)
            if metric is None:
                if len(self._metrics) >= MAX_METRICS:
                    raise OptionError(
                        f"There are {MAX_METRICS:,} metrics in this process: `{definition.name}` would be one too "
                        "many. Use tags where names differ by a value.",
                        option="name",
                    )
                metric = self._metrics[definition.name] = Metric(self, definition)
            elif difference := metric.definition.differs(definition):
                raise OptionError(
                    f"The metric `{definition.name}` exists in this process as {difference}. Choose another name, or "
                    "start a new process.",
                    option="name",
                )
            return metric

    def note(self, series: Series) -> None:
        """A series has changed since it was taken."""
        with _lock:
            series.changed = True
            self._changed.append(series)
            wake = self._wake if len(self._changed) == 1 else None
        if wake is not None:
            wake()

    @property
    def changed(self) -> bool:
        """Whether there is anything to take."""
        return bool(self._changed)

    def attach(self, wake: Callable[[], None] | None) -> None:
        """Whoever takes the changes from now on knows nothing yet.

        ``wake()`` is called, on any thread, when there is something to take and before that was not.
        """
        with _lock:
            self._wake = wake
            self._told.clear()
            for metric in self._metrics.values():
                if metric.definition.kind == GAUGE:
                    for series in metric.all_series():
                        if not series.changed:
                            series.changed = True
                            self._changed.append(series)
        if self._changed and wake is not None:
            wake()

    def detach(self, wake: Callable[[], None] | None) -> None:
        """Nobody takes the changes any more, unless somebody else has come meanwhile."""
        with _lock:
            if self._wake == wake:
                self._wake = None

    def take(self) -> tuple[tuple[DefinitionRow, ...], tuple[Change, ...]]:
        """Return the definitions that were not told yet, and what has changed since last time."""
        defined: list[DefinitionRow] = []
        changes: list[Change] = []
        with _lock:
            changed, self._changed = self._changed, []
            for series in changed:
                series.changed = False
                definition = self._metrics[series.name].definition
                if series.name not in self._told:
                    self._told.add(series.name)
                    defined.append(definition)
                changes.append((series.name, series.tag_values, (series.total, *series.counts)))
                if definition.kind != GAUGE:
                    series.total = 0.0
                    series.counts = []
        return tuple(defined), tuple(changes)


def check_definition(definition: Definition) -> Definition:
    """Return the definition if it can be one.

    Raises
    ------
    OptionError
        A name or boundary cannot be.
    """
    name, kind, description, tag_keys, boundaries = definition
    _check_name("name", name)
    if name.startswith(RESERVED_PREFIX) or name.endswith(_RESERVED_ENDS):
        raise OptionError(
            f"The name of a metric must not begin with `{RESERVED_PREFIX}` nor end with any of "
            f"{', '.join(_RESERVED_ENDS)}, which Prometheus adds itself: {name!r}.",
            option="name",
        )
    if not isinstance(description, str) or len(description) > MAX_DESCRIPTION_CHARS:
        raise OptionError(
            f"`description` must be a string of up to {MAX_DESCRIPTION_CHARS} characters.", option="description"
        )
    if len(tag_keys) > MAX_TAGS or len(set(tag_keys)) < len(tag_keys):
        raise OptionError(f"`tag_keys` must be up to {MAX_TAGS} different names, not {tag_keys!r}.", option="tag_keys")
    for key in tag_keys:
        _check_name("tag_keys", key)
        if key in RESERVED_TAGS or key.startswith("__"):
            raise OptionError(
                f"A tag cannot be called `{key}`: that name is taken ({', '.join(RESERVED_TAGS)}, and what begins "
                "with `__`).",
                option="tag_keys",
            )
    rising = all(low < high for low, high in pairwise(boundaries))
    finite = all(-inf < boundary < inf for boundary in boundaries)
    if kind == HISTOGRAM and not (0 < len(boundaries) <= MAX_BOUNDARIES and rising and finite):
        raise OptionError(
            f"`boundaries` must be 1 to {MAX_BOUNDARIES} rising numbers, not {list(boundaries)!r}.",
            option="boundaries",
        )
    return definition


def _check_name(option: str, name: object) -> None:
    if not (isinstance(name, str) and _NAME.fullmatch(name) and len(name) <= MAX_NAME_CHARS):
        raise OptionError(
            f"Names of metrics and tags are letters, digits and `_`, up to {MAX_NAME_CHARS} of them, and begin with no "
            f"digit: {name!r} is not.",
            option=option,
        )


# Of all registries: made anew in a forked child, whose other threads are gone.
_lock = threading.RLock()
#: This process's.
REGISTRY = Registry()


def _at_fork() -> None:
    """A forked child tells nobody: what its parent has not told is its parent's to tell."""
    global _lock
    _lock = threading.RLock()
    REGISTRY.attach(None)
    REGISTRY.take()


os.register_at_fork(after_in_child=_at_fork)

__all__ = ["COUNTER", "GAUGE", "HISTOGRAM", "REGISTRY", "Definition", "Metric", "Registry", "Series"]
