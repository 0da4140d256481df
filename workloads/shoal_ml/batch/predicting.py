"""The step of a plan that predicts: what runs in each replica."""

from __future__ import annotations

import copy
import dataclasses
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

import shoal
from shoal_ml.batch.bad_rows import BadRow, Isolation, Outcome
from shoal_ml.batch.batch_formats import to_column, to_numpy_batch
from shoal_ml.batch.batch_size import BatchSize
from shoal_ml.batch.blocks import Block, check_columns, concat, num_rows, slice_rows, take_rows
from shoal_ml.batch.errors import ColumnError
from shoal_ml.batch.predictors.choosing import choose_predictor
from shoal_ml.batch.predictors.contract import Batch, Predictor, check_predictions
from shoal_ml.batch.transforms import Transform

#: Rows that are gathered for a replica where the batch size is to be found out.
AUTO_ROWS = 1024


@dataclasses.dataclass(frozen=True, slots=True)
class Letters:
    """Rows of one block that failed: their inputs, and what happened to each."""

    inputs: Block
    bad: tuple[BadRow, ...]


@dataclasses.dataclass(frozen=True)
class Model:
    """A model and its predictor, as they travel: the ref of the one, and the other."""

    token: str
    value: Any
    predictor: Any

    def load(self) -> Predictor:
        """Return the predictor, loaded. One that this process has loaded before is used again."""
        if self.token not in _LOADED:
            value = shoal.get(self.value) if isinstance(self.value, shoal.ObjectRef) else self.value
            predictor = copy.copy(choose_predictor(value, self.predictor))
            predictor.load(value)
            _LOADED.clear()  # one model at a time: its memory is what replicas are counted by
            _LOADED[self.token] = predictor
        return _LOADED[self.token]


#: The predictor of this process, by its model's token.
_LOADED: dict[str, Predictor] = {}


@dataclasses.dataclass(frozen=True)
class Predict(Transform):
    """Adds a model's predictions to rows.

    Attributes
    ----------
    batch_size
        Rows that the model is given at once, or ``"auto"``.
    feature_columns
        Columns that it is given; all by default.
    keep_columns
        Columns of the input that the output has too.
    on_error
        See :data:`~shoal_ml.batch.bad_rows.ON_ERROR`.
    max_bad
        Bad rows in one block beyond which it gives up.
    """

    model: Model
    batch_size: int | str = "auto"
    feature_columns: tuple[str, ...] | None = None
    keep_columns: tuple[str, ...] = ()
    on_error: str = "raise"
    max_bad: int | None = None
    gathers: bool = True

    @property
    def name(self) -> str:
        inner = getattr(self.model.predictor, "name", None) or type(self.model.predictor).__name__
        return f"predict({inner if self.model.predictor is not None else 'model'})"

    @property
    def keeps_rows(self) -> bool:  # type: ignore[override]
        return self.on_error == "raise"

    @property
    def batch_rows(self) -> int:  # type: ignore[override]
        if not self.gathers:
            return 0
        return AUTO_ROWS if self.batch_size == "auto" else int(self.batch_size)

    def open(self) -> OpenedPredict:
        return OpenedPredict(self)


class OpenedPredict:
    """The same with its model loaded."""

    def __init__(self, step: Predict) -> None:
        self._step = step
        self._predictor = step.model.load()
        self._who = type(self._predictor).__name__
        self._batch_size = BatchSize(step.batch_size)
        self._letters: list[Letters] = []

    def __call__(self, block: Block) -> Iterator[Block]:
        if not num_rows(block):
            return
        features = to_numpy_batch(self._features(block))
        outcome = self._predict_block(features, num_rows(block))
        if outcome.bad:
            rows = np.array([bad.row for bad in outcome.bad])
            kept = outcome.bad if self._step.on_error == "dead_letter" else [_without_trace(bad) for bad in outcome.bad]
            inputs = take_rows(block, rows) if self._step.on_error == "dead_letter" else {}
            self._letters.append(Letters(inputs, tuple(kept)))
        if outcome.parts:
            yield {**self._kept(block, outcome), **joined([part for _, _, part in outcome.parts])}

    def take_remarks(self) -> list[Letters]:
        """Return the rows that have failed since the last time."""
        letters, self._letters = self._letters, []
        return letters

    def _predict_block(self, features: Batch, rows: int) -> Outcome:
        def predict(start: int, stop: int) -> Batch:
            # views: a predictor does not change its batch
            batch = features if stop - start == rows else {name: array[start:stop] for name, array in features.items()}
            return check_predictions(self._predictor.predict(batch), stop - start, self._who)

        isolates = self._step.on_error != "raise"
        halved = _tell_halved
        return Isolation(
            predict, self._batch_size, time.perf_counter, isolates=isolates, max_bad=self._step.max_bad, halved=halved
        ).run(rows)

    def _features(self, block: Block) -> Block:
        names = self._step.feature_columns
        if names is None:
            return block
        check_columns(block, names, " for the model (`feature_columns`)")
        return {name: block[name] for name in names}

    def _kept(self, block: Block, outcome: Outcome) -> Block:
        names = self._step.keep_columns
        check_columns(block, names, " to keep (`keep_columns`)")
        for name in names:
            if name in outcome.parts[0][2]:
                raise ColumnError(
                    f"The model's output `{name}` has the name of a column that is kept: name its `outputs` otherwise, "
                    "or rename the column before.",
                    column=name,
                    columns=tuple(block),
                )
        kept = {name: block[name] for name in names}
        if not outcome.bad or not names:
            return kept
        return concat([slice_rows(kept, start, stop) for start, stop, _ in outcome.parts])


def joined(parts: Sequence[Mapping[str, np.ndarray[Any, Any]]]) -> Block:
    """Return the predictions of several batches as one block; rows of different shapes become objects."""
    blocks = [{name: to_column(array, name, "predict") for name, array in part.items()} for part in parts]
    return concat(blocks)


def _without_trace(bad: BadRow) -> BadRow:
    return dataclasses.replace(bad, traceback="")


def _tell_halved(old: int, new: int) -> None:
    """Say it where the replica's other output goes: under the cell. Once, as the new size stays."""
    print(f"Not enough memory for a batch of {old:,} rows: this replica goes on with {new:,}.", file=sys.stderr)


__all__ = ["Letters", "Model", "Predict", "joined"]
