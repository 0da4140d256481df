"""When which stage of a pipeline works: what is expected of a schedule, what was measured, and a picture of both."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import NamedTuple

from shoal_ml.train.parallel.schedule_picture import to_svg

#: A backward pass takes about twice as long as its forward pass: gradients of inputs and of parameters.
BACKWARD = 2.0


class Work(NamedTuple):
    """One pass of one micro-batch through one stage."""

    stage: int
    #: ``"F"`` or ``"B"``.
    kind: str
    batch: int
    began: float
    ended: float


@dataclasses.dataclass(frozen=True)
class ScheduleChart:
    """When each stage worked; prints as a picture.

    Attributes
    ----------
    work
        All passes; times in the units of whoever measured them, from 0.
    num_stages
        Stages.
    """

    work: tuple[Work, ...]
    num_stages: int

    @property
    def length(self) -> float:
        """From the first begin to the last end."""
        return max((one.ended for one in self.work), default=0.0)

    @property
    def bubble_ratio(self) -> float:
        """The share of the time of all stages in which they waited, from 0 to 1."""
        busy = sum(one.ended - one.began for one in self.work)
        return 1.0 - busy / (self.num_stages * self.length) if self.length else 0.0

    def picture(self, width: int = 72) -> str:
        """Return a line for each stage: digits are forward passes, letters backward passes, dots are bubbles."""
        lines = []
        for stage in range(self.num_stages):
            cells = ["."] * width
            for one in self.work:
                if one.stage == stage:
                    first = int(one.began / self.length * width)
                    last = max(first + 1, round(one.ended / self.length * width))
                    mark = str(one.batch % 10) if one.kind == "F" else chr(ord("a") + one.batch % 26)
                    cells[first:last] = mark * (min(last, width) - first)
            lines.append(f"stage {stage}  {''.join(cells[:width])}")
        return "\n".join([*lines, f"bubbles {self.bubble_ratio:.0%}"])

    def __repr__(self) -> str:
        return self.picture()

    def _repr_mimebundle_(self, include: object = None, exclude: object = None) -> dict[str, str]:
        return {"text/plain": self.picture(), "image/svg+xml": to_svg(self)}

    def mean(self, kind: str) -> list[float]:
        """Return how long a pass takes on average, of each stage; *kind* is ``"F"`` or ``"B"``."""
        spans = [
            [one.ended - one.began for one in self.work if (one.stage, one.kind) == (stage, kind)]
            for stage in range(self.num_stages)
        ]
        return [sum(each) / len(each) if each else 0.0 for each in spans]

    def expected(self, schedule: str) -> ScheduleChart:
        """Return what *schedule* gives if each pass takes its stage's mean here, and nothing has to be waited for.

        Bubbles of a measured chart above those were spent on sending, or by ranks that shared a processor.
        """
        num_microbatches = 1 + max((one.batch for one in self.work), default=-1)
        return expected(schedule, self.num_stages, num_microbatches, self.mean("B"), self.mean("F"))


def expected(
    schedule: str,
    num_stages: int,
    num_microbatches: int,
    backward: float | Sequence[float] = BACKWARD,
    forward: float | Sequence[float] = 1.0,
) -> ScheduleChart:
    """Return what a schedule gives if sending takes no time; a pass takes equally long in all stages, or what is given.

    GPipe (Huang et al. 2019) does all forward passes and then all backward passes. 1F1B (Narayanan et al. 2019) begins
    backward passes as soon as it can, so that a stage holds at most *num_stages* micro-batches. If stages are alike,
    both have ``(num_stages - 1) / (num_microbatches + num_stages - 1)`` of bubbles.
    """
    spans = {"F": _each(forward, num_stages), "B": _each(backward, num_stages)}
    orders = [_order(schedule, stage, num_stages, num_microbatches) for stage in range(num_stages)]
    ended: dict[tuple[int, str, int], float] = {}
    free = [0.0] * num_stages
    at = [0] * num_stages
    work: list[Work] = []
    while any(at[stage] < len(orders[stage]) for stage in range(num_stages)):
        for stage in range(num_stages):
            while at[stage] < len(orders[stage]):
                kind, batch = orders[stage][at[stage]]
                needed = _needs(stage, kind, batch, num_stages)
                if needed is not None and needed not in ended:
                    break
                began = max(free[stage], 0.0 if needed is None else ended[needed])
                free[stage] = ended[stage, kind, batch] = began + spans[kind][stage]
                work.append(Work(stage, kind, batch, began, free[stage]))
                at[stage] += 1
    return ScheduleChart(tuple(work), num_stages)


def measured(work: Sequence[Work], num_stages: int) -> ScheduleChart:
    """Return the chart of passes that were timed by one clock."""
    begin = min((one.began for one in work), default=0.0)
    moved = (one._replace(began=one.began - begin, ended=one.ended - begin) for one in work)
    return ScheduleChart(tuple(moved), num_stages)


def _each(value: float | Sequence[float], num_stages: int) -> Sequence[float]:
    return [float(value)] * num_stages if isinstance(value, (int, float)) else value


def _order(schedule: str, stage: int, num_stages: int, num_microbatches: int) -> list[tuple[str, int]]:
    batches = range(num_microbatches)
    if schedule == "gpipe":
        return [("F", batch) for batch in batches] + [("B", batch) for batch in batches]
    ahead = min(num_stages - stage, num_microbatches)
    order = [("F", batch) for batch in range(ahead)]
    for batch in batches:
        order.append(("B", batch))
        if batch + ahead < num_microbatches:
            order.append(("F", batch + ahead))
    return order


def _needs(stage: int, kind: str, batch: int, num_stages: int) -> tuple[int, str, int] | None:
    if kind == "F":
        return (stage - 1, "F", batch) if stage else None
    return (stage + 1, "B", batch) if stage < num_stages - 1 else (stage, "F", batch)
