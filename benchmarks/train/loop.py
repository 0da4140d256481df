"""What all systems train: a small convolutional network on scikit-learn's digits, by two ranks (DDP).

As a script it is what torchrun starts; rank 0 prints what came out.
"""

from __future__ import annotations

import json
import time

import torch
from torch import nn
from torch.nn.parallel import DistributedDataParallel

BATCH = 32


def train(num_epochs: int) -> dict:
    """Train as one rank of torch's process group; returns the last loss to the bit, and the seconds of each epoch."""
    from sklearn.datasets import load_digits

    torch.manual_seed(0)
    torch.set_num_threads(1)
    rank, world_size = torch.distributed.get_rank(), torch.distributed.get_world_size()
    digits = load_digits()
    images = torch.tensor(digits.images, dtype=torch.float32)[:, None] / 16
    labels = torch.tensor(digits.target)
    model = DistributedDataParallel(
        nn.Sequential(
            nn.Conv2d(1, 32, 3, padding=1), nn.ReLU(), nn.Conv2d(32, 64, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2),
            nn.Flatten(), nn.Linear(1024, 128), nn.ReLU(), nn.Linear(128, 10),
        )
    )  # fmt: skip
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9)
    seconds = []
    for epoch in range(num_epochs):
        began = time.perf_counter()
        order = torch.randperm(len(images), generator=torch.Generator().manual_seed(epoch))
        mine = order[: len(order) // world_size * world_size][rank::world_size]
        for start in range(0, len(mine) - BATCH + 1, BATCH):
            rows = mine[start : start + BATCH]
            loss = nn.functional.cross_entropy(model(images[rows]), labels[rows])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        seconds.append(time.perf_counter() - began)
    return {"loss": loss.item().hex(), "epochs": seconds}


if __name__ == "__main__":
    import sys

    torch.distributed.init_process_group("gloo")
    found = train(int(sys.argv[1]))
    if torch.distributed.get_rank() == 0:
        print(json.dumps(found))
    torch.distributed.destroy_process_group()
