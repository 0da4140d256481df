"""Predictions with a model for each key: every group of rows goes where there is room, with its model."""

from __future__ import annotations

import pickle
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import shoal
from shoal_ml.train.many.fitting import rows_of
from shoal_ml.train.many.grouping import make_groups
from shoal_ml.train.many.keys import Key

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd

#: What predicts with a model: ``predict(model, rows)``.
Predict = Callable[[Any, Any], Any]


class _Part(NamedTuple):
    """Rows of one key, and its pickled model."""

    block: shoal.ObjectRef
    start: int
    stop: int
    key: Key
    pickled: bytes


def predict_groups(
    frame: pd.DataFrame,
    by: Sequence[str],
    pickled_of: Callable[[Key], bytes | None],
    predict: Predict | None,
    *,
    num_cpus: float = 1,
) -> pd.Series[Any] | pd.DataFrame:
    """Predict the rows of *frame*; ``pickled_of(key)`` returns the pickled model, or None where rows stay null."""
    import numpy as np
    import pandas as pd

    grouped = make_groups(frame.reset_index(drop=True), list(by))

    def parts() -> Iterator[_Part]:
        for group in grouped.groups:
            pickled = pickled_of(group.key)
            if pickled is not None:
                yield _Part(grouped.blocks[group.block], group.start, group.stop, group.key, pickled)

    call = shoal.remote(_PredictPart(predict, by)).options(name="predict by key", num_cpus=num_cpus)
    found = list(shoal.map(call, parts()))
    if not found:
        return pd.Series(np.nan, index=frame.index)
    order = np.concatenate([positions for positions, _ in found])
    made = np.concatenate([values for _, values in found])
    result = pd.Series(made, index=order) if made.ndim == 1 else pd.DataFrame(made, index=order)
    return result.reindex(range(len(frame))).set_axis(frame.index, axis=0)  # null where there was no model


class _PredictPart:
    """Runs in an executor, for one key after the other."""

    def __init__(self, predict: Predict | None, by: Sequence[str]) -> None:
        self._predict = predict
        self._by = list(by)
        #: The block that was used last: many keys have their rows in one.
        self._last: tuple[shoal.ObjectRef, Any] | None = None

    def __call__(self, part: _Part) -> tuple[np.ndarray, np.ndarray]:
        """Return the positions of the rows in the whole frame, and what was predicted for them."""
        rows = rows_of(self._block(part.block), part.start, part.stop)
        model = pickle.loads(part.pickled)
        values = predict_rows(self._predict, model, rows, self._by)
        if values.ndim == 0 or len(values) != len(rows):
            shape = "a single value" if values.ndim == 0 else f"{len(values)} values"
            raise ValueError(f"The model of the key {part.key!r} has predicted {shape} for {len(rows)} rows.")
        return rows.index.to_numpy(), values

    def _block(self, ref: shoal.ObjectRef) -> Any:
        if self._last is None or self._last[0] != ref:
            self._last = ref, shoal.get(ref)
        return self._last[1]


def predict_rows(predict: Predict | None, model: Any, rows: pd.DataFrame, by: Sequence[str]) -> np.ndarray:
    """Return what a model predicts for some rows: by *predict*, or as models of its kind do it."""
    import numpy as np

    if predict is not None:
        return np.asarray(predict(model, rows))
    names = getattr(model, "feature_names_in_", None)
    features = rows.drop(columns=list(by), errors="ignore") if names is None else rows[list(names)]
    if hasattr(model, "predict"):
        return np.asarray(model.predict(features))
    if callable(model):
        return np.asarray(model(features))
    raise TypeError(f"A {type(model).__name__} has no method `predict`: say how with `predict=lambda model, rows: …`.")
