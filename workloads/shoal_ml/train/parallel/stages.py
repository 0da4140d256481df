"""``split_stages``: cut a model into stages that are about equally large and take about equally long."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from shoal.errors import OptionError

if TYPE_CHECKING:
    from torch import nn


@dataclasses.dataclass(frozen=True)
class Layer:
    """What one layer costs.

    Attributes
    ----------
    name
        Its class.
    nbytes
        Of its parameters.
    flops
        Floating-point operations of its forward pass on the sample.
    output
        Shape of what it returns for the sample; () if that is no tensor.
    """

    name: str
    nbytes: int
    flops: int
    output: tuple[int, ...]


@dataclasses.dataclass(frozen=True)
class StagePlan:
    """Which layers each stage has, and what they cost; prints as a table.

    Attributes
    ----------
    layers
        All layers, in their order.
    bounds
        Of each stage its first layer and the one after its last.
    """

    layers: tuple[Layer, ...]
    bounds: tuple[tuple[int, int], ...]

    def nbytes(self, stage: int) -> int:
        """Return the bytes of a stage's parameters."""
        return sum(layer.nbytes for layer in self._of(stage))

    def flops(self, stage: int) -> int:
        """Return the operations of a stage's forward pass."""
        return sum(layer.flops for layer in self._of(stage))

    def _of(self, stage: int) -> tuple[Layer, ...]:
        start, stop = self.bounds[stage]
        return self.layers[start:stop]

    def __repr__(self) -> str:
        whole_bytes = max(1, sum(layer.nbytes for layer in self.layers))
        whole_flops = max(1, sum(layer.flops for layer in self.layers))
        lines = ["stage  layers     parameters        operations"]
        for stage, (start, stop) in enumerate(self.bounds):
            nbytes, flops = self.nbytes(stage), self.flops(stage)
            lines.append(
                f"{stage:5}  {f'{start}-{stop - 1}':8} {nbytes / 2**20:8.1f} MiB {nbytes / whole_bytes:4.0%}"
                f"  {flops / 1e6:8.1f} M {flops / whole_flops:4.0%}"
            )
        return "\n".join(lines)


def split_stages(model: nn.Module, num_stages: int, sample: Any) -> StagePlan:
    """Propose a split of a chain of layers into stages, balanced by memory and time.

    Nothing is computed: layers are looked at on torch's ``meta`` device, so that *model* may be there itself and be
    larger than any memory. Memory is that of the parameters, time is the number of floating-point operations of the
    forward pass. The largest share, of either, that any stage has is as small as it can be.

    Parameters
    ----------
    model
        An ``nn.Sequential``: its members are the layers, which are not cut.
    num_stages
        1 or more, and no more than there are layers.
    sample
        A tensor as the model takes it, one micro-batch; only its shape and type matter.

    Raises
    ------
    OptionError
        *model* is no chain of layers, there are fewer layers than stages, or a layer does not take what the one before
        gives.

    Examples
    --------
    >>> import torch
    >>> from torch import nn
    >>> from shoal_ml.train import split_stages
    >>> split_stages(nn.Sequential(*[nn.Linear(64, 64) for _ in range(6)]), 3, torch.zeros(8, 64)).bounds
    ((0, 2), (2, 4), (4, 6))
    """
    from torch import nn

    if not isinstance(model, nn.Sequential):
        raise OptionError(
            f"`split_stages` takes an `nn.Sequential`, whose members are the layers, not a {type(model).__name__}: "
            "write the model as a chain of blocks.",
            option="model",
        )
    if not (isinstance(num_stages, int) and 1 <= num_stages <= len(model)):
        raise OptionError(
            f"`num_stages` is a number from 1 to that of the layers, {len(model)}, not {num_stages!r}: layers are not "
            "cut. Use smaller layers or fewer stages.",
            option="num_stages",
        )
    layers = _measure(model, sample)
    return StagePlan(layers, _balance(layers, num_stages))


def build_stage(model: nn.Sequential, plan: StagePlan, stage: int, *, seed: int, device: Any = "cpu") -> nn.Sequential:
    """Make one stage of a model that is on the ``meta`` device: memory is taken for its own layers only.

    Layers are initialised by their ``reset_parameters``, each after a seed of its own, so that a model has the same
    parameters in whatever stages it is.

    Raises
    ------
    OptionError
        A layer cannot initialise its parameters.
    """
    import torch
    from torch import nn

    start, stop = plan.bounds[stage]
    layers = []
    for number in range(start, stop):
        layer = model[number].to_empty(device=device)
        torch.manual_seed(seed + number)
        for module in layer.modules():
            if not any(True for _ in (*module.parameters(recurse=False), *module.buffers(recurse=False))):
                continue
            reset = getattr(module, "reset_parameters", None) or getattr(module, "_reset_parameters", None)
            if reset is None:
                raise OptionError(
                    f"Layer {number} has a {type(module).__name__} without `reset_parameters`, so that its parameters "
                    "cannot be made here. Give it that method, or build the model outside of `meta`.",
                    option="model",
                )
            reset()
        layers.append(layer)
    return nn.Sequential(*layers)


def _measure(model: nn.Sequential, sample: Any) -> tuple[Layer, ...]:
    import copy

    import torch
    from torch.utils.flop_counter import FlopCounterMode

    found = []
    value = torch.empty_like(sample, device="meta")
    for number, layer in enumerate(model):
        counter = FlopCounterMode(display=False)
        ghost = copy.deepcopy(layer).to("meta") if _is_small(layer) else layer.to("meta")
        before = tuple(value.shape)
        try:
            with torch.no_grad(), counter:
                value = ghost(value)
        except (RuntimeError, TypeError, ValueError) as error:
            first = (str(error).splitlines() or [""])[0]
            raise OptionError(
                f"Layer {number} ({type(layer).__name__}) does not take what comes before it, of shape {before}: "
                f"{first}",
                option="model",
            ) from error
        if not isinstance(value, torch.Tensor):
            raise OptionError(
                f"Layer {number} ({type(layer).__name__}) returns a {type(value).__name__}; what passes between stages "
                "is one tensor.",
                option="model",
            )
        nbytes = sum(one.numel() * one.element_size() for one in layer.parameters())
        found.append(Layer(type(layer).__name__, nbytes, counter.get_total_flops(), tuple(value.shape)))
    return tuple(found)


def _is_small(layer: Any) -> bool:
    """Whether a layer has to be copied: one that is on ``meta`` already costs nothing."""
    return any(one.device.type != "meta" for one in (*layer.parameters(), *layer.buffers()))


def _balance(layers: Sequence[Layer], num_stages: int) -> tuple[tuple[int, int], ...]:
    """Cut a chain into stages whose largest share of memory or time is least; by dynamic programming."""
    memory, time = [0.0], [0.0]
    whole = (max(1, sum(layer.nbytes for layer in layers)), max(1, sum(layer.flops for layer in layers)))
    for layer in layers:
        memory.append(memory[-1] + layer.nbytes / whole[0])
        time.append(time[-1] + layer.flops / whole[1])

    def cost(start: int, stop: int) -> tuple[float, float]:
        shares = (memory[stop] - memory[start], time[stop] - time[start])
        return max(shares), sum(shares) ** 2

    num_layers = len(layers)
    #: By stages and layers: the largest share, the sum of squares (which breaks ties), where the last stage begins.
    best: dict[tuple[int, int], tuple[float, float, int]] = {(0, 0): (0.0, 0.0, 0)}
    for stages in range(1, num_stages + 1):
        for stop in range(stages, num_layers - (num_stages - stages) + 1):
            choices = []
            for start in range(stages - 1, stop):
                if (stages - 1, start) in best:
                    largest, spread, _ = best[stages - 1, start]
                    share, square = cost(start, stop)
                    choices.append((round(max(largest, share), 12), spread + square, start))
            best[stages, stop] = min(choices)
    bounds, stop = [], num_layers
    for stages in range(num_stages, 0, -1):
        start = best[stages, stop][2]
        bounds.append((start, stop))
        stop = start
    return tuple(reversed(bounds))
