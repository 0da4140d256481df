"""Which predictor goes with which model."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from shoal.errors import OptionError
from shoal_ml.batch.predictors.checkpoints import Checkpoint
from shoal_ml.batch.predictors.contract import Batch, Predictor


def choose_predictor(
    model: Any, predictor: Predictor | type[Predictor] | Callable[[Any, Batch], Any] | None
) -> Predictor:
    """Return the predictor that is meant.

    Parameters
    ----------
    predictor
        A :class:`Predictor` or a class of them that needs no options, a function of model and batch, or None: what the
        model is decides.

    Raises
    ------
    OptionError
        *predictor* is something else, or None where the model does not say what it needs.
    """
    if isinstance(predictor, Predictor):
        return predictor
    if isinstance(predictor, type) and issubclass(predictor, Predictor):
        return predictor()
    if predictor is not None:
        return _function(predictor)
    return recognise(model)


def recognise(model: Any) -> Predictor:
    """Return the predictor for a model by its type; no package is imported that the model has not."""
    if isinstance(model, Checkpoint):
        return _torch() if model.factory is not None else recognise(model.weights)
    if _is_a(model, "torch", "nn", "Module"):
        return _torch()
    if _is_a(model, "transformers", "Pipeline"):
        from shoal_ml.batch.predictors.pipelines import PipelinePredictor

        return PipelinePredictor()
    if isinstance(model, bytes) or (isinstance(model, str | Path) and Path(model).suffix == ".onnx"):
        from shoal_ml.batch.predictors.onnx_model import OnnxPredictor

        return OnnxPredictor()
    if callable(getattr(model, "predict", None)) and callable(getattr(model, "fit", None)):
        from shoal_ml.batch.predictors.sklearn_model import SklearnPredictor

        return SklearnPredictor()
    if callable(model):
        from shoal_ml.batch.predictors.functions import FunctionPredictor

        return FunctionPredictor()
    raise OptionError(
        f"What predicts with a model of type {type(model).__name__}? Give a `predictor`: a function of model and "
        "batch, or a `Predictor`. Known by themselves are torch modules, scikit-learn estimators, ONNX files and "
        "bytes, `transformers` pipelines and callables.",
        option="predictor",
    )


def _torch() -> Predictor:
    from shoal_ml.batch.predictors.torch_module import TorchPredictor

    return TorchPredictor()


def _function(function: Any) -> Predictor:
    from shoal_ml.batch.predictors.functions import FunctionPredictor

    if not callable(function):
        raise OptionError(
            f"`predictor` is a `Predictor` or a function of model and batch, not {type(function).__name__}.",
            option="predictor",
        )
    return FunctionPredictor(function)


def _is_a(value: Any, package: str, *path: str) -> bool:
    found: Any = sys.modules.get(package)
    for name in path:
        found = getattr(found, name, None)
    return isinstance(found, type) and isinstance(value, found)


__all__ = ["choose_predictor", "recognise"]
