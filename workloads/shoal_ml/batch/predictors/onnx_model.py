"""Predict with ONNX Runtime (the extra ``shoal[onnx]``)."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from shoal.errors import OptionError
from shoal_ml.batch.predictors.contract import Batch, Predictor, as_names
from shoal_ml.batch.predictors.features import rows_together, stack_columns

#: Types of ONNX tensors that numpy has under another name.
_TYPES = {"tensor(float)": "float32", "tensor(double)": "float64", "tensor(float16)": "float16"}


class OnnxPredictor(Predictor):
    """Predicts with an ONNX model: its bytes, or the path of its file.

    A model with one input gets the columns stacked; one with several gets the columns that have their names. Bytes are
    put into the cluster and need no shared file system; a path is opened by every replica and may have weights in files
    beside it. ONNX Runtime copies the weights for every replica.

    Parameters
    ----------
    outputs
        Names of the outputs that are wanted, all by default.
    providers
        Of ONNX Runtime, in the order of preference; by default what it has for the replica's devices, and the CPU.
    num_threads
        Threads inside an operator; by default the replica's ``num_cpus``, at least 1.
    """

    def __init__(
        self,
        *,
        outputs: str | tuple[str, ...] | None = None,
        providers: tuple[str, ...] | None = None,
        num_threads: int | None = None,
    ) -> None:
        self.outputs = as_names(outputs)
        self.providers = providers
        self.num_threads = num_threads

    def load(self, model: Any) -> None:
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = self.num_threads or 1
        options.inter_op_num_threads = 1
        source = str(model) if isinstance(model, str | Path) else bytes(model)
        providers = list(self.providers or onnxruntime.get_available_providers())
        self._session = onnxruntime.InferenceSession(source, options, providers=providers)
        self._inputs = {item.name: _TYPES.get(item.type) for item in self._session.get_inputs()}
        known = [item.name for item in self._session.get_outputs()]
        for name in self.outputs:
            if name not in known:
                raise OptionError(f"The model has no output `{name}`; there are {', '.join(known)}.", option="outputs")
        self._outputs = list(self.outputs) or known

    def predict(self, batch: Batch) -> dict[str, Any]:
        if len(self._inputs) == 1:
            arrays = {next(iter(self._inputs)): stack_columns(batch)}
        else:
            from shoal_ml.batch.errors import missing_column

            for name in self._inputs:
                if name not in batch:
                    raise missing_column(name, batch, ", an input of the model")
            arrays = {name: rows_together(name, batch[name]) for name in self._inputs}
        feed = {name: _as_type(array, self._inputs[name]) for name, array in arrays.items()}
        return dict(zip(self._outputs, self._session.run(self._outputs, feed), strict=True))


def _as_type(array: np.ndarray[Any, Any], dtype: str | None) -> np.ndarray[Any, Any]:
    """Return floating-point numbers in the width that the model wants; nothing else is converted."""
    return array.astype(dtype, copy=False) if dtype and array.dtype.kind == "f" else array


__all__ = ["OnnxPredictor"]
