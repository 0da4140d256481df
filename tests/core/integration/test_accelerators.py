"""Accelerators, labels and further resources of an embedded cluster."""

from __future__ import annotations

import os

import pytest

import shoal


@shoal.remote
def where():
    return shoal.get_runtime_context().node_id


def test_accelerators_are_masked_and_shared():
    """Devices that the machine does not have: what counts is who is told which."""

    @shoal.remote
    class Device:
        def mask(self):
            return os.environ["CUDA_VISIBLE_DEVICES"]

    @shoal.remote
    def mask():
        return os.environ["CUDA_VISIBLE_DEVICES"], shoal.get_runtime_context().gpu_ids

    with shoal.init(num_cpus=2, num_gpus=2, labels={"zone": "a"}, resources={"tpu": 1}):
        halves = [Device.options(num_gpus=0.5).remote() for _ in range(2)]
        assert len(set(shoal.get([half.mask.remote() for half in halves], timeout=30))) == 1
        whole = shoal.get(mask.options(num_gpus=1).remote(), timeout=30)
        assert whole[0] in ("0", "1") and whole[1] == (whole[0],)
        assert whole[0] != shoal.get(halves[0].mask.remote())
        assert shoal.get(mask.remote(), timeout=30) == ("", ()), "who asks for none sees none"
        del halves
        assert shoal.get(mask.options(num_gpus=2).remote(), timeout=30)[0] == "0,1"
        assert shoal.get(where.options(label_selector={"zone": "a"}, resources={"tpu": 1}).remote(), timeout=30)
        with pytest.raises(shoal.errors.InfeasibleError, match="no node carries these labels"):
            shoal.get(where.options(label_selector={"zone": "b"}).remote(), timeout=30)
        with pytest.raises(shoal.errors.InfeasibleError, match="accelerator_type=A100"):
            shoal.get(where.options(accelerator_type="A100").remote(), timeout=30)
