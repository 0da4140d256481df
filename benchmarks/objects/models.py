"""A model whose weights are 400 MB, and one run of it that reads them all."""

from __future__ import annotations

import torch
from torch import nn

WIDTH, LAYERS = 2_048, 24
MEGABYTES = LAYERS * (WIDTH + 1) * WIDTH * 4 / 1e6


def make(device: str, width: int = WIDTH) -> nn.Module:
    """Return the model: with random weights, or on the device ``meta`` without any."""
    torch.set_num_threads(1)
    with torch.device(device):
        return nn.Sequential(*(nn.Linear(width, width) for _ in range(LAYERS)))


def run(model: nn.Module) -> float:
    with torch.inference_mode():
        return float(model(torch.ones(model[0].in_features)).sum())


def run_state(state: dict[str, torch.Tensor]) -> float:
    model = make("meta")
    model.load_state_dict(state, assign=True)
    return run(model)


def warm_up() -> float:
    """Do what a process does once, the first time that it makes and runs a model."""
    return run(make("cpu", width=64))
