"""What a trainable calls while it runs: ``report``, ``get_checkpoint``, ``get_trial``."""

from __future__ import annotations

import contextvars
import dataclasses
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from shoal.errors import ShoalError


class NotInTrialError(ShoalError, RuntimeError):
    """Something that only a trial can do was called outside of one."""


@dataclasses.dataclass(frozen=True, slots=True)
class TrialInfo:
    """The trial that runs here.

    Attributes
    ----------
    trial_id
        Its id.
    config
        What was chosen for it.
    checkpoint
        What it, or the one that it is a clone of, saved last; None if it begins.
    """

    trial_id: str
    config: Mapping[str, Any]
    checkpoint: Any = None


@dataclasses.dataclass(frozen=True, slots=True)
class _Session:
    info: TrialInfo
    send: Callable[[dict[str, Any], Any], None]


_current: contextvars.ContextVar[_Session | None] = contextvars.ContextVar("shoal_trial", default=None)


def report(metrics: Mapping[str, Any], *, checkpoint: Any = None) -> None:
    """Tell how the trial is doing; it goes on when that has been noted, or ends here if it is to be stopped.

    Parameters
    ----------
    metrics
        Names and numbers, or other plain values.
    checkpoint
        Whatever the trial needs to go on from here, if it is to be saved: anything that pickles. Large arrays and
        tensors travel through the object store. It is what :func:`get_checkpoint` returns after a restart, and in a
        clone.

    Raises
    ------
    NotInTrialError
        No trial runs here.
    """
    session = _find("report")
    if not isinstance(metrics, Mapping):
        raise TypeError(f"`report` takes a mapping of metrics, not {type(metrics).__name__}.")
    session.send(dict(metrics), checkpoint)


def get_checkpoint() -> Any:
    """Return what the trial, or the one that it is a clone of, has saved last; None if it begins anew."""
    return _find("get_checkpoint").info.checkpoint


def get_trial() -> TrialInfo:
    """Return the trial that runs here."""
    return _find("get_trial").info


@contextmanager
def running(info: TrialInfo, send: Callable[[dict[str, Any], Any], None]) -> Iterator[None]:
    """Be a trial; ``send(metrics, checkpoint)`` is called by each report."""
    token = _current.set(_Session(info, send))
    try:
        yield
    finally:
        _current.reset(token)


def _find(what: str) -> _Session:
    session = _current.get()
    if session is None:
        raise NotInTrialError(f"`{what}` was called where no trial runs: it belongs into what a `Tuner` runs.")
    return session
