"""Predictors: what a model is to batch inference. Each kind is a module of its own, which imports its package late."""

from shoal_ml.batch.predictors.checkpoints import Checkpoint
from shoal_ml.batch.predictors.choosing import choose_predictor
from shoal_ml.batch.predictors.contract import Predictor
from shoal_ml.batch.predictors.functions import FunctionPredictor
from shoal_ml.batch.predictors.onnx_model import OnnxPredictor
from shoal_ml.batch.predictors.pipelines import PipelinePredictor
from shoal_ml.batch.predictors.sklearn_model import SklearnPredictor
from shoal_ml.batch.predictors.torch_module import TorchPredictor

__all__ = [
    "Checkpoint",
    "FunctionPredictor",
    "OnnxPredictor",
    "PipelinePredictor",
    "Predictor",
    "SklearnPredictor",
    "TorchPredictor",
    "choose_predictor",
]
