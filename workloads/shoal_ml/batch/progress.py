"""How far a run is: rows, rows a second, what waits and what is held, for each stage."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from shoal_ml.batch.blocks import Schema
    from shoal_ml.batch.flow import Flow
    from shoal_ml.batch.plan import PlannedStage
    from shoal_ml.batch.stage_work import Made


@dataclasses.dataclass(slots=True)
class TransformNotes:
    """What one transform has done: rows given, and seconds taken in all executors together."""

    name: str
    num_rows: int = 0
    seconds: float = 0.0


class RunProgress:
    """Written by the run's thread, read by any."""

    def __init__(self, flow: Flow, stages: Sequence[PlannedStage], cell: str | None) -> None:
        self.flow = flow
        self.cell = cell
        self.transforms = [[TransformNotes(transform.name) for transform in stage.transforms] for stage in stages]
        self.seconds = [0.0] * len(stages)
        self.schema: Schema = {}
        self._last = len(stages) - 1
        self.begin = self.end = 0.0

    def __enter__(self) -> RunProgress:
        self.begin = time.perf_counter()
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.end = time.perf_counter()

    def note(self, stage: int, made: Made) -> None:
        """A block has come from a stage."""
        self.seconds[stage] += made.seconds
        for notes, (rows, seconds) in zip(self.transforms[stage], made.notes, strict=False):
            notes.num_rows += rows
            notes.seconds += seconds
        if stage == self._last and made.schema:
            self.schema = made.schema

    @property
    def elapsed(self) -> float:
        """Seconds since the beginning, or that it took."""
        return (self.end or time.perf_counter()) - self.begin if self.begin else 0.0


__all__ = ["RunProgress", "TransformNotes"]
