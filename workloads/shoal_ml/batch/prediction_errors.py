"""Errors of predicting on a dataset, and of going on with it."""

from __future__ import annotations

from shoal.errors import ShoalError


class TooManyErrors(ShoalError, RuntimeError):
    """More rows failed than ``max_errors`` allows: ``failed`` so far; ``first`` says what happened to the first."""

    failed: int
    first: str


class PlanChangedError(ShoalError, ValueError):
    """What is to be gone on with was begun differently. ``changes`` maps what changed to (before, now)."""

    changes: dict[str, tuple[str, str]]


class JournalError(ShoalError, OSError):
    """The directory cannot be gone on with: another run writes to it, or it holds something else. ``path`` names it."""

    path: str


__all__ = ["JournalError", "PlanChangedError", "TooManyErrors"]
