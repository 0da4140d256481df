"""Sharded checkpoints: every rank saves its part, and any number of ranks loads them; by torch's own means."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from shoal_ml.train.errors import CheckpointError

if TYPE_CHECKING:
    from shoal_ml.train.checkpoints import Checkpoint

#: What torch.distributed.checkpoint calls its own table of contents.
METADATA = ".metadata"


class Sharded:
    """A state of which every rank has a part. Made by :func:`sharded`."""

    def __init__(self, state: Mapping[str, Any]) -> None:
        self._state = dict(state)

    def save(self, directory: Path) -> None:
        """Write this rank's part; all ranks call this."""
        import torch.distributed as distributed
        from torch.distributed.checkpoint.filesystem import FileSystemWriter
        from torch.distributed.checkpoint.state_dict_saver import save

        together = distributed.is_available() and distributed.is_initialized()
        writer = FileSystemWriter(directory, single_file_per_rank=True)
        save(self._tensors(), storage_writer=writer, no_dist=not together, process_group=_own_group())

    def staged(self) -> Sharded:
        """Return a copy in memory that training does not change any more."""
        import torch
        from torch.distributed._state_dict_utils import _copy_state_dict, _create_cpu_state_dict

        _own_group()  # made here, where all ranks are at the same point
        tensors = self._tensors()
        with torch.no_grad():
            return Sharded(_copy_state_dict(tensors, _create_cpu_state_dict(tensors)))

    def _tensors(self) -> dict[str, Any]:
        return {name: _state_of(value, self._state) for name, value in self._state.items()}


def sharded(state: Mapping[str, Any]) -> Sharded:
    """Have ``report`` save a state of which every rank has a part, as fully sharded and tensor-parallel models do.

    Parameters
    ----------
    state
        Names and modules, optimizers, or state dicts. An optimizer needs its module beside it under the name
        ``"model"``: parameters are then saved by their names, so that they can be loaded by another number of ranks.
    """
    return Sharded(state)


def load_sharded(checkpoint: Checkpoint, state: dict[str, Any]) -> None:
    """Load a sharded checkpoint in place: see :meth:`Checkpoint.load_sharded`."""
    import torch.distributed as distributed
    from torch.distributed.checkpoint.api import CheckpointException
    from torch.distributed.checkpoint.filesystem import FileSystemReader
    from torch.distributed.checkpoint.state_dict import set_optimizer_state_dict
    from torch.distributed.checkpoint.state_dict_loader import load

    if not (checkpoint.path / METADATA).exists():
        raise CheckpointError(f"`{checkpoint.path}` is not sharded: read it by `load()`.", path=str(checkpoint.path))
    together = distributed.is_available() and distributed.is_initialized()
    tensors = Sharded(state)._tensors()
    try:
        load(tensors, storage_reader=FileSystemReader(checkpoint.path), no_dist=not together)
    except (CheckpointException, RuntimeError) as error:
        raise CheckpointError(
            f"`{checkpoint.path}` does not hold what is to be loaded: {_first_line(error)}", path=str(checkpoint.path)
        ) from error
    for name, value in state.items():
        if hasattr(value, "param_groups"):
            set_optimizer_state_dict(state["model"], value, optim_state_dict=tensors[name])
        elif hasattr(value, "load_state_dict"):
            value.load_state_dict(tensors[name])
        else:
            state[name] = tensors[name]


def _state_of(value: Any, state: Mapping[str, Any]) -> Any:
    if hasattr(value, "param_groups"):
        from torch.distributed.checkpoint.state_dict import get_optimizer_state_dict

        if "model" not in state:
            raise CheckpointError("A sharded optimizer needs its module beside it, under the name `model`.", path="")
        return get_optimizer_state_dict(state["model"], value)
    return value.state_dict() if hasattr(value, "state_dict") else value


def _own_group() -> Any:
    """Return a group for checkpoints alone: one that is written in the background must not meet training's calls."""
    import torch.distributed as distributed

    global _group
    if not (distributed.is_available() and distributed.is_initialized()):
        return None
    if _group is None:
        _group = distributed.new_group(backend="gloo")
    return _group


_group: Any = None


def _first_line(error: BaseException) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]
