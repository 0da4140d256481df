"""What the tuners train: a small network on scikit-learn's digits, up to 16 epochs."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

EPOCHS = 16


def make_space(tune: Any) -> dict[str, Any]:
    """Return the space with the domains of a tuner that names them as Ray does."""
    return {"lr": tune.loguniform(1e-4, 1.0), "width": tune.choice([16, 32, 64, 128]), "batch": tune.choice([16, 64])}


def train(config: dict[str, Any]) -> Iterator[float]:
    """Give the accuracy on held-out scans after each epoch."""
    import torch
    from sklearn.datasets import load_digits
    from torch import nn

    torch.manual_seed(0)
    digits = load_digits()
    x, y = torch.tensor(digits.data / 16, dtype=torch.float32), torch.tensor(digits.target)
    held_out = torch.arange(len(y)) % 4 == 0
    net = nn.Sequential(nn.Linear(64, config["width"]), nn.ReLU(), nn.Linear(config["width"], 10))
    optimizer = torch.optim.SGD(net.parameters(), lr=config["lr"], momentum=0.9)
    rows = (~held_out).nonzero()[:, 0]
    for _ in range(EPOCHS):
        for batch in rows[torch.randperm(len(rows))].split(config["batch"]):
            optimizer.zero_grad()
            nn.functional.cross_entropy(net(x[batch]), y[batch]).backward()
            optimizer.step()
        with torch.inference_mode():
            yield (net(x[held_out]).argmax(1) == y[held_out]).float().mean().item()
