"""What a training run has brought."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

from shoal_ml.train.checkpoints import Checkpoint
from shoal_ml.train.run_directory import RunDirectory


@dataclasses.dataclass(frozen=True)
class Result:
    """What :meth:`TorchTrainer.fit` returns.

    Attributes
    ----------
    metrics
        The last that rank 0 has reported.
    checkpoint, best_checkpoint
        The newest, and the best by ``CheckpointConfig(score=…)``; None if there are none.
    returned
        What the loop has returned, of each rank.
    num_failures
        How often the group was started again after a failure.
    seconds
        From the call of ``fit`` to its end.
    path
        Directory of the run. A temporary one goes with this result and its checkpoints.
    """

    metrics: dict[str, Any]
    checkpoint: Checkpoint | None
    best_checkpoint: Checkpoint | None
    returned: list[Any]
    num_failures: int
    seconds: float
    path: Path
    directory: RunDirectory = dataclasses.field(repr=False)

    @property
    def history(self) -> list[dict[str, Any]]:
        """Rank 0's reports: one mapping each, with ``report``, ``seconds``, ``rss`` (bytes) and ``num_rows``."""
        return [rows[0] for rows in self.directory.rounds()]

    @property
    def metrics_dataframe(self) -> Any:
        """The reports of all ranks as a pandas data frame: a row for each report and rank."""
        import pandas as pd

        return pd.DataFrame([row for rows in self.directory.rounds() for row in rows])

    @property
    def checkpoints(self) -> list[Checkpoint]:
        """All checkpoints that were kept, the oldest first."""
        return self.directory.checkpoints()
