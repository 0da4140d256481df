"""Checkpoints on disk: whole, verified, exported; and what happens when there is no room."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import textwrap

import pytest
import torch

from shoal_ml import train
from shoal_ml.train import Checkpoint, CheckpointError, RunConfig, ScalingConfig, TorchTrainer

HERE = ScalingConfig(num_workers=0)


@pytest.fixture
def result(tmp_path):
    def loop():
        for step in (1, 2):
            train.report({"step": step}, checkpoint={"model": {"w": torch.full((3,), float(step))}, "step": step})

    return TorchTrainer(loop, scaling=HERE, run=RunConfig(name="run", storage=tmp_path, show=False)).fit()


def damage(checkpoint):
    path = checkpoint.path / "state.pt"
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def test_a_damaged_checkpoint_is_found_and_the_one_before_taken(result):
    damage(result.checkpoint)
    with pytest.raises(CheckpointError, match="is damaged"):
        result.checkpoint.load()
    with pytest.warns(UserWarning, match="one before it is taken"):
        assert result.directory.newest().report == 1
    (result.checkpoint.path / "state.pt").unlink()
    with pytest.raises(CheckpointError, match="lacks its file"):
        result.checkpoint.verify()


def test_safetensors_hold_the_tensors(result, tmp_path):
    from safetensors.torch import load_file

    path = result.checkpoint.to_safetensors(tmp_path / "model.safetensors", key="model")
    assert load_file(path)["w"].tolist() == [2.0, 2.0, 2.0]
    with pytest.raises(CheckpointError, match="names and tensors only"):
        result.checkpoint.to_safetensors(tmp_path / "all.safetensors")
    with pytest.raises(CheckpointError, match="has no `modle`"):
        result.checkpoint.to_safetensors(tmp_path / "all.safetensors", key="modle")


def test_a_directory_of_files_is_a_checkpoint_too(tmp_path):
    def loop(path):
        train.report({}, checkpoint=Checkpoint.from_directory(path))

    own = tmp_path / "own" / "deep"
    own.mkdir(parents=True)
    (own / "notes.txt").write_text("hello")
    run = RunConfig(name="run", storage=tmp_path, show=False)
    result = TorchTrainer(loop, config=str(tmp_path / "own"), scaling=HERE, run=run).fit()
    assert (result.checkpoint.path / "deep" / "notes.txt").read_text() == "hello"
    assert list(result.checkpoint.files) == ["deep/notes.txt"]
    with pytest.raises(CheckpointError, match=r"has no `state.pt`"):
        result.checkpoint.load()


def test_metrics_are_single_numbers():
    def loop():
        train.report({"loss": torch.zeros(2)})

    with pytest.raises(TypeError, match="Metric `loss` is a Tensor"):
        TorchTrainer(loop, scaling=HERE, run=RunConfig(show=False)).fit()


def test_what_cannot_be_resumed_says_so(tmp_path):
    with pytest.raises(CheckpointError, match="holds no training run"):
        train.resume(tmp_path)


@pytest.mark.skipif(
    not shutil.which("unshare") or subprocess.run(["unshare", "-rm", "true"], capture_output=True).returncode != 0,
    reason="no file systems can be mounted here",
)
def test_a_full_disk_is_a_clear_error_and_the_last_checkpoint_stays(tmp_path):
    script = tmp_path / "full.py"
    script.write_text(
        textwrap.dedent("""
        import sys, torch
        from shoal_ml import train

        def loop():
            train.report({}, checkpoint={"step": 1, "large": torch.zeros(200_000)})
            train.report({}, checkpoint={"step": 2, "large": torch.zeros(2_000_000)})

        run = train.RunConfig(name="run", storage=sys.argv[1], show=False)
        try:
            train.TorchTrainer(loop, scaling=train.ScalingConfig(num_workers=0), run=run).fit()
        except train.StorageFullError as error:
            print(error)
        from shoal_ml.train.run_directory import RunDirectory
        from pathlib import Path
        kept = RunDirectory(Path(sys.argv[1], "run"), run.checkpoint)
        print([one.load()["step"] for one in kept.checkpoints()])
        """)
    )
    disk = tmp_path / "disk"
    disk.mkdir()
    command = f"mount -t tmpfs -o size=4m none {disk} && exec {sys.executable} {script} {disk}"
    done = subprocess.run(
        ["unshare", "-rm", "sh", "-c", command], capture_output=True, text=True, env=os.environ, timeout=60
    )
    assert "There is no room for a checkpoint" in done.stdout and done.stdout.splitlines()[-1] == "[1]", done
