"""Training with `TorchTrainer`."""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent))
from loop import train as train_digits
from serve import serve

import shoal
from shoal_ml import train


class Rows:
    def __init__(self):
        shoal.init(num_cpus=2)

    def digits(self, count):
        scaling, run = train.ScalingConfig(num_workers=2), train.RunConfig(show=False)
        return train.TorchTrainer(train_digits, config=count, scaling=scaling, run=run).fit().returned[0]

    def close(self):
        shoal.shutdown()


serve(Rows)
