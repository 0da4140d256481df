"""``TorchTrainer`` on a real cluster: ranks, reports, checkpoints, failures."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

import shoal
from shoal.errors import InfeasibleError, OptionError, SerializationError
from shoal_ml import train
from shoal_ml.train import CheckpointConfig, FailureConfig, RunConfig, ScalingConfig, TorchTrainer

TWO = ScalingConfig(num_workers=2)
QUIET = RunConfig(show=False)
EPOCHS = 5


@pytest.fixture(scope="module", autouse=True)
def cluster() -> Iterator[None]:
    with shoal.init(num_cpus=2):
        yield


@pytest.fixture(scope="module")
def rows() -> torch.Tensor:
    """64 rows: four features and a target."""
    return torch.randn(64, 5, generator=torch.Generator().manual_seed(7))


def fail_at(rank: int, step: int) -> Callable[[int], None]:
    """Return what kills the process of a rank at a step of the first attempt."""

    def check(now: int) -> None:
        context = train.get_context()
        if context.attempt == 0 and context.rank == rank and now == step:
            os.kill(os.getpid(), signal.SIGKILL)

    return check


def fit_line(config: dict[str, Any]) -> float:
    """Train a small network with two layers; keep model, optimizer and epoch in each checkpoint."""
    torch.manual_seed(0)
    model = train.prepare_model(nn.Sequential(nn.Linear(4, 16), nn.Tanh(), nn.Linear(16, 1)))
    optimizer = torch.optim.Adam(model.parameters(), lr=0.05)
    first = 0
    checkpoint = train.get_checkpoint()
    if checkpoint is not None:
        state = checkpoint.load()
        model.load_state_dict(state["model"])
        optimizer.load_state_dict(state["optimizer"])
        first = state["epoch"] + 1
    loss = torch.zeros(())
    for epoch in range(first, EPOCHS):
        for batch in train.get_dataset_shard("train").iter_batches(8, shuffle_seed=epoch):
            loss = nn.functional.mse_loss(model(batch[:, :4]), batch[:, 4:])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        config.get("fail", lambda epoch: None)(epoch)
        state = {"model": model.state_dict(), "optimizer": optimizer.state_dict(), "epoch": epoch}
        train.report({"loss": loss, "epoch": epoch}, checkpoint=state if train.get_context().rank == 0 else None)
    return loss.item()


@pytest.fixture(scope="module")
def unbroken(rows: torch.Tensor) -> train.Result:
    return TorchTrainer(fit_line, config={}, scaling=TWO, data={"train": rows}, run=QUIET).fit()


def test_all_ranks_train_together(unbroken):
    assert [row["epoch"] for row in unbroken.history] == list(range(EPOCHS))
    assert unbroken.history[0]["loss"] > unbroken.metrics["loss"]
    assert len(unbroken.returned) == 2 and unbroken.returned[0] == unbroken.metrics["loss"]
    assert list(unbroken.metrics_dataframe.groupby("rank").size()) == [EPOCHS, EPOCHS]
    assert all(row["num_rows"] == 32 for row in unbroken.history)


def test_the_last_state_can_be_loaded(unbroken):
    state = unbroken.checkpoint.load()
    assert state["epoch"] == EPOCHS - 1 and unbroken.checkpoint.report == EPOCHS
    assert unbroken.checkpoint.metrics["loss"] == unbroken.metrics["loss"]


@pytest.mark.parametrize("shared", [None, False], ids=["shared directory", "files travel to the driver"])
def test_a_rank_is_killed_and_the_loss_is_the_same_to_the_bit(rows, unbroken, shared):
    run = RunConfig(show=False, shared=shared, failure=FailureConfig(max_failures=1))
    config = {"fail": fail_at(rank=1, step=3)}
    result = TorchTrainer(fit_line, config=config, scaling=TWO, data={"train": rows}, run=run).fit()
    assert result.num_failures == 1
    assert result.returned == unbroken.returned
    assert [row["epoch"] for row in result.history] == list(range(EPOCHS))


def test_failures_beyond_the_limit_end_the_run_and_it_can_be_resumed(rows, unbroken, tmp_path):
    run = RunConfig(name="broken", storage=tmp_path, show=False)
    trainer = TorchTrainer(
        fit_line, config={"fail": fail_at(rank=0, step=2)}, scaling=TWO, data={"train": rows}, run=run
    )
    with pytest.raises(train.TrainingError, match="rank 0 of 2") as caught:
        trainer.fit()
    assert caught.value.rank == 0 and caught.value.path == str(tmp_path / "broken")
    with pytest.raises(OptionError, match="is a run already"):
        trainer.fit()
    result = train.resume(tmp_path / "broken", config={})
    assert result.returned == unbroken.returned and len(result.history) == EPOCHS


class KillsWriter:
    """Ends the process that pickles it, in the midst of a checkpoint's file."""

    def __reduce__(self) -> Any:
        os.kill(os.getpid(), signal.SIGKILL)
        return KillsWriter, ()


def test_a_kill_while_a_checkpoint_is_written_leaves_the_one_before(tmp_path):
    def loop() -> int:
        context, checkpoint = train.get_context(), train.get_checkpoint()
        if checkpoint is not None:
            return checkpoint.load()["step"]
        train.report({}, checkpoint={"step": 1})
        train.report({}, checkpoint={"step": 2, "large": torch.zeros(100_000), "end": KillsWriter()})
        return context.rank

    run = RunConfig(name="torn", storage=tmp_path, show=False, failure=FailureConfig(max_failures=1))
    result = TorchTrainer(loop, scaling=TWO, run=run).fit()
    assert result.returned == [1, 1]
    assert [checkpoint.report for checkpoint in result.checkpoints] == [1]


def test_the_error_of_a_loop_comes_as_its_own_type_and_names_the_rank():
    def loop() -> None:
        if train.get_context().rank == 1:
            raise LookupError("no such column")
        train.barrier()

    with pytest.raises(LookupError, match="no such column") as caught:
        TorchTrainer(loop, scaling=TWO, run=QUIET).fit()
    assert any("rank 1 of 2" in note for note in caught.value.__notes__)


def test_a_loss_that_is_not_a_number_ends_the_run():
    def loop() -> None:
        train.report({"loss": 1.0}, checkpoint={"step": 1})
        train.report({"loss": float("nan") if train.get_context().rank == 1 else 1.0}, checkpoint={"step": 2})

    with pytest.raises(train.NotFiniteError, match="Rank 1 reports `loss` = nan in report 2") as caught:
        TorchTrainer(loop, scaling=TWO, run=QUIET).fit()
    assert caught.value.rank == 1 and caught.value.report == 2


def test_a_report_on_one_rank_only_is_an_error():
    def loop() -> None:
        if train.get_context().rank == 0:
            train.report({"loss": 1.0})

    with pytest.raises(train.ReportError, match="loop of rank 1 has ended after 0"):
        TorchTrainer(loop, scaling=TWO, run=QUIET).fit()


def test_a_shard_that_is_shorter_than_the_others_is_an_error():
    class Uneven:
        def streaming_split(self, count: int) -> list[range]:
            return [range(4), range(3)]

    def loop() -> None:
        for _ in train.get_dataset_shard():
            train.broadcast(1)
            torch.distributed.all_reduce(torch.ones(1))

    with pytest.raises(train.ReportError, match="shard shorter than the others"):
        TorchTrainer(loop, scaling=TWO, run=QUIET, data={"train": Uneven()}).fit()


def test_ranks_that_hang_are_found_and_their_stacks_shown(capfd):
    def loop() -> None:
        train.report({"step": 1})
        if train.get_context().rank == 1:
            wait_for_ever()
        train.report({"step": 2})

    def wait_for_ever() -> None:
        threading.Event().wait()

    run = RunConfig(show=False, failure=FailureConfig(hang_timeout=1.5, on_hang="fail"))
    with pytest.raises(train.HangError) as caught:
        TorchTrainer(loop, scaling=TWO, run=run).fit()
    assert "wait_for_ever" in caught.value.stacks and "rank 0" in caught.value.stacks
    assert "wait_for_ever" in capfd.readouterr().err


def test_only_the_best_checkpoints_and_the_newest_stay(tmp_path):
    def loop() -> None:
        for score in (1.0, 5.0, 4.0, 3.0, 2.0):
            train.report({"score": score}, checkpoint={"score": score})

    run = RunConfig(name="best", storage=tmp_path, show=False, checkpoint=CheckpointConfig(keep=2, score="score"))
    result = TorchTrainer(loop, scaling=ScalingConfig(num_workers=0), run=run).fit()
    assert [one.metrics["score"] for one in result.checkpoints] == [5.0, 4.0, 2.0]
    assert result.best_checkpoint.load() == {"score": 5.0}


def test_checkpoints_are_written_in_the_background(tmp_path):
    def loop() -> None:
        weights = torch.zeros(1000)
        for step in range(4):
            weights += 1
            train.report({"step": step}, checkpoint={"weights": weights})

    run = RunConfig(name="later", storage=tmp_path, show=False, checkpoint=CheckpointConfig(asynchronous=True))
    result = TorchTrainer(loop, scaling=TWO, run=run).fit()
    assert [one.load()["weights"][0].item() for one in result.checkpoints] == [1.0, 2.0, 3.0, 4.0]


def test_the_learning_rate_is_changed_from_outside():
    def loop() -> float:
        optimizer = train.prepare_optimizer(torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=0.1))
        while optimizer.param_groups[0]["lr"] == 0.1:
            settings = train.report({"lr": 0.1})
        assert settings == {"lr": 0.5}
        return optimizer.param_groups[0]["lr"]

    run = TorchTrainer(loop, scaling=TWO, run=QUIET).fit(background=True)
    run.set("lr", 0.5)
    assert run.result(timeout=60).returned == [0.5, 0.5]


def test_a_run_is_stopped_from_outside():
    def loop() -> None:
        while True:
            train.report({"loss": 1.0})

    run = TorchTrainer(loop, scaling=TWO, run=QUIET).fit(background=True)
    run.stop()
    assert run.result(timeout=60).returned == [None, None]
    assert run.is_done and "ended" in repr(run) and "rank 1" in repr(run)
    assert "<table>" in run._repr_mimebundle_()["text/html"]


def test_a_run_grows_when_there_is_room(tmp_path):
    gate = tmp_path / "free"

    @shoal.remote
    def occupy() -> None:
        os.mkfifo(gate)
        with open(gate) as pipe:
            pipe.read()

    def loop(path: str) -> int:
        step = (lambda found: found.load()["step"] if found else 0)(train.get_checkpoint())
        context = train.get_context()
        while step < 3 or context.world_size == 1:
            step += 1
            if step == 3 and context.world_size == 1:
                with open(path, "w") as pipe:
                    pipe.write("go")
            train.report({"world": context.world_size}, checkpoint={"step": step})
        return context.world_size

    busy = occupy.remote()
    while not gate.exists():
        shoal.wait([busy], timeout=0.05)
    run = RunConfig(show=False)
    result = TorchTrainer(loop, config=str(gate), scaling=ScalingConfig(num_workers=(1, 2)), run=run).fit()
    assert result.history[0]["world"] == 1 and result.returned == [2, 2] and result.num_failures == 0


def test_errors_before_anything_starts():
    with pytest.raises(InfeasibleError, match="7 ranks of"):
        TorchTrainer(lambda: None, scaling=ScalingConfig(num_workers=7), run=QUIET).fit()
    lock = threading.Lock()
    with pytest.raises(SerializationError, match="lock"):
        TorchTrainer(lambda: lock, scaling=TWO, run=QUIET).fit()
    with pytest.raises(OptionError, match="has 1 rows for 2 ranks"):
        TorchTrainer(lambda: None, scaling=TWO, data={"train": [1]}, run=QUIET).fit()
    with pytest.raises(OptionError, match="no `config`"):
        TorchTrainer(lambda config: None)
    with pytest.raises(RuntimeError, match="is for a training loop"):
        train.report({})


def test_a_torch_loader_gives_each_rank_its_share():
    def loop() -> list[int]:
        loader = torch.utils.data.DataLoader(torch.arange(10), batch_size=2, shuffle=True)
        prepared = train.prepare_data_loader(loader)
        first, second = ([int(x) for batch in prepared for x in batch] for _ in range(2))
        train.report({"rows": len(first)})
        assert sorted(first) != first or first != second
        return first

    result = TorchTrainer(loop, scaling=TWO, run=QUIET).fit()
    assert sorted(result.returned[0] + result.returned[1]) == list(range(10))
    assert result.history[0]["num_rows"] == 10  # two epochs of five


def test_the_loss_is_that_of_torchrun_to_the_bit(tmp_path):
    script = tmp_path / "ddp.py"
    script.write_text(textwrap.dedent(DDP))
    run = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2", str(script)]
    done = subprocess.run(run, capture_output=True, text=True, timeout=100, check=True)
    space: dict[str, Any] = {"__name__": "ddp"}
    exec(compile(script.read_text(), script, "exec"), space)
    losses = TorchTrainer(space["loop"], scaling=TWO, run=QUIET).fit().returned[0]
    assert done.stdout.split() == losses


DDP = """
    import torch
    from torch import nn
    from torch.nn.parallel import DistributedDataParallel

    def loop():
        torch.manual_seed(0)
        rank = torch.distributed.get_rank()
        model = DistributedDataParallel(nn.Sequential(nn.Conv2d(1, 8, 3), nn.ReLU(), nn.Flatten(), nn.Linear(288, 10)))
        optimizer = torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9)
        data = torch.Generator().manual_seed(1)
        images, labels = torch.randn(128, 1, 8, 8, generator=data), torch.randint(10, (128,), generator=data)
        losses = []
        for epoch in range(3):
            for start in range(0, 128, 32):
                mine = slice(start + 16 * rank, start + 16 * rank + 16)
                loss = nn.functional.cross_entropy(model(images[mine]), labels[mine])
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
            losses.append(loss.item().hex())
        return losses

    if __name__ == "__main__":
        torch.distributed.init_process_group("gloo")
        found = loop()
        if torch.distributed.get_rank() == 0:
            print(*found)
        torch.distributed.destroy_process_group()
"""


def test_the_driver_is_killed_and_the_run_resumed(tmp_path: Path):
    script = tmp_path / "driver.py"
    script.write_text(
        textwrap.dedent("""
        import sys
        import shoal
        from shoal_ml import train

        def loop(path):
            import os, signal
            found = train.get_checkpoint()
            step = found.load()["step"] if found else 0
            while step < 4:
                step += 1
                train.report({"step": step}, checkpoint={"step": step})
                if step == 2 and not found:
                    os.kill(int(path), signal.SIGKILL)
            return found is not None

        if __name__ == "__main__":
            import os
            with shoal.init(num_cpus=1):
                run = train.RunConfig(name="run", storage=sys.argv[1], show=False)
                train.TorchTrainer(loop, config=str(os.getpid()), run=run).fit()
        """)
    )
    done = subprocess.run([sys.executable, str(script), str(tmp_path)], capture_output=True, timeout=60)
    assert done.returncode == -signal.SIGKILL
    result = train.resume(tmp_path / "run")
    assert result.returned == [True] and [row["step"] for row in result.history] == [1, 2, 3, 4]
