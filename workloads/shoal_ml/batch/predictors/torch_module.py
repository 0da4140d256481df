"""Predict with a torch module."""

from __future__ import annotations

from typing import Any

import numpy as np

from shoal.errors import OptionError
from shoal_ml.batch.predictors.checkpoints import Checkpoint
from shoal_ml.batch.predictors.contract import Batch, Predictor, as_names, name_outputs
from shoal_ml.batch.predictors.features import check_inputs, rows_together, stack_columns


class TorchPredictor(Predictor):
    """Predicts with a ``torch.nn.Module``, in ``eval`` and ``inference_mode``.

    Parameters
    ----------
    inputs
        How the columns reach the module: ``"stack"``, one tensor of shape (rows, …); ``"named"``, as arguments of
        their names; ``"ordered"``, as arguments in the order of the columns.
    outputs
        Columns for what it returns: a name, or one for each entry of a tuple. ``"predictions"`` by default. Of a
        mapping, the entries that are wanted.
    dtype
        Type of the tensors, such as ``"float32"``. By default floating-point columns get the type of the module's
        first parameter, and whole numbers stay what they are.
    device
        Where it runs; by default the first device of the replica's own GPUs, or the CPU. Weights on the CPU are shared
        by the replicas of a node; a GPU has its copy for each.
    num_threads
        Threads of torch in the replica; by default its ``num_cpus``, at least 1.
    method
        What is called: the module itself by default.
    """

    def __init__(
        self,
        *,
        inputs: str = "stack",
        outputs: str | tuple[str, ...] | None = None,
        dtype: str | None = None,
        device: str | None = None,
        num_threads: int | None = None,
        method: str | None = None,
    ) -> None:
        self.inputs = check_inputs(inputs)
        self.outputs = as_names(outputs)
        self.dtype = dtype
        self.device = device
        self.num_threads = num_threads
        self.method = method

    def load(self, model: Any) -> None:
        import torch

        if self.num_threads is not None:
            torch.set_num_threads(self.num_threads)
        module = model.build() if isinstance(model, Checkpoint) else model
        if not isinstance(module, torch.nn.Module):
            raise OptionError(
                f"`TorchPredictor` takes a torch module, not {type(module).__name__}. Weights alone (a state dict) "
                "need a `Checkpoint` with a `factory`.",
                option="model",
            )
        self._device = torch.device(self.device or ("cuda" if torch.cuda.is_available() else "cpu"))
        self._module = module.eval()
        if self._device.type != "cpu":
            self._module = self._module.to(self._device)
        self._call = getattr(self._module, self.method) if self.method else self._module
        self._dtype = getattr(torch, self.dtype) if self.dtype else None
        self._floats = _first_float(self._module)

    def predict(self, batch: Batch) -> Any:
        import torch

        with torch.inference_mode():
            if self.inputs == "stack":
                outputs = self._call(self._tensor(stack_columns(batch)))
            else:
                tensors = {name: self._tensor(rows_together(name, column)) for name, column in batch.items()}
                outputs = self._call(**tensors) if self.inputs == "named" else self._call(*tensors.values())
            return name_outputs(outputs, self.outputs, type(self._module).__name__)

    def close(self) -> None:
        del self._module, self._call

    def _tensor(self, array: np.ndarray[Any, Any]) -> Any:
        import torch

        if not array.flags.writeable:  # torch would warn; nobody writes to it in inference mode
            array = array.copy()
        tensor = torch.from_numpy(np.ascontiguousarray(array))
        dtype = self._dtype or (self._floats if tensor.is_floating_point() else None)
        return tensor.to(device=self._device, dtype=dtype, non_blocking=True)


def _first_float(module: Any) -> Any:
    """Return the floating-point type that the module computes in; None if it has no such parameter."""
    return next((tensor.dtype for tensor in module.parameters() if tensor.is_floating_point()), None)


__all__ = ["TorchPredictor"]
