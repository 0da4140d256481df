"""Tuning with Optuna by itself: two threads on SQLite, in memory, and successive halving one trial after the other."""

from __future__ import annotations

import os
import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent))
import optuna
from networks import EPOCHS, train
from serve import serve


class Rows:
    def __init__(self):
        optuna.logging.set_verbosity(optuna.logging.WARNING)

    def instant(self, count):
        with tempfile.TemporaryDirectory() as directory:
            study = optuna.create_study(
                storage="sqlite:///" + os.path.join(directory, "study.db"), sampler=optuna.samplers.RandomSampler()
            )
            study.optimize(lambda trial: trial.suggest_float("x", 0, 1), n_trials=count, n_jobs=2)

    def asha(self, count):
        pruner = optuna.pruners.SuccessiveHalvingPruner(min_resource=1, reduction_factor=4)
        study = optuna.create_study(
            direction="maximize", pruner=pruner, sampler=optuna.samplers.RandomSampler(seed=count)
        )

        def objective(trial):
            config = {
                "lr": trial.suggest_float("lr", 1e-4, 1.0, log=True),
                "width": trial.suggest_categorical("width", [16, 32, 64, 128]),
                "batch": trial.suggest_categorical("batch", [16, 64]),
            }
            accuracy = 0.0
            for epoch, accuracy in enumerate(train(config), 1):
                trial.report(accuracy, epoch)
                if epoch < EPOCHS and trial.should_prune():
                    raise optuna.TrialPruned
            return accuracy

        study.optimize(objective, n_trials=count)
        return {"best": study.best_value}

    def close(self):
        pass


serve(Rows)
