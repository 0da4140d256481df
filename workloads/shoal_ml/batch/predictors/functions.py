"""Predict with any callable."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from shoal.errors import OptionError
from shoal_ml.batch.predictors.contract import Batch, Predictor, as_names, name_outputs


class FunctionPredictor(Predictor):
    """Predicts by calling something.

    Parameters
    ----------
    function
        ``function(model, batch)``, where *batch* is a dict of arrays. Without it the model itself is called, as
        ``model(batch)``.
    outputs
        Columns for what it returns, if that is no dict: a name, or one for each entry of a tuple; ``"predictions"`` by
        default.
    """

    def __init__(
        self, function: Callable[[Any, Batch], Any] | None = None, *, outputs: str | tuple[str, ...] | None = None
    ) -> None:
        self.function = function
        self.outputs = as_names(outputs)

    def load(self, model: Any) -> None:
        if self.function is None and not callable(model):
            raise OptionError(
                f"A model of type {type(model).__name__} cannot be called. Give a `predictor`: a function of model and "
                "batch, or a `Predictor`.",
                option="predictor",
            )
        self._model = model

    def predict(self, batch: Batch) -> Any:
        outputs = self._model(batch) if self.function is None else self.function(self._model, batch)
        called = self._model if self.function is None else self.function
        return name_outputs(outputs, self.outputs, getattr(called, "__name__", type(called).__name__))


__all__ = ["FunctionPredictor"]
