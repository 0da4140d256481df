"""Fingerprints are the same in another process, and change with what matters."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import torch

from shoal_ml.batch.fingerprints import fingerprint_of
from shoal_ml.batch.predictors import FunctionPredictor, TorchPredictor

PROGRAM = """
{blank}
import numpy as np, torch
from shoal_ml.batch.fingerprints import fingerprint_of
FACTOR = {factor}
class Net(torch.nn.Module):
    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.layer = torch.nn.Linear(3, 2)
    def forward(self, x):
        return {forward}
def helper(x):
    return x * FACTOR
def function(model, batch):
    return {{"y": helper(batch["x"])}}
print(fingerprint_of(function), fingerprint_of(Net()), fingerprint_of({{"a": np.arange(3), "b": (1, "x", None)}}))
"""


def printed(**parts) -> list[str]:
    program = PROGRAM.format(**{"blank": "", "factor": 2, "forward": "self.layer(x)", **parts})
    return subprocess.run([sys.executable, "-c", program], check=True, capture_output=True, text=True).stdout.split()


def test_the_same_in_another_process_and_on_other_lines():
    first = printed()
    assert printed(blank="# a comment\n\n") == first
    function, net, value = printed(factor=3)
    assert function != first[0] and [net, value] == first[1:]
    assert printed(forward="self.layer(x) + 1")[1] != first[1]


def test_weights_arrays_and_options_count():
    layer = torch.nn.Linear(2, 2)
    before = fingerprint_of(layer)
    with torch.no_grad():
        layer.weight[0, 0] += 1
    assert fingerprint_of(layer) != before
    assert fingerprint_of(np.zeros(3)) != fingerprint_of(np.zeros(3, np.float32))
    assert fingerprint_of(TorchPredictor()) == fingerprint_of(TorchPredictor())
    assert fingerprint_of(TorchPredictor()) != fingerprint_of(TorchPredictor(outputs="a"))
    assert fingerprint_of(FunctionPredictor(lambda model, batch: 1)) != fingerprint_of(
        FunctionPredictor(lambda model, batch: 2)
    )


def test_values_that_hold_themselves_have_one():
    value: list = [1]
    value.append(value)
    assert fingerprint_of(value) != fingerprint_of([1])
