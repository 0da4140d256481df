"""Loggers: where else a run's metrics go. They run in the driver, and import what they need when a run begins.

Any object with the methods of :class:`Logger` will do: ``RunConfig(loggers=(MyLogger(),))``.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from shoal_ml.train.checkpoints import Checkpoint


class Logger:
    """Is told of a run, in its order: ``begin`` (again after each failure), reports and checkpoints, ``end``."""

    def begin(self, name: str, config: Any) -> None:
        """A group of ranks starts; *config* is what the loop gets."""

    def log_metrics(self, report: int, metrics: Mapping[str, Any]) -> None:
        """All ranks have reported; *metrics* are those of rank 0."""

    def log_checkpoint(self, report: int, checkpoint: Checkpoint) -> None:
        """A checkpoint is stored."""

    def end(self) -> None:
        """The run has ended, well or not."""


class TensorBoardLogger(Logger):
    """Writes files that TensorBoard shows (``pip install tensorboard``).

    Parameters
    ----------
    directory
        Each run gets a directory of its own in it.
    """

    def __init__(self, directory: str | Path) -> None:
        self._directory = Path(directory)
        self._writer: Any = None

    def begin(self, name: str, config: Any) -> None:
        if self._writer is None:
            from torch.utils.tensorboard import SummaryWriter

            self._writer = SummaryWriter(str(self._directory / name))

    def log_metrics(self, report: int, metrics: Mapping[str, Any]) -> None:
        for name, value in numbers_of(metrics).items():
            self._writer.add_scalar(name, value, report)

    def end(self) -> None:
        if self._writer is not None:
            self._writer.close()
            self._writer = None


class MLflowLogger(Logger):
    """Writes to an MLflow server or directory (``pip install mlflow``).

    Parameters
    ----------
    tracking_uri, experiment
        As MLflow has them; its own defaults by default.
    """

    def __init__(self, tracking_uri: str | None = None, experiment: str | None = None) -> None:
        self._tracking_uri = tracking_uri
        self._experiment = experiment
        self._client: Any = None
        self._run_id = ""

    def begin(self, name: str, config: Any) -> None:
        if self._client is not None:
            return
        import mlflow

        self._client = mlflow.MlflowClient(self._tracking_uri)
        wanted = self._experiment or "Default"
        found = self._client.get_experiment_by_name(wanted)
        experiment = found.experiment_id if found is not None else self._client.create_experiment(wanted)
        self._run_id = self._client.create_run(experiment, run_name=name).info.run_id
        for key, value in config.items() if isinstance(config, Mapping) else ():
            self._client.log_param(self._run_id, str(key), str(value)[:500])

    def log_metrics(self, report: int, metrics: Mapping[str, Any]) -> None:
        for name, value in numbers_of(metrics).items():
            self._client.log_metric(self._run_id, name, value, step=report)

    def end(self) -> None:
        if self._client is not None:
            self._client.set_terminated(self._run_id)
            self._client = None


def numbers_of(metrics: Mapping[str, Any]) -> dict[str, float]:
    """Return the metrics that are numbers."""
    return {name: float(value) for name, value in metrics.items() if isinstance(value, (int, float))}
