"""Training with Ray Train's `TorchTrainer`."""

from __future__ import annotations

import json
import os
import sys
import tempfile
from pathlib import Path

os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")

import ray
import ray.train
import ray.train.torch

sys.path.insert(0, str(Path(__file__).parent.parent))
from loop import train as train_digits
from serve import serve


class Rows:
    def __init__(self):
        paths = [str(Path(__file__).parent)]
        ray.init(
            num_cpus=3, include_dashboard=False, logging_level="ERROR", log_to_driver=False,
            runtime_env={"env_vars": {"PYTHONPATH": os.pathsep.join(paths)}},
        )  # fmt: skip

    def digits(self, count):
        with tempfile.TemporaryDirectory() as directory:

            def loop(config):
                found = train_digits(config["count"])
                if ray.train.get_context().get_world_rank() == 0:
                    Path(config["directory"], "found.json").write_text(json.dumps(found))

            ray.train.torch.TorchTrainer(
                loop,
                train_loop_config={"count": count, "directory": directory},
                scaling_config=ray.train.ScalingConfig(num_workers=2),
                run_config=ray.train.RunConfig(storage_path=directory),
            ).fit()
            return json.loads(Path(directory, "found.json").read_text())

    def close(self):
        ray.shutdown()


serve(Rows)
