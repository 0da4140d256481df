"""Loops outside of a trainer's ranks: another workload's session, loggers, the loop in the calling process."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Mapping
from typing import Any

import pytest

from shoal.errors import OptionError
from shoal_ml import train
from shoal_ml.train import RunConfig, ScalingConfig, TorchTrainer
from shoal_ml.train.loggers import Logger
from shoal_ml.train.session import Session, Stopped, running

HERE = ScalingConfig(num_workers=0)


class Notes(Session):
    """Stops a loop at its third report."""

    def __init__(self) -> None:
        self.reports: list[dict[str, Any]] = []

    def report(self, metrics: dict[str, Any], checkpoint: Any) -> Mapping[str, Any]:
        self.reports.append(metrics)
        if len(self.reports) == 3:
            raise Stopped
        return {"lr": 0.1}

    def get_checkpoint(self) -> None:
        return None


def test_another_workload_takes_the_reports_of_a_loop():
    notes = Notes()
    with pytest.raises(Stopped), running(notes):
        assert train.get_checkpoint() is None
        while True:
            assert train.report({"step": len(notes.reports)}) == {"lr": 0.1}
            assert train.get_context().world_size == 1
    assert notes.reports == [{"step": 0}, {"step": 1}, {"step": 2}]
    with pytest.raises(RuntimeError, match="is for a training loop"):
        train.report({})


class Recorder(Logger):
    def __init__(self) -> None:
        self.told: list[Any] = []

    def begin(self, name: str, config: Any) -> None:
        self.told.append(("begin", config))

    def log_metrics(self, report: int, metrics: Mapping[str, Any]) -> None:
        self.told.append((report, dict(metrics)))

    def log_checkpoint(self, report: int, checkpoint: train.Checkpoint) -> None:
        self.told.append((report, checkpoint.report))

    def end(self) -> None:
        self.told.append("end")


def test_loggers_are_told_of_a_run_in_its_order():
    def loop(config: dict[str, int]) -> None:
        train.report({"step": 1}, checkpoint=config)

    recorder = Recorder()
    run = RunConfig(show=False, loggers=(recorder,))
    TorchTrainer(loop, config={"a": 1}, scaling=HERE, run=run).fit()
    assert recorder.told == [("begin", {"a": 1}), (1, {"step": 1}), (1, 1), "end"]


def test_a_loop_that_runs_here_needs_no_cluster_and_keeps_its_frames(capsys):
    seen: list[Any] = []

    def loop() -> str:
        seen.append(train.broadcast("mine"))
        train.barrier()
        with pytest.raises(OptionError, match=r"There are no data `trian`; .* Did you mean `train`"):
            train.get_dataset_shard("trian")
        seen.extend(train.get_dataset_shard("train"))
        train.report({"loss": 0.5})
        return "done"

    result = TorchTrainer(loop, scaling=HERE, data={"train": [1, 2, 3]}).fit()
    assert result.returned == ["done"] and seen == ["mine", 1, 2, 3]
    assert "report 1  loss 0.5" in capsys.readouterr().out


def test_torch_is_imported_when_it_is_used():
    code = "import sys, shoal_ml.train; assert 'torch' not in sys.modules and 'pandas' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)
