"""Finds the rows of a batch that a model cannot do, so that it can do the others.

A batch that fails is done again in halves, and these in halves, down to single rows. One bad row in a batch of *n*
costs about ``2 log2 n`` calls more.
"""

from __future__ import annotations

import dataclasses
import traceback
from collections.abc import Callable
from typing import Any

from shoal_ml.batch.batch_size import BatchSize, is_out_of_memory
from shoal_ml.batch.prediction_errors import TooManyErrors

#: What may be done about a row that fails.
ON_ERROR = ("raise", "skip", "dead_letter")
#: Characters of a traceback that are kept: its end says what happened.
MAX_TRACEBACK = 4000


@dataclasses.dataclass(frozen=True, slots=True)
class BadRow:
    """A row that failed by itself."""

    row: int
    #: Type and text.
    error: str
    traceback: str


@dataclasses.dataclass(slots=True)
class Outcome:
    """What became of the rows of a block.

    Attributes
    ----------
    parts
        Rows that were done: first, one past the last, and what was returned for them; in order.
    bad
        Those that failed, in order.
    """

    parts: list[tuple[int, int, Any]] = dataclasses.field(default_factory=list)
    bad: list[BadRow] = dataclasses.field(default_factory=list)


class Isolation:
    """Predicts on ranges of rows.

    Parameters
    ----------
    predict
        ``predict(start, stop)`` returns something for these rows, or raises.
    batch_size
        Asked how many rows to take; told what they took, and when they were too many.
    clock
        Returns seconds.
    isolates
        Whether a batch that fails is divided; otherwise its error is raised as it is.
    max_bad
        Bad rows beyond which there is no point in looking for more; None for no limit.
    halved
        Called with the old size and the new one when memory was short.
    """

    def __init__(
        self,
        predict: Callable[[int, int], Any],
        batch_size: BatchSize,
        clock: Callable[[], float],
        *,
        isolates: bool,
        max_bad: int | None = None,
        halved: Callable[[int, int], None] = lambda old, new: None,
    ) -> None:
        self._predict = predict
        self._batch_size = batch_size
        self._clock = clock
        self._isolates = isolates
        self._max_bad = max_bad
        self._halved = halved

    def run(self, num_rows: int) -> Outcome:
        """Predict on rows 0 up to *num_rows*.

        Raises
        ------
        TooManyErrors
            More rows are bad than may be.
        Exception
            What the model raised, if batches are not divided.
        """
        outcome = Outcome()
        start = 0
        while start < num_rows:
            stop = min(num_rows, start + self._batch_size.size)
            begin = self._clock()
            try:
                part = self._predict(start, stop)
            except Exception as error:  # boundary: whatever the user's model raises
                if is_out_of_memory(error):
                    if self._shrink(stop - start):
                        continue
                elif self._isolates and stop - start > 1:
                    self._divide(start, stop, outcome)
                    start = stop
                    continue
                self._note(start, error, outcome)
            else:
                self._batch_size.worked(stop - start, self._clock() - begin)
                outcome.parts.append((start, stop, part))
            start = stop
        return outcome

    def _divide(self, start: int, stop: int, outcome: Outcome) -> None:
        """Do the halves of a range that failed as a whole."""
        middle = (start + stop) // 2
        for first, last in ((start, middle), (middle, stop)):
            try:
                part = self._predict(first, last)
            except Exception as error:  # boundary: whatever the user's model raises
                if last - first == 1:
                    self._note(first, error, outcome)
                else:
                    self._divide(first, last, outcome)
            else:
                outcome.parts.append((first, last, part))

    def _shrink(self, num_rows: int) -> bool:
        if not self._batch_size.too_large(num_rows):
            return False
        self._halved(num_rows, self._batch_size.size)
        return True

    def _note(self, row: int, error: Exception, outcome: Outcome) -> None:
        """A row has failed by itself, or a batch that nobody wants divided."""
        if not self._isolates:
            raise error
        outcome.bad.append(BadRow(row, _told(error), _trace(error)))
        if self._max_bad is not None and len(outcome.bad) > self._max_bad:
            raise too_many(len(outcome.bad), f"{self._max_bad:,}", outcome.bad[0].error) from error


def too_many(failed: int, limit: str, first: str) -> TooManyErrors:
    """Return the error for more bad rows than may be."""
    return TooManyErrors(
        f"{failed:,} rows failed, and `max_errors` allows {limit}. The first: {first}", failed=failed, first=first
    )


def _told(error: Exception) -> str:
    return f"{type(error).__name__}: {error}" if str(error) else type(error).__name__


def _trace(error: Exception) -> str:
    # the frames of this module say nothing about the row
    frames = [frame for frame in traceback.extract_tb(error.__traceback__) if frame.filename != __file__]
    lines = [*traceback.format_list(frames), *traceback.format_exception_only(error)]
    return "".join(lines)[-MAX_TRACEBACK:]


__all__ = ["ON_ERROR", "BadRow", "Isolation", "Outcome", "too_many"]
