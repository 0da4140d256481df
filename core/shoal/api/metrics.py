"""Counters, gauges and histograms for user code, in drivers, tasks and actors alike."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import inf
from typing import TYPE_CHECKING, Any, ClassVar

from shoal.api.looking import look
from shoal.model.errors import OptionError
from shoal.observe.metrics import (
    COUNTER,
    GAUGE,
    HISTOGRAM,
    MAX_SERIES,
    MAX_VALUE_CHARS,
    REGISTRY,
    RESERVED_PREFIX,
    Definition,
    Series,
    check_definition,
)
from shoal.runtime import session as current

if TYPE_CHECKING:
    from shoal.observe.metric_book import MetricRow

#: The classes of a histogram by default: seconds, from a millisecond to a quarter of an hour.
BOUNDARIES = (0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0, 30.0, 100.0, 300.0, 1000.0)


class _UserMetric:
    """What the three have in common: name, tags, and one series for each combination of tag values.

    It can be used on any thread, and in any process it travels to: pickled as a variable of a task, it is that
    process's metric of the same name.
    """

    _kind: ClassVar[str]

    def __init__(
        self, name: str, description: str = "", tag_keys: Sequence[str] = (), boundaries: Sequence[float] = ()
    ) -> None:
        if isinstance(tag_keys, str):
            raise OptionError(f"`tag_keys` must be a sequence of names, not {tag_keys!r}.", option="tag_keys")
        definition = Definition(name, self._kind, description, tuple(tag_keys), tuple(boundaries))
        self._metric = REGISTRY.define(check_definition(definition))
        self._default_tags: dict[str, str] = {}
        #: Series by what was passed as ``tags``.
        self._known: dict[tuple[tuple[str, str], ...], Series] = {}
        #: That of no tags at all, once it was used.
        self._plain: Series | None = None

    @property
    def name(self) -> str:
        return self._metric.definition.name

    @property
    def description(self) -> str:
        return self._metric.definition.description

    @property
    def tag_keys(self) -> tuple[str, ...]:
        return self._metric.definition.tag_keys

    def set_default_tags(self, tags: Mapping[str, str]) -> None:
        """Give the values of tags that are not named with a number, for this object here.

        Raises
        ------
        OptionError
            There is no such tag, or a value is no string.
        """
        self._check(tags)
        self._default_tags = dict(tags)
        self._known, self._plain = {}, None

    def _series(self, tags: Mapping[str, str] | None) -> Series:
        if tags is None:
            return self._plain or self._resolve({})
        try:
            return self._known[tuple(tags.items())]
        except (KeyError, TypeError, AttributeError):
            return self._resolve(tags)

    def _resolve(self, tags: Mapping[str, str]) -> Series:
        self._check(tags)
        merged = {**self._default_tags, **tags}
        missing = [key for key in self.tag_keys if key not in merged]
        if missing:
            raise OptionError(
                f"The metric `{self.name}` needs a value for the tag `{missing[0]}`: pass `tags=`, or call "
                "`set_default_tags`.",
                option="tags",
            )
        series, counts = self._metric.series(tuple(merged[key] for key in self.tag_keys))
        if counts and len(self._known) < 2 * MAX_SERIES:
            self._known[tuple(tags.items())] = series
            if not tags:
                self._plain = series
        return series

    def _check(self, tags: Mapping[str, str]) -> None:
        if not isinstance(tags, Mapping):
            raise OptionError(f"`tags` must be a dict of strings, not {tags!r}.", option="tags")
        for key, value in tags.items():
            if key not in self.tag_keys:
                known = ", ".join(f"`{name}`" for name in self.tag_keys) or "none"
                raise OptionError(f"The metric `{self.name}` has no tag {key!r} (it has {known}).", option="tags")
            if not isinstance(value, str) or len(value) > MAX_VALUE_CHARS:
                raise OptionError(
                    f"The tag `{key}` of the metric `{self.name}` must be a string of up to {MAX_VALUE_CHARS} "
                    f"characters, not {value!r}.",
                    option="tags",
                )

    def _refuse(self, value: object, rule: str) -> OptionError:
        return OptionError(f"The metric `{self.name}` takes {rule}, not {value!r}.", option="value")

    def __reduce__(self) -> Any:
        d = self._metric.definition
        return _remake, (type(self), d.name, d.description, d.tag_keys, d.boundaries, self._default_tags)

    def __repr__(self) -> str:
        tags = f", tags {', '.join(self.tag_keys)}" if self.tag_keys else ""
        return f"<{type(self).__name__} `{self.name}`{tags}>"


def _remake(
    kind: type[_UserMetric],
    name: str,
    description: str,
    tag_keys: tuple[str, ...],
    boundaries: tuple[float, ...],
    default_tags: dict[str, str],
) -> _UserMetric:
    more = {"boundaries": boundaries} if boundaries else {}
    metric = kind(name, description, tag_keys, **more)
    if default_tags:
        metric.set_default_tags(default_tags)
    return metric


class Counter(_UserMetric):
    """Counts what happens, in any process of the cluster; the sum is that of the whole job.

    Parameters
    ----------
    name
        Letters, digits and ``_``. Whoever uses the same name, in whatever process, counts the same.
    description
        One sentence for whoever reads the numbers.
    tag_keys
        Names of the tags that tell numbers apart. Each combination of their values is one series; a metric has up to
        1,000 of them, and further ones are not counted.

    Raises
    ------
    OptionError
        The name cannot be one, or is that of another metric.

    Examples
    --------
    >>> import shoal
    >>> rows = shoal.metrics.Counter("rows_read", "Rows read from disk.", tag_keys=("table",))
    >>> rows.inc(100, tags={"table": "users"})
    """

    _kind = COUNTER

    def __init__(self, name: str, description: str = "", tag_keys: Sequence[str] = ()) -> None:
        super().__init__(name, description, tag_keys)

    def inc(self, value: float = 1.0, tags: Mapping[str, str] | None = None) -> None:
        """Count *value*, 0 or more. Takes less than a microsecond; the cluster is told a few times a second."""
        series = self._plain if tags is None else self._series(tags)
        try:
            amount = float(value)
        except (TypeError, ValueError):
            raise self._refuse(value, "a number from 0 up") from None
        if not 0.0 <= amount < inf:
            raise self._refuse(value, "a number from 0 up")
        (series or self._series(tags)).add(amount)


class Gauge(_UserMetric):
    """Shows how something is right now in each process that sets it, and goes with the process.

    Parameters and errors are those of :class:`Counter`.
    """

    _kind = GAUGE

    def __init__(self, name: str, description: str = "", tag_keys: Sequence[str] = ()) -> None:
        super().__init__(name, description, tag_keys)

    def set(self, value: float, tags: Mapping[str, str] | None = None) -> None:
        """Show *value* from now on."""
        series = self._series(tags)
        try:
            series.put(float(value))
        except (TypeError, ValueError):
            raise self._refuse(value, "a number") from None


class Histogram(_UserMetric):
    """Counts values by their size, in any process of the cluster; the counts are those of the whole job.

    Parameters
    ----------
    name, description, tag_keys
        See :class:`Counter`.
    boundaries
        The upper ends of the classes that values are counted in, rising; above the last there is one more class. By
        default they suit seconds, from a millisecond to a quarter of an hour.
    """

    _kind = HISTOGRAM

    def __init__(
        self,
        name: str,
        description: str = "",
        tag_keys: Sequence[str] = (),
        boundaries: Sequence[float] = BOUNDARIES,
    ) -> None:
        try:
            numbers = tuple(float(boundary) for boundary in boundaries)
        except (TypeError, ValueError):
            raise OptionError(
                f"`boundaries` must be rising numbers, not {boundaries!r}.", option="boundaries"
            ) from None
        super().__init__(name, description, tag_keys, numbers)

    def observe(self, value: float, tags: Mapping[str, str] | None = None) -> None:
        """Count one *value*."""
        series = self._series(tags)
        try:
            number = float(value)
        except (TypeError, ValueError):
            raise self._refuse(value, "a finite number") from None
        if not -inf < number < inf:
            raise self._refuse(value, "a finite number")
        series.observe(number)


def read(name: str | None = None, *, timeout: float = 5.0) -> list[MetricRow]:
    """Return the metrics of user code in the whole cluster, as they are now.

    What this process has counted is in it; what others count comes a quarter of a second later at most. What a process
    that was killed had not told by then is lost.

    Parameters
    ----------
    name
        Of one metric; all of them by default.
    timeout
        Seconds to wait for the cluster's answer.

    Returns
    -------
    list of MetricRow
        One for each metric, job, process (of gauges) and combination of tags; ``pandas.DataFrame(rows)`` is a table.

    Raises
    ------
    NotInitializedError
        This process has no cluster.
    TimeoutError
        It did not answer in time.
    """
    from shoal.observe.metric_book import metric_rows

    owner = current.get_owner()
    owner.tell_metrics()
    rows = metric_rows(look(owner, "metrics", timeout=timeout))
    return [row for row in rows if row.name == name or (name is None and not row.name.startswith(RESERVED_PREFIX))]


__all__ = ["Counter", "Gauge", "Histogram", "read"]
