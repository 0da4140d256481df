"""``report`` and ``get_checkpoint``: how a loop speaks to whoever runs it.

A *session* is what stands behind them. A rank of a training run has one; other workloads provide their own by
:func:`running`, and the same loop works there.
"""

from __future__ import annotations

import abc
import contextlib
import contextvars
import math
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from shoal_ml.train.checkpoints import Checkpoint

_current: contextvars.ContextVar[Session | None] = contextvars.ContextVar("shoal_train_session", default=None)


class Session(abc.ABC):
    """Takes the reports of one loop. Its methods are called by the loop's thread, one at a time."""

    @abc.abstractmethod
    def report(self, metrics: dict[str, Any], checkpoint: Any) -> Mapping[str, Any]:
        """Take metrics, which were checked, and what is to be a checkpoint, or None.

        Returns the settings that were changed from outside. Raises :class:`Stopped` when the loop is to end.
        """

    @abc.abstractmethod
    def get_checkpoint(self) -> Checkpoint | None:
        """Return what the loop goes on from, or None when it begins."""


class Stopped(BaseException):
    """Ends a loop that was asked to stop; no error, so that loops do not catch it by mistake."""


@contextlib.contextmanager
def running(session: Session) -> Iterator[None]:
    """Have *session* take the reports of what runs inside."""
    token = _current.set(session)
    try:
        yield
    finally:
        _current.reset(token)


def current_session(function: str) -> Session:
    """Return the session of the loop that calls *function*.

    Raises
    ------
    RuntimeError
        No loop is running here.
    """
    session = _current.get()
    if session is None:
        raise RuntimeError(
            f"`{function}` is for a training loop or a trial, in the thread that runs it: pass that to `TorchTrainer` "
            "(with `num_workers=0` to run it here) or to `Tuner`."
        )
    return session


def report(metrics: Mapping[str, Any], checkpoint: Any = None) -> Mapping[str, Any]:
    """Tell how the loop is doing, and let it be continued from here.

    In a run of several ranks every rank calls it equally often; it returns when all have. When it returns, a
    checkpoint is safely stored (unless it is written asynchronously).

    Parameters
    ----------
    metrics
        Names and numbers; tensors and arrays of one number are fine. Those of rank 0 are the run's.
    checkpoint
        What to store: a mapping or another object, which rank 0 saves by ``torch.save``;
        :func:`shoal_ml.train.sharded`, of which every rank saves its part; or a
        :meth:`Checkpoint.from_directory`, whose files are copied.

    Returns
    -------
    mapping
        Settings that were changed from the notebook (``run.set("lr", 0.01)``), all of them so far.

    Raises
    ------
    NotFiniteError
        A metric is NaN or infinite, unless that is allowed.
    ReportError
        Other ranks have ended, or their reports do not go with this one.
    CheckpointError, StorageFullError
        The checkpoint could not be stored; those before it are kept.
    RuntimeError
        There is no loop running here.

    Examples
    --------
    >>> from shoal_ml import train
    >>> def loop(config):
    ...     for epoch in range(3):
    ...         train.report({"loss": config["start"] / (epoch + 1)})
    >>> scaling, run = train.ScalingConfig(num_workers=0), train.RunConfig(show=False)
    >>> train.TorchTrainer(loop, config={"start": 6.0}, scaling=scaling, run=run).fit().metrics["loss"]
    2.0
    """
    return current_session("report").report(as_numbers(metrics), checkpoint)


def get_checkpoint() -> Checkpoint | None:
    """Return the checkpoint that the loop is to go on from; None at a fresh start."""
    return current_session("get_checkpoint").get_checkpoint()


def as_numbers(metrics: Mapping[str, Any]) -> dict[str, Any]:
    """Return metrics as plain numbers, text and truth values.

    Raises
    ------
    TypeError
        Metrics are no mapping of names, or a value is something else.
    """
    if not isinstance(metrics, Mapping):
        raise TypeError(f"`metrics` is a mapping of names to numbers, not {type(metrics).__name__}.")
    return {_name(name): _as_number(name, value) for name, value in metrics.items()}


def not_finite(metrics: Mapping[str, Any]) -> str:
    """Return the name of the first metric that is NaN or infinite, or ""."""
    return next((name for name, value in metrics.items() if isinstance(value, float) and not math.isfinite(value)), "")


def _name(name: Any) -> str:
    if not isinstance(name, str):
        raise TypeError(f"The name of a metric is text, not {name!r}.")
    return name


def _as_number(name: str, value: Any) -> Any:
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    try:
        return value.item()
    except (AttributeError, ValueError, RuntimeError):
        raise TypeError(
            f"Metric `{name}` is a {type(value).__name__}: metrics are single numbers, text or truth values. Reduce it "
            "first, with `.mean()` for instance."
        ) from None
