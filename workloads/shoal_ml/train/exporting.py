"""Checkpoints as safetensors files (optional: ``pip install shoal[train]``)."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from shoal_ml.train.errors import CheckpointError

if TYPE_CHECKING:
    from shoal_ml.train.checkpoints import Checkpoint


def write_safetensors(checkpoint: Checkpoint, path: Path, key: str | None) -> Path:
    """See :meth:`Checkpoint.to_safetensors`."""
    import torch

    try:
        from safetensors.torch import save_file
    except ImportError:
        raise ImportError("safetensors is not installed: `pip install shoal[train]`.") from None
    state: Any = checkpoint.load()
    if key is not None:
        if not isinstance(state, Mapping) or key not in state:
            has = ", ".join(f"`{name}`" for name in state) if isinstance(state, Mapping) else "no names"
            raise CheckpointError(f"`{checkpoint.path}` has no `{key}`; it has {has}.", path=str(checkpoint.path))
        state = state[key]
    if not isinstance(state, Mapping) or not all(isinstance(value, torch.Tensor) for value in state.values()):
        raise CheckpointError(
            "safetensors hold names and tensors only; pass `key` for the part that does, such as `model`.",
            path=str(checkpoint.path),
        )
    # Tensors that share memory are written as many times as they have names.
    save_file({name: value.detach().clone().contiguous() for name, value in state.items()}, path)
    return path
