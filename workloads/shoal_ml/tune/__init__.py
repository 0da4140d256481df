"""Hyperparameter tuning: searchers propose, trial schedulers stop and clone, and every event is in a journal."""

from shoal_ml.train.session import get_checkpoint, report
from shoal_ml.tune.journal import JournalError
from shoal_ml.tune.result_grid import Result, ResultGrid
from shoal_ml.tune.schedulers.asha import ASHA
from shoal_ml.tune.schedulers.hyperband import HyperBand
from shoal_ml.tune.schedulers.median import MedianStopping
from shoal_ml.tune.schedulers.pb2 import PB2
from shoal_ml.tune.schedulers.pbt import PBT
from shoal_ml.tune.schedulers.scheduler import TrialScheduler
from shoal_ml.tune.searchers.basic import GridSearch, RandomSearch
from shoal_ml.tune.searchers.bohb import BOHB
from shoal_ml.tune.searchers.optuna_search import OptunaSearch
from shoal_ml.tune.searchers.searcher import Searcher
from shoal_ml.tune.searchers.wrappers import ConcurrencyLimiter, Repeater
from shoal_ml.tune.session import TrialInfo, get_trial
from shoal_ml.tune.space import (
    choice,
    grid_search,
    lograndint,
    loguniform,
    qlograndint,
    qloguniform,
    qrandint,
    qrandn,
    quniform,
    randint,
    randn,
    sample_from,
    uniform,
)
from shoal_ml.tune.stoppers import (
    Combined,
    ExperimentPlateau,
    FunctionStopper,
    MaximumIteration,
    Stopper,
    Threshold,
    Timeout,
    TrialPlateau,
)
from shoal_ml.tune.trainable import Trainable
from shoal_ml.tune.tuner import RunConfig, TuneConfig, TuneError, Tuner, with_parameters, with_resources

__all__ = [
    "ASHA",
    "BOHB",
    "PB2",
    "PBT",
    "Combined",
    "ConcurrencyLimiter",
    "ExperimentPlateau",
    "FunctionStopper",
    "GridSearch",
    "HyperBand",
    "JournalError",
    "MaximumIteration",
    "MedianStopping",
    "OptunaSearch",
    "RandomSearch",
    "Repeater",
    "Result",
    "ResultGrid",
    "RunConfig",
    "Searcher",
    "Stopper",
    "Threshold",
    "Timeout",
    "Trainable",
    "TrialInfo",
    "TrialPlateau",
    "TrialScheduler",
    "TuneConfig",
    "TuneError",
    "Tuner",
    "choice",
    "get_checkpoint",
    "get_trial",
    "grid_search",
    "lograndint",
    "loguniform",
    "qlograndint",
    "qloguniform",
    "qrandint",
    "qrandn",
    "quniform",
    "randint",
    "randn",
    "report",
    "sample_from",
    "uniform",
    "with_parameters",
    "with_resources",
]
