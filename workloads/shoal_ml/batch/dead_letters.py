"""Rows that failed: counted against a limit, kept with what happened to them, and done again."""

from __future__ import annotations

import dataclasses
import threading
from collections.abc import Callable, Sequence
from typing import Any

from shoal.errors import OptionError
from shoal.model.options import is_number
from shoal.model.suggest import did_you_mean
from shoal_ml.batch.bad_rows import ON_ERROR, BadRow, too_many
from shoal_ml.batch.blocks import Block, concat
from shoal_ml.batch.predicting import Letters
from shoal_ml.batch.stage_work import Made

#: Rows from which on a share of errors is judged; before that one bad row would be a large part. At the end it is.
JUDGED_FROM = 1000
#: Columns that a table of dead letters has beside those of the input, whose names give way.
COLUMNS = ("error", "traceback", "attempt")


@dataclasses.dataclass(frozen=True, slots=True)
class ErrorPolicy:
    """What is done about rows that fail.

    Attributes
    ----------
    on_error
        ``"raise"``: the error ends the run. ``"skip"``: the output lacks the row, and it is counted. ``"dead_letter"``:
        its input is kept besides, with the error.
    max_errors
        More than so many are too many: a number of rows (1, 2, …), or a share of them (above 0, below 1); None for no
        limit.
    """

    on_error: str = "raise"
    max_errors: float | None = None

    def __post_init__(self) -> None:
        if self.on_error not in ON_ERROR:
            hint = did_you_mean(str(self.on_error), ON_ERROR)
            told = ", ".join(f'"{name}"' for name in ON_ERROR)
            raise OptionError(f"`on_error` is one of {told}, not {self.on_error!r}.{hint}", option="on_error")
        limit = self.max_errors
        if limit is not None and not (is_number(limit) and limit >= 0 and (limit < 1 or limit == int(limit))):
            raise OptionError(
                f"`max_errors` is a whole number of rows, or a share of them below 1, not {limit!r}.",
                option="max_errors",
            )

    @property
    def max_in_a_block(self) -> int | None:
        """Bad rows in one block that are too many by themselves."""
        return int(self.max_errors) if self.max_errors is not None and self._is_count else None

    def allows(self, failed: int, rows: int) -> bool:
        """Whether so many of so many rows may fail."""
        if self.max_errors is None or not failed:
            return True
        return failed <= (self.max_errors if self._is_count else self.max_errors * rows)

    @property
    def _is_count(self) -> bool:
        return self.max_errors is not None and (self.max_errors >= 1 or self.max_errors == 0)

    def __str__(self) -> str:
        return f"{self.max_errors:,.0f}" if self._is_count else f"{self.max_errors:.1%} of the rows"


class DeadLetters:
    """The rows that failed in one run.

    Attributes
    ----------
    attempt
        How often they have been tried.
    num_failed, num_rows
        Rows that failed, and rows in all, so far.
    """

    def __init__(self, policy: ErrorPolicy, attempt: int = 1) -> None:
        self.policy = policy
        self.attempt = attempt
        self._lock = threading.Lock()
        self._begin()

    def listen(self) -> Callable[[Made], None]:
        """Forget what an earlier run of the same plan has told; returns what is called with each block."""
        with self._lock:
            self._begin()
        return self._hear

    def add(self, letters: Sequence[Letters], num_rows: int = 0) -> None:
        """Keep rows that failed; *num_rows* others did not.

        Raises
        ------
        TooManyErrors
            More have failed than may.
        """
        with self._lock:
            self.num_rows += num_rows
            for letter in letters:
                self.letters.append(letter)
                self.num_failed += len(letter.bad)
                self.num_rows += len(letter.bad)
            if self.num_rows >= JUDGED_FROM:
                self._check()

    def end(self) -> None:
        """The run has ended: judge what has failed.

        Raises
        ------
        TooManyErrors
            More rows have failed than may.
        """
        with self._lock:
            self._check()

    def inputs(self) -> Block:
        """Return the inputs of the rows."""
        return concat([letter.inputs for letter in self.letters if letter.inputs])

    def to_pandas(self) -> Any:
        """Return a DataFrame: the input's columns, ``error`` (type and text), ``traceback``, ``attempt``.

        A column of the input with one of these names is called ``input_error`` and so on.
        """
        import pandas as pd

        from shoal_ml.batch.batch_formats import to_pandas_batch

        bad: list[BadRow] = [row for letter in self.letters for row in letter.bad]
        frame = to_pandas_batch(self.inputs()) if self.policy.on_error == "dead_letter" else pd.DataFrame()
        frame = frame.rename(columns={name: f"input_{name}" for name in COLUMNS})
        return frame.assign(
            error=pd.Series([row.error for row in bad], dtype=object),
            traceback=pd.Series([row.traceback for row in bad], dtype=object),
            attempt=pd.Series([self.attempt] * len(bad), dtype="int64"),
        )

    def _begin(self) -> None:
        self.letters: list[Letters] = []
        self.num_failed = self.num_rows = 0

    def _hear(self, made: Made) -> None:
        self.add([remark for remark in made.remarks if isinstance(remark, Letters)], made.num_rows)

    def _check(self) -> None:
        if not self.policy.allows(self.num_failed, self.num_rows):
            raise too_many(self.num_failed, str(self.policy), self.letters[0].bad[0].error)


__all__ = ["DeadLetters", "ErrorPolicy"]
