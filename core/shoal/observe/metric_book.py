"""The metrics of a whole cluster, added up from what its processes report.

Counters and histograms are added up for each job and stay when a process ends. Gauges are kept for each process, and
go with it.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable
from typing import Any, NamedTuple

from shoal.observe.metrics import GAUGE, HISTOGRAM, MAX_SERIES, Change, Definition, DefinitionRow

#: Metrics at most, and jobs that have ended whose numbers are kept: the newest.
MAX_METRICS, MAX_ENDED_JOBS = 2_000, 100


class SeriesRow(NamedTuple):
    """One series as it is told. ``process`` is that of a gauge, else "".

    ``numbers`` are a counter's or gauge's value, or a histogram's sum and how many there are in each class.
    """

    job: str
    process: str
    tag_values: tuple[str, ...]
    numbers: tuple[float, ...]


class _Entry:
    def __init__(self, definition: Definition) -> None:
        self.definition = definition
        #: By job, and in that by process and tag values.
        self.jobs: dict[str, dict[tuple[str, tuple[str, ...]], tuple[float, ...]]] = {}
        #: It was said that there are too many.
        self.full = False


class MetricBook:
    """See the module's description."""

    def __init__(self) -> None:
        self._metrics: dict[str, _Entry] = {}
        #: Metrics that some process means something else by: nothing of it is counted.
        self._misunderstood: dict[str, set[str]] = {}
        self._ended_jobs: OrderedDict[str, None] = OrderedDict()
        self._full = False

    def add(self, process: str, job: str, defined: Iterable[DefinitionRow], changes: Iterable[Change]) -> list[str]:
        """A process of a job tells what has changed; returns what a person should know of that, mostly nothing."""
        complaints: list[str] = []
        for row in defined:
            complaints += self._define(process, Definition(row[0], row[1], row[2], tuple(row[3]), tuple(row[4])))
        strange = self._misunderstood.get(process, ())
        for name, tag_values, numbers in changes:
            entry = self._metrics.get(name)
            if entry is not None and name not in strange:
                complaints += self._change(entry, process, job, tuple(tag_values), tuple(numbers))
        return complaints

    def process_left(self, process: str) -> None:
        """Its gauges say nothing any more."""
        self._misunderstood.pop(process, None)
        for entry in self._metrics.values():
            if entry.definition.kind == GAUGE:
                for job, series in list(entry.jobs.items()):
                    for key in [key for key in series if key[0] == process]:
                        del series[key]
                    if not series:
                        del entry.jobs[job]

    def job_ended(self, job: str) -> None:
        """Keep the numbers of the newest jobs that have ended."""
        self._ended_jobs[job] = None
        while len(self._ended_jobs) > MAX_ENDED_JOBS:
            oldest, _ = self._ended_jobs.popitem(last=False)
            for entry in self._metrics.values():
                entry.jobs.pop(oldest, None)
            for name in [name for name, entry in self._metrics.items() if not entry.jobs]:
                del self._metrics[name]

    def rows(self) -> tuple[tuple[DefinitionRow, tuple[SeriesRow, ...]], ...]:
        """Return every metric: its definition and its series, as plain data."""
        return tuple(
            (
                entry.definition,
                tuple(
                    SeriesRow(job, process, tag_values, numbers)
                    for job, series in entry.jobs.items()
                    for (process, tag_values), numbers in series.items()
                ),
            )
            for entry in self._metrics.values()
        )

    def _define(self, process: str, definition: Definition) -> list[str]:
        entry = self._metrics.get(definition.name)
        if entry is None:
            if len(self._metrics) < MAX_METRICS:
                self._metrics[definition.name] = _Entry(definition)
                return []
            complaint = f"there are {MAX_METRICS:,} metrics: `{definition.name}` and further ones are not counted"
            first, self._full = not self._full, True
            return [complaint] if first else []
        difference = entry.definition.differs(definition)
        if not difference:
            return []
        self._misunderstood.setdefault(process, set()).add(definition.name)
        return [f"the metric `{definition.name}` exists as {difference}: what `{process}` reports is not counted"]

    def _change(
        self, entry: _Entry, process: str, job: str, tag_values: tuple[str, ...], numbers: tuple[float, ...]
    ) -> list[str]:
        definition = entry.definition
        classes = len(definition.boundaries) + 1
        expected = 1 + classes if definition.kind == HISTOGRAM else 1
        if len(numbers) != expected or len(tag_values) != len(definition.tag_keys):
            return []
        series = entry.jobs.setdefault(job, {})
        key = (process if definition.kind == GAUGE else "", tag_values)
        before = series.get(key)
        if before is None and len(series) >= MAX_SERIES:
            first, entry.full = not entry.full, True
            text = (
                f"the metric `{definition.name}` has {MAX_SERIES:,} combinations of tag values in one job; further "
                "ones are not counted"
            )
            return [text] if first else []
        if before is not None and definition.kind != GAUGE:
            numbers = tuple(old + new for old, new in zip(before, numbers, strict=True))
        series[key] = numbers
        return []


class MetricRow(NamedTuple):
    """One metric with certain values of its tags, as :func:`shoal.metrics.read` returns it.

    Attributes
    ----------
    name, kind
        ``kind`` is ``counter``, ``gauge`` or ``histogram``.
    job
        Id of the job that it was counted in.
    process
        Id of the driver or executor that has set a gauge; "" for what is added up over processes.
    tags
        Their values, by name.
    value
        The counter's or gauge's value, or the sum of all that a histogram has observed.
    num_observed
        How many values a histogram has observed; 0 for others.
    buckets
        How many of them were at most so large, by boundary; the last boundary is infinite.
    """

    name: str
    kind: str
    job: str
    process: str
    tags: dict[str, str]
    value: float
    num_observed: int
    buckets: dict[float, int]


def metric_rows(told: Iterable[Any]) -> list[MetricRow]:
    """Return one row for each series of what :meth:`MetricBook.rows` has told."""
    found = []
    for definition_row, series in told:
        definition = Definition(*definition_row)
        for job, process, tag_values, numbers in series:
            tags = dict(zip(definition.tag_keys, tag_values, strict=True))
            buckets: dict[float, int] = {}
            if definition.kind == HISTOGRAM:
                buckets = cumulate(definition.boundaries, numbers[1:])
            count = next(reversed(buckets.values()), 0)
            found.append(MetricRow(definition.name, definition.kind, job, process, tags, numbers[0], count, buckets))
    return found


def cumulate(boundaries: Iterable[float], counts: Iterable[float]) -> dict[float, int]:
    """Return how many values were at most so large, by boundary; the last is infinite."""
    buckets, total = {}, 0
    for boundary, count in zip((*boundaries, float("inf")), counts, strict=True):
        total += int(count)
        buckets[boundary] = total
    return buckets


__all__ = ["MetricBook", "MetricRow", "SeriesRow", "cumulate", "metric_rows"]
