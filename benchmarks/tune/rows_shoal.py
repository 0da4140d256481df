"""Tuning with shoal: trials that return at once, and ASHA on a small network."""

from __future__ import annotations

import resource
import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent))
from networks import EPOCHS, make_space, train
from serve import serve

import shoal
from shoal_ml import tune


def train_reporting(config):
    for accuracy in train(config):
        tune.report({"accuracy": accuracy})


class Rows:
    def __init__(self):
        shoal.init(num_cpus=2)

    def _run(self, trainable, space, **options):
        with tempfile.TemporaryDirectory() as storage:
            how = tune.TuneConfig(**options)
            return tune.Tuner(trainable, space, how, tune.RunConfig(name="run", storage=storage)).fit()

    def instant(self, count):
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        results = self._run(
            lambda config: {"loss": config["x"]},
            {"x": tune.uniform(0, 1)},
            metric="loss",
            mode="min",
            num_samples=count,
        )
        assert len(results) == count
        return {"grown": (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024}

    def asha(self, count):
        scheduler = tune.ASHA(max_t=EPOCHS, grace_period=1, reduction_factor=4)
        results = self._run(
            train_reporting, make_space(tune), metric="accuracy", num_samples=count, scheduler=scheduler, seed=count
        )
        return {"best": results.get_dataframe()["accuracy"].max()}

    def close(self):
        shoal.shutdown()


serve(Rows)
