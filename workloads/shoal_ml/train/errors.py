"""What can go wrong with the training of one model on many ranks."""

from __future__ import annotations

from shoal.errors import ShoalError


class TrainingError(ShoalError, RuntimeError):
    """A run has failed more often than it may.

    Attributes
    ----------
    rank
        The rank at fault; -1 if none in particular.
    num_failures
        How often the group has failed.
    path
        Directory of the run, which :func:`shoal_ml.train.resume` takes.
    """

    rank: int
    num_failures: int
    path: str


class HangError(TrainingError, TimeoutError):
    """No rank has reported for a long time. ``stacks`` is where each rank was."""

    stacks: str


class ReportError(ShoalError, RuntimeError):
    """Ranks do not report alike: one has ended before the others. ``reports`` counts those of each rank."""

    reports: tuple[int, ...]


class NotFiniteError(ShoalError, ArithmeticError):
    """A metric is NaN or infinite. ``rank``, ``metric`` and ``report`` say which."""

    rank: int
    metric: str
    report: int


class CheckpointError(ShoalError, OSError):
    """A checkpoint could not be written, is damaged, or does not hold what is asked of it. ``path`` is where."""

    path: str

    def __str__(self) -> str:
        return str(self.args[0])


class StorageFullError(CheckpointError):
    """There is no room for a checkpoint; those before it are kept."""
