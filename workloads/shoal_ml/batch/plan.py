"""Plans: a source and what is to be done to its blocks; and how that is divided into stages.

A :class:`Plan` is what a dataset holds: immutable, nothing of it has run. :func:`make_stages` fuses steps that can run
in one process, one after the other, into stages:

- functions that are called in tasks, and the reading before them, become one stage: rows go from one to the next
  without leaving the process;
- a class is a pool of replicas, a stage of its own, so that reading and preprocessing overlap with it; choosing and
  renaming columns after it joins it;
- a limit is a stage that does no work. It goes before steps that make one row of each.
"""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from shoal_ml.batch.flow import StageSpec
from shoal_ml.batch.sources.source import Source, Wishes
from shoal_ml.batch.transforms import Columns, Transform

if TYPE_CHECKING:
    from shoal_ml.batch.replicas import Replicas
    from shoal_ml.batch.stage_work import Made

#: Work that a replica holds: the piece it works on, and one that waits, so that it never idles between two.
CALLS_PER_REPLICA = 2
#: Tasks of a stage that are submitted for each CPU: one that runs and one that waits.
TASKS_PER_CPU = 2


@dataclasses.dataclass(frozen=True, slots=True)
class Compute:
    """Where a step runs.

    Attributes
    ----------
    options
        Options of its tasks or of its replicas, such as ``num_cpus``.
    concurrency
        For a pool: smallest and largest number of replicas, None for as many as there are CPUs. For tasks: the largest
        number at once.
    is_pool
        Whether it runs in replicas.
    replicas
        Replicas that are there already, or are to be kept afterwards.
    listen
        Called when a run begins; what it returns is then called with what is told of each block that the stage makes,
        on the run's thread. What that raises ends the run.
    """

    options: tuple[tuple[str, Any], ...] = ()
    concurrency: tuple[int, int] | None = None
    is_pool: bool = False
    replicas: Replicas | None = None
    listen: Callable[[], Callable[[Made], None]] | None = None


@dataclasses.dataclass(frozen=True, slots=True)
class Step:
    """A transform and where it runs; or a limit."""

    transform: Transform | None = None
    compute: Compute = Compute()
    limit: int | None = None

    @property
    def name(self) -> str:
        return f"limit({self.limit})" if self.transform is None else self.transform.name


@dataclasses.dataclass(frozen=True, slots=True)
class Plan:
    """A source and the steps that follow."""

    source: Source
    steps: tuple[Step, ...] = ()

    def then(self, step: Step) -> Plan:
        """Return the plan with one more step, where it is best."""
        steps = list(self.steps)
        place = len(steps)
        if step.limit is not None:
            while place and _lets_limit_pass(steps[place - 1]):
                place -= 1
        return dataclasses.replace(self, steps=(*steps[:place], step, *steps[place:]))

    def wishes(self, num_cpus: int) -> Wishes:
        """Return what the plan would like of its source."""
        columns = None
        first = next(iter(self.steps), None)
        if first is not None and isinstance(first.transform, Columns) and first.transform.how == "select":
            columns = first.transform.names
        sizes = [step.transform.batch_rows for step in self.steps if step.transform is not None]
        return Wishes(max(1, num_cpus), next((size for size in sizes if size), 1), columns)


def _lets_limit_pass(step: Step) -> bool:
    return step.transform is not None and step.transform.keeps_rows


@dataclasses.dataclass(frozen=True, slots=True)
class PlannedStage:
    """A stage, as it is run.

    Attributes
    ----------
    spec
        For the flow machine.
    transforms
        What it does, in order.
    reads
        Whether it reads pieces of the source.
    """

    spec: StageSpec
    transforms: tuple[Transform, ...] = ()
    compute: Compute = Compute()
    reads: bool = False


def make_stages(plan: Plan, num_cpus: int, totals: Mapping[str, float] | None = None) -> list[PlannedStage]:
    """Divide a plan into stages for a cluster of this many CPUs.

    Parameters
    ----------
    totals
        All that the cluster has, to find how many replicas fit; None if that does not matter.

    Raises
    ------
    InfeasibleError
        A pool cannot have a single replica beside the others.
    """
    groups = _fuse(plan)
    sizes = fit_pools([group[0].compute for group in groups if group[0].compute.is_pool], num_cpus, totals or {})
    stages = []
    for position, group in enumerate(groups):
        reads = position == 0 and plan.source.reads
        size = sizes.pop(0) if group[0].compute.is_pool else None
        stages.append(_make_stage(plan, group, reads, size, num_cpus))
    if any(_needs(stage.compute).get("num_cpus") for stage in stages if stage.compute.is_pool):
        stages = [_beside_pools(stage) for stage in stages]
    return stages


def _beside_pools(stage: PlannedStage) -> PlannedStage:
    """Have tasks reserve nothing where replicas reserve CPUs: these might take all, and wait for the tasks for ever."""
    options = dict(stage.compute.options)
    if stage.compute.is_pool or "num_cpus" in options:
        return stage
    compute = dataclasses.replace(stage.compute, options=(*stage.compute.options, ("num_cpus", 0)))
    return dataclasses.replace(stage, compute=compute)


def _fuse(plan: Plan) -> list[list[Step]]:
    groups: list[list[Step]] = [[Step()]] if plan.source.reads else []
    for step in plan.steps:
        if groups and _joins(step, groups[-1]):
            groups[-1].append(step)
        else:
            groups.append([step])
    return groups or [[Step(limit=sys.maxsize)]]


def _joins(step: Step, group: Sequence[Step]) -> bool:
    """Whether a step runs in the same process as the steps before it."""
    if step.transform is None or step.compute.is_pool or group[0].limit is not None:
        return False
    if group[0].compute.is_pool:
        return step.transform.is_light
    theirs = {earlier.compute for earlier in group if earlier.transform and not earlier.transform.is_light}
    return step.transform.is_light or not theirs or theirs == {step.compute}


def _make_stage(
    plan: Plan, group: Sequence[Step], reads: bool, size: tuple[int, int] | None, cpus: int
) -> PlannedStage:
    transforms = tuple(step.transform for step in group if step.transform is not None)
    names = [transform.name for transform in transforms]
    name = " → ".join([plan.source.name, *names] if reads or group[0].limit == sys.maxsize else names)
    if group[0].limit is not None:
        return PlannedStage(StageSpec(name if group[0].limit == sys.maxsize else group[0].name, limit=group[0].limit))
    compute = next((s.compute for s in group if s.transform is not None and not s.transform.is_light), group[0].compute)
    min_rows = 0 if reads or not transforms else transforms[0].batch_rows
    if size is not None:
        spec = StageSpec(name, CALLS_PER_REPLICA, size, min_rows)
    else:
        most = compute.concurrency[1] if compute.concurrency else TASKS_PER_CPU * cpus
        spec = StageSpec(name, most, None, min_rows)
    return PlannedStage(spec, transforms, compute, reads)


def fit_pools(pools: Sequence[Compute], num_cpus: int, totals: Mapping[str, float]) -> list[tuple[int, int]]:
    """Return how many replicas each pool may have, smallest and largest, so that all of them are there at once.

    Each gets one; what is left goes round until all have what they want.

    Raises
    ------
    InfeasibleError
        One replica of each is more than the cluster has.
    """
    from shoal.errors import InfeasibleError

    wanted = [pool.concurrency or (num_cpus, num_cpus) for pool in pools]
    needs = [_needs(pool) for pool in pools]
    left = dict(totals)
    sizes = [0] * len(pools)
    for rank in range(max((most for _, most in wanted), default=0)):
        for index, need in enumerate(needs):
            fits = not totals or all(left.get(name, 0.0) >= amount - 1e-9 for name, amount in need.items())
            if not fits and not rank:
                raise InfeasibleError(
                    f"A replica needs {_told(need)}, and the cluster has {_told(totals)} in all: not one replica of "
                    "each pool fits. Ask for less, or add a node.",
                    asked=need,
                    largest=dict(totals),
                )
            if fits and sizes[index] == rank and sizes[index] < wanted[index][1]:
                sizes[index] += 1
                for name, amount in need.items():
                    left[name] = left.get(name, 0.0) - amount
    return [(min(fewest, size), size) for (fewest, _), size in zip(wanted, sizes, strict=True)]


def _needs(pool: Compute) -> dict[str, float]:
    options = dict(pool.options)
    needs = {name: float(options[name]) for name in ("num_cpus", "num_gpus", "memory") if options.get(name)}
    return needs | {name: float(amount) for name, amount in (options.get("resources") or {}).items() if amount}


def _told(amounts: Mapping[str, float]) -> str:
    return ", ".join(f"{name}={amount:g}" for name, amount in amounts.items()) or "nothing"


__all__ = ["Compute", "Plan", "PlannedStage", "Step", "fit_pools", "make_stages"]
