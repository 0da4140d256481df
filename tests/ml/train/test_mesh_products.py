"""Products of the axes of a mesh on gloo: what torch allows there, with the losses of one process."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch import nn

import shoal
from shoal_ml import train
from shoal_ml.train import RunConfig, ScalingConfig, TorchTrainer

#: Single-precision sums in another order.
TOLERANCE = 1e-5
STEPS = 3


@pytest.fixture(scope="module", autouse=True)
def cluster() -> Iterator[None]:
    with shoal.init(num_cpus=8):
        yield


class Block(nn.Module):
    """Two layers around a residual, that Megatron's plan splits by columns and by rows."""

    def __init__(self, width: int = 16) -> None:
        super().__init__()
        self.up, self.down = nn.Linear(width, 2 * width), nn.Linear(2 * width, width)

    def forward(self, value: torch.Tensor) -> torch.Tensor:
        return value + self.down(torch.tanh(self.up(value)))


def make_model() -> nn.Sequential:
    with torch.device("meta"):
        return nn.Sequential(*[Block() for _ in range(4)])


def batch() -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(3)
    return torch.randn(16, 16, generator=generator), torch.randn(16, 16, generator=generator)


def split_tensors(model: nn.Sequential, mesh: Any) -> None:
    from torch.distributed.tensor.parallel import ColwiseParallel, RowwiseParallel, parallelize_module

    for block in model:
        parallelize_module(block, mesh, {"up": ColwiseParallel(), "down": RowwiseParallel()})


def build_whole() -> nn.Sequential:
    whole = make_model()
    return train.build_stage(whole, train.split_stages(whole, 1, torch.empty(4, 16)), 0, seed=5)


def descend(model: nn.Module, step: Any, inputs: torch.Tensor, targets: torch.Tensor) -> list[float]:
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    losses = []
    for _ in range(STEPS):
        optimizer.zero_grad()
        losses.append(step(inputs, targets).item())
        optimizer.step()
    return losses


def backward(model: nn.Module) -> Any:
    def step(inputs: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        loss = nn.functional.mse_loss(model(inputs), targets)
        loss.backward()
        return loss.detach()

    return step


@pytest.fixture(scope="module")
def alone() -> list[float]:
    model = build_whole()
    return descend(model, backward(model), *batch())


def loop() -> tuple[int, list[float]]:
    mesh = train.get_context().mesh
    names = mesh.mesh_dim_names
    place, count = (mesh.get_local_rank("data"), mesh["data"].size()) if "data" in names else (0, 1)
    inputs, targets = (one.chunk(count)[place] for one in batch())
    if "pipe" in names:
        pipeline = train.Pipeline(make_model(), nn.functional.mse_loss, torch.empty(4, 16), num_microbatches=2, seed=5)
        if "tensor" in names:
            split_tensors(pipeline.module, mesh["tensor"])
        return place, descend(pipeline.module, pipeline.step, inputs, targets)
    model = build_whole()
    if "tensor" in names:
        split_tensors(model, mesh["tensor"])
    model = train.prepare_model(model, parallel="fsdp")
    return place, descend(model, backward(model), inputs, targets)


@pytest.mark.parametrize(
    "mesh",
    [{"data": 2, "tensor": 2}, {"pipe": 2, "tensor": 2}, {"data": 2, "pipe": 2, "tensor": 2}],
    ids=["FSDP x tensor", "pipe x tensor", "data x pipe x tensor"],
)
def test_a_product_of_axes_has_the_losses_of_one_process(alone, mesh):
    scaling = ScalingConfig(num_workers=math.prod(mesh.values()), mesh=mesh)
    returned = TorchTrainer(loop, scaling=scaling, run=RunConfig(show=False)).fit().returned
    by_data = dict(returned)
    means = [sum(losses) / len(by_data) for losses in zip(*by_data.values(), strict=True)]
    assert means == pytest.approx(alone, abs=TOLERANCE)


def memory(field: str) -> int:
    with open("/proc/self/status") as lines:
        return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(field))


def take_steps(model: nn.Sequential, width: int) -> None:
    pipeline = train.Pipeline(model, nn.functional.mse_loss, torch.empty(4, width), num_microbatches=2)
    optimizer = torch.optim.Adam(pipeline.module.parameters(), lr=1e-5, foreach=False)
    for _ in range(2):
        optimizer.zero_grad()
        pipeline.step(torch.ones(8, width), torch.ones(8, width))
        optimizer.step()


def peak() -> int:
    """Return by how many bytes this process grew at most: 288 MiB of weights, gradients and Adam's state in all."""
    with torch.device("meta"):
        small, large = (nn.Sequential(*[nn.Linear(width, width, bias=False) for _ in range(8)]) for width in (8, 1536))
    take_steps(small, 8)  # what torch takes when it is first used is not the model's
    with open("/proc/self/clear_refs", "w") as peaks:
        peaks.write("5")
    before = memory("VmRSS:")
    take_steps(large, 1536)
    return memory("VmHWM:") - before


def test_the_peak_of_a_process_falls_with_the_number_of_stages():
    def peaks(num_stages: int) -> list[int]:
        scaling = ScalingConfig(num_workers=num_stages, mesh={"pipe": num_stages})
        return TorchTrainer(peak, scaling=scaling, run=RunConfig(show=False)).fit().returned

    (whole,) = peaks(1)
    assert whole > 8 * 1536 * 1536 * 4 * 4
    assert peaks(2) == pytest.approx([whole / 2] * 2, rel=0.2)
