"""Models over a device mesh, in real processes: the same losses as in one, in a share of the memory."""

from __future__ import annotations

import math
import resource
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch import nn

import shoal
from shoal.errors import OptionError
from shoal_ml import train
from shoal_ml.train import RunConfig, ScalingConfig, TorchTrainer
from shoal_ml.train.parallel.schedules import expected

QUIET = RunConfig(show=False)
#: Single-precision sums in another order.
TOLERANCE = 1e-5
STEPS = 3


@pytest.fixture(scope="module", autouse=True)
def cluster() -> Iterator[None]:
    with shoal.init(num_cpus=4):
        yield


def make_model(width: int = 16, depth: int = 3) -> nn.Sequential:
    layers = [layer for _ in range(depth) for layer in (nn.Linear(width, width), nn.Tanh())]
    return nn.Sequential(*layers, nn.Linear(width, 4))


def batch(width: int = 16) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(3)
    return torch.randn(16, width, generator=generator), torch.randint(4, (16,), generator=generator)


def in_one_process() -> list[float]:
    """Return the losses of the model as one stage."""
    with torch.device("meta"):
        whole = make_model()
    plan = train.split_stages(whole, 1, torch.empty(4, 16))
    model = train.build_stage(whole, plan, 0, seed=5)
    return descend(model, lambda inputs, targets: nn.functional.cross_entropy(model(inputs), targets), backward=True)


def descend(model: nn.Module, step: Any, *, backward: bool = False, rows: slice = slice(None)) -> list[float]:
    optimizer = torch.optim.SGD(model.parameters(), lr=0.5)
    losses = []
    inputs, targets = batch()
    for _ in range(STEPS):
        optimizer.zero_grad()
        loss = step(inputs[rows], targets[rows])
        if backward:
            loss.backward()
        optimizer.step()
        losses.append(loss.item())
    return losses


@pytest.fixture(scope="module")
def alone() -> list[float]:
    return in_one_process()


@pytest.mark.parametrize(
    ("mesh", "schedule"),
    [({"pipe": 2}, "gpipe"), ({"data": 2, "pipe": 2, "tensor": 1}, "1f1b")],
    ids=["pipe 2, GPipe", "data 2 x pipe 2, 1F1B"],
)
def test_a_pipeline_has_the_losses_of_one_process(alone, mesh, schedule):
    def loop(schedule: str) -> Any:
        with torch.device("meta"):
            whole = make_model()
        pipeline = train.Pipeline(
            whole, nn.functional.cross_entropy, torch.empty(4, 16), num_microbatches=2, schedule=schedule, seed=5
        )
        data = train.get_context().mesh
        number, count = (data.get_local_rank("data"), 2) if "data" in data.mesh_dim_names else (0, 1)
        mine = slice(number * 16 // count, (number + 1) * 16 // count)
        losses = descend(pipeline.module, pipeline.step, rows=mine)
        held = sum(one.numel() * one.element_size() for one in pipeline.module.parameters())
        return losses, number, held == pipeline.plan.nbytes(pipeline.stage), len(pipeline.chart().work)

    scaling = ScalingConfig(num_workers=math.prod(mesh.values()), mesh=mesh)
    returned = TorchTrainer(loop, config=schedule, scaling=scaling, run=QUIET).fit().returned
    by_data = {number: losses for losses, number, _, _ in returned}
    means = [sum(losses) / len(by_data) for losses in zip(*by_data.values(), strict=True)]
    assert means == pytest.approx(alone, abs=TOLERANCE)
    assert all(own_only and passes == 2 * 2 * 2 for _, _, own_only, passes in returned)


def test_fully_sharded_training_has_the_losses_of_one_process_and_reshards(alone, tmp_path):
    def loop(width: int) -> Any:
        with torch.device("meta"):
            whole = make_model(width)
        plan = train.split_stages(whole, 1, torch.empty(4, width))
        model = train.prepare_model(train.build_stage(whole, plan, 0, seed=5), parallel="fsdp")
        optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
        inputs, targets = batch(width)
        rank, world = train.get_context().rank, train.get_context().world_size
        found = train.get_checkpoint()
        if found is not None:
            found.load_sharded({"model": model, "optimizer": optimizer})
        losses = []
        for _ in range(STEPS):
            mine = slice(rank * 16 // world, (rank + 1) * 16 // world)
            loss = nn.functional.cross_entropy(model(inputs[mine]), targets[mine])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            losses.append(loss.item())
        train.report({"loss": losses[-1]}, checkpoint=train.sharded({"model": model, "optimizer": optimizer}))
        own = sum(one.to_local().numel() for one in model.parameters())
        return losses, own

    def fit(num_workers: int, **options: Any) -> train.Result:
        scaling = ScalingConfig(num_workers=num_workers)
        return TorchTrainer(loop, config=16, scaling=scaling, **options).fit()

    first = fit(2, run=RunConfig(name="first", storage=tmp_path, show=False))
    whole = sum(one.numel() for one in make_model().parameters())
    assert [own for _, own in first.returned] == pytest.approx([whole / 2] * 2, rel=0.2)
    # Three more steps on one rank are what six on two are.
    resumed = fit(1, run=QUIET, resume_from=first.checkpoint)
    means = [sum(pair) / 2 for pair in zip(*(losses for losses, _ in first.returned), strict=True)]
    assert means[0] == pytest.approx(alone[0], abs=TOLERANCE)
    again = fit(2, run=QUIET, resume_from=first.checkpoint)
    expected_means = [sum(pair) / 2 for pair in zip(*(losses for losses, _ in again.returned), strict=True)]
    assert resumed.returned[0][0] == pytest.approx(expected_means, abs=TOLERANCE)
    assert resumed.returned[0][0][0] < means[-1]


def test_tensor_parallel_layers_have_the_losses_of_one_process(alone):
    def loop() -> Any:
        from torch.distributed.tensor.parallel import ColwiseParallel, RowwiseParallel, parallelize_module

        with torch.device("meta"):
            whole = make_model()
        model = train.build_stage(whole, train.split_stages(whole, 1, torch.empty(4, 16)), 0, seed=5)
        plan = {"0": ColwiseParallel(), "2": RowwiseParallel()}
        model = parallelize_module(model, train.get_context().mesh["tensor"], plan)
        losses = descend(model, lambda x, y: nn.functional.cross_entropy(model(x), y), backward=True)
        return losses, model[0].weight.to_local().numel()

    scaling = ScalingConfig(num_workers=2, mesh={"tensor": 2})
    for losses, own in TorchTrainer(loop, scaling=scaling, run=QUIET).fit().returned:
        assert losses == pytest.approx(alone, abs=TOLERANCE) and own == 16 * 16 / 2


WIDTH, DEPTH = 3072, 8


def limited(extra: int) -> None:
    """Let this process have *extra* bytes more than it has now."""
    with open("/proc/self/status") as status:
        used = next(int(line.split()[1]) * 1024 for line in status if line.startswith("VmData"))
    resource.setrlimit(resource.RLIMIT_DATA, (used + extra, used + extra))


def large(config: tuple[int, int]) -> float:
    extra, num_microbatches = config
    torch.ones(64, 64) @ torch.ones(64, 64)  # what libraries take once is not the model's
    limited(extra)
    with torch.device("meta"):
        whole = nn.Sequential(*[nn.Linear(WIDTH, WIDTH, bias=False) for _ in range(DEPTH)])
    pipeline = train.Pipeline(
        whole, nn.functional.mse_loss, torch.empty(4, WIDTH), num_microbatches=num_microbatches, seed=1
    )
    inputs = torch.ones(4 * num_microbatches, WIDTH)
    try:
        return pipeline.step(inputs, torch.zeros_like(inputs)).item()
    except RuntimeError as error:  # torch tells the reason in what this was raised from
        raise MemoryError(str(error.__cause__)) from None


def test_a_model_that_does_not_fit_one_process_trains_when_it_is_split():
    whole = WIDTH * WIDTH * 4 * DEPTH * 2  # parameters and gradients
    config = (int(whole * 0.75), 2)
    with pytest.raises((RuntimeError, MemoryError), match=r"not enough memory|allocate memory"):
        TorchTrainer(large, config=config, scaling=ScalingConfig(num_workers=1, mesh={"pipe": 1}), run=QUIET).fit()
    scaling = ScalingConfig(num_workers=2, mesh={"pipe": 2})
    losses = TorchTrainer(large, config=config, scaling=scaling, run=QUIET).fit().returned
    assert losses[0] == losses[1] and math.isfinite(losses[0])


def test_stages_are_balanced_by_memory_and_time():
    layers = [nn.Linear(8, 8), nn.Linear(8, 8), nn.Linear(8, 256), nn.Linear(256, 256), nn.Linear(256, 8)]
    plan = train.split_stages(nn.Sequential(*layers), 3, torch.zeros(2, 8))
    assert plan.bounds == ((0, 3), (3, 4), (4, 5))
    assert "stage" in repr(plan) and plan.layers[3].output == (2, 256)
    with torch.device("meta"):
        huge = nn.Sequential(*[nn.Linear(100_000, 100_000) for _ in range(4)])
    assert train.split_stages(huge, 2, torch.zeros(1, 100_000)).bounds == ((0, 2), (2, 4))


def test_what_cannot_be_split_is_refused():
    with pytest.raises(OptionError, match=r"takes an `nn.Sequential`"):
        train.split_stages(nn.Linear(2, 2), 1, torch.zeros(1, 2))  # type: ignore[arg-type]
    with pytest.raises(OptionError, match="from 1 to that of the layers, 2"):
        train.split_stages(nn.Sequential(nn.Linear(2, 2), nn.Tanh()), 3, torch.zeros(1, 2))
    with pytest.raises(OptionError, match=r"Layer 1 \(Linear\) does not take .* of shape \(1, 3\)"):
        train.split_stages(nn.Sequential(nn.Linear(2, 3), nn.Linear(2, 2)), 2, torch.zeros(1, 2))


@pytest.mark.parametrize("schedule", ["gpipe", "1f1b"])
@pytest.mark.parametrize(("stages", "batches"), [(2, 4), (4, 4), (3, 9), (4, 2)])
def test_a_schedule_has_the_bubbles_that_are_known_of_it(schedule, stages, batches):
    chart = expected(schedule, stages, batches)
    assert chart.bubble_ratio == pytest.approx((stages - 1) / (batches + stages - 1))
    assert len(chart.picture().splitlines()) == stages + 1
