"""The session of a rank: what stands behind ``report`` in a training run."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import shoal
from shoal_ml.train.checkpoints import Checkpoint
from shoal_ml.train.context import TrainContext
from shoal_ml.train.errors import NotFiniteError
from shoal_ml.train.group.coordinator import Orders
from shoal_ml.train.group.meter import Meter
from shoal_ml.train.group.reports import RankReport, Saved
from shoal_ml.train.group.writing import CheckpointWriter, write_all
from shoal_ml.train.session import Session, Stopped, not_finite


class Link(Protocol):
    """How a rank reaches whoever takes the reports of its group."""

    def report(self, report: RankReport) -> Orders: ...

    def saved(self, rank: int, number: int, saved: Saved) -> None: ...


class Start(NamedTuple):
    """What a group goes on from."""

    #: Number of the last report before.
    number: int = 0
    #: Directory of the checkpoint, or "".
    path: str = ""
    #: Ref of its manifest and files, for ranks that cannot read the directory.
    content: Any = None


class RankSession(Session):
    """See :class:`shoal_ml.train.session.Session`."""

    def __init__(
        self,
        context: TrainContext,
        link: Link,
        start: Start,
        *,
        drafts: Path | None,
        asynchronous: bool,
        allow_nan: bool,
    ) -> None:
        self.context = context
        self.shards: dict[str, Any] = {}
        self.meter = Meter()
        #: Optimizers whose parameter groups follow the settings.
        self.optimizers: list[Any] = []
        self._link = link
        self._start = start
        self._number = start.number
        self._can_read = drafts is not None
        self._allow_nan = allow_nan
        self._settings: dict[str, Any] = {}
        self._received: tempfile.TemporaryDirectory[str] | None = None
        self._writer = CheckpointWriter(
            context.rank, drafts, asynchronous, lambda number, saved: link.saved(context.rank, number, saved)
        )

    def report(self, metrics: dict[str, Any], checkpoint: Any) -> Mapping[str, Any]:
        lap = self.meter.lap()
        number = self._number + 1
        bad = "" if self._allow_nan else not_finite(metrics)
        if bad:
            raise NotFiniteError(
                f"Rank {self.context.rank} reports `{bad}` = {metrics[bad]} in report {number}. The last checkpoint is "
                "from before. Lower the learning rate, clip gradients, or look for zeros in divisions and logarithms; "
                "`FailureConfig(allow_nan=True)` lets such values pass.",
                rank=self.context.rank,
                metric=bad,
                report=number,
            )
        has_part = self._writer.has_part(checkpoint)
        saved = self._writer.write(number, checkpoint) if has_part else None
        orders = self._link.report(RankReport(self.context.rank, number, metrics, dict(lap), has_part, saved))  # type: ignore[arg-type]
        self._number = number
        self._obey(orders)
        self.meter.restart()
        return dict(self._settings)

    def get_checkpoint(self) -> Checkpoint | None:
        if not self._start.path or self._can_read or self._start.content is None:
            return Checkpoint(self._start.path) if self._start.path else None
        if self._received is None:
            self._received = tempfile.TemporaryDirectory(prefix="shoal-checkpoint-")
            write_all(Path(self._received.name), shoal.get(self._start.content))
        return Checkpoint(self._received.name, keeper=self._received)

    def finish(self) -> None:
        """Wait for the checkpoint that is being written, and raise what went wrong with it."""
        self._writer.finish()

    def close(self) -> None:
        """Let go what belongs to the session."""
        self._writer.close()

    def _obey(self, orders: Orders) -> None:
        if orders.error is not None:
            raise orders.error
        for name, value in orders.settings.items():
            if self._settings.get(name) != value:
                self._settings[name] = value
                for group in (group for optimizer in self.optimizers for group in optimizer.param_groups):
                    if name in group:
                        group[name] = value
        if orders.stop:
            raise Stopped
