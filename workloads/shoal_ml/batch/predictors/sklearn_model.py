"""Predict with a scikit-learn estimator, or anything that has its methods (XGBoost's and LightGBM's classes do)."""

from __future__ import annotations

from typing import Any

import numpy as np

from shoal.errors import OptionError
from shoal_ml.batch.predictors.checkpoints import Checkpoint
from shoal_ml.batch.predictors.contract import PREDICTIONS, Batch, Predictor, as_names
from shoal_ml.batch.predictors.features import stack_columns


class SklearnPredictor(Predictor):
    """Predicts with a fitted estimator.

    Parameters
    ----------
    methods
        What is called: one or more of ``predict``, ``predict_proba``, ``decision_function``, ``transform`` and the
        like. The column of ``predict`` is ``predictions``; the others' have their own names (``predict_proba`` has an
        array of shape (classes,) in each row).
    as_frame
        Give the estimator a DataFrame with the columns' names; by default if it was fitted on one. Otherwise it gets an
        array of shape (rows, features).
    """

    def __init__(self, methods: str | tuple[str, ...] = "predict", *, as_frame: bool | None = None) -> None:
        self.methods = as_names(methods)
        self.as_frame = as_frame

    def load(self, model: Any) -> None:
        estimator = model.build() if isinstance(model, Checkpoint) else model
        for name in self.methods:
            if not callable(getattr(estimator, name, None)):
                raise OptionError(f"`{type(estimator).__name__}` has no method `{name}`.", option="methods")
        self._estimator = estimator
        self._names: list[str] | None = None
        if self.as_frame is not False:
            names = getattr(estimator, "feature_names_in_", None)
            self._names = None if names is None else [str(name) for name in names]

    def predict(self, batch: Batch) -> dict[str, Any]:
        features = self._features(batch)
        return {
            PREDICTIONS if name == "predict" else name: getattr(self._estimator, name)(features)
            for name in self.methods
        }

    def _features(self, batch: Batch) -> Any:
        if not self.as_frame and self._names is None:
            array = stack_columns(batch)
            return array.reshape(len(array), int(np.prod(array.shape[1:], dtype=int)))
        import pandas as pd

        frame = pd.DataFrame({name: list(column) if column.ndim > 1 else column for name, column in batch.items()})
        # in the order in which it was fitted, if they are the same columns
        return frame[self._names] if self._names and set(self._names) <= set(frame.columns) else frame


__all__ = ["SklearnPredictor"]
