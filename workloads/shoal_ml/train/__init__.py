"""Training: many models at once, and one model on several ranks."""

from shoal_ml.train.checkpoints import Checkpoint
from shoal_ml.train.context import TrainContext, barrier, broadcast, get_context, get_dataset_shard
from shoal_ml.train.errors import (
    CheckpointError,
    HangError,
    NotFiniteError,
    ReportError,
    StorageFullError,
    TrainingError,
)
from shoal_ml.train.many.errors import CatalogError, FitError, MissingModelError
from shoal_ml.train.many.fit_many import fit_many
from shoal_ml.train.many.fitted import FittedModels
from shoal_ml.train.many.serving import model_id, serve_many
from shoal_ml.train.options import CheckpointConfig, FailureConfig, RunConfig, ScalingConfig
from shoal_ml.train.parallel.pipeline import Pipeline
from shoal_ml.train.parallel.schedules import ScheduleChart
from shoal_ml.train.parallel.schedules import expected as expected_schedule
from shoal_ml.train.parallel.stages import StagePlan, build_stage, split_stages
from shoal_ml.train.preparing import get_device, prepare_data_loader, prepare_model, prepare_optimizer
from shoal_ml.train.result import Result
from shoal_ml.train.session import get_checkpoint, report
from shoal_ml.train.sharding import sharded
from shoal_ml.train.shards import DataShard
from shoal_ml.train.torch_trainer import TorchTrainer, resume
from shoal_ml.train.training_run import TrainingRun

__all__ = [
    "CatalogError",
    "Checkpoint",
    "CheckpointConfig",
    "CheckpointError",
    "DataShard",
    "FailureConfig",
    "FitError",
    "FittedModels",
    "HangError",
    "MissingModelError",
    "NotFiniteError",
    "Pipeline",
    "ReportError",
    "Result",
    "RunConfig",
    "ScalingConfig",
    "ScheduleChart",
    "StagePlan",
    "StorageFullError",
    "TorchTrainer",
    "TrainContext",
    "TrainingError",
    "TrainingRun",
    "barrier",
    "broadcast",
    "build_stage",
    "expected_schedule",
    "fit_many",
    "get_checkpoint",
    "get_context",
    "get_dataset_shard",
    "get_device",
    "model_id",
    "prepare_data_loader",
    "prepare_model",
    "prepare_optimizer",
    "report",
    "resume",
    "serve_many",
    "sharded",
    "split_stages",
]
