"""What a training loop can find out about itself, and do together with the other ranks."""

from __future__ import annotations

import dataclasses
from typing import Any

from shoal.errors import OptionError
from shoal.model.suggest import did_you_mean
from shoal_ml.train.session import current_session


@dataclasses.dataclass(frozen=True)
class TrainContext:
    """A rank's place in its group.

    Attributes
    ----------
    rank, world_size
        Its number, from 0, and how many there are.
    local_rank, local_world_size
        The same among the ranks of its node.
    node_rank
        Number of its node among those of the group, in the order of the ranks.
    attempt
        How often the group was started before.
    name
        Of the run.
    storage
        Directory of the run, on the driver's machine.
    device
        Name of the device to train on, such as ``"cpu"`` or ``"cuda:0"``.
    mesh
        The ``torch`` device mesh that ``ScalingConfig(mesh=…)`` asks for, or None.
    """

    rank: int = 0
    world_size: int = 1
    local_rank: int = 0
    local_world_size: int = 1
    node_rank: int = 0
    attempt: int = 0
    name: str = ""
    storage: str = ""
    device: str = "cpu"
    mesh: Any = None


def get_context() -> TrainContext:
    """Return the place of the rank that calls this.

    Raises
    ------
    RuntimeError
        No training loop is running here.
    """
    context = getattr(current_session("get_context"), "context", None)
    return context if isinstance(context, TrainContext) else TrainContext()


def get_dataset_shard(name: str = "train") -> Any:
    """Return this rank's share of ``data[name]``.

    Returns
    -------
    DataShard or object
        Of a sequence, an array or a torch dataset, a :class:`DataShard`, which is a torch dataset too and as long on
        every rank; what has a method ``streaming_split`` gives its own kind of shard; an iterable comes whole.

    Raises
    ------
    OptionError
        The run has no data of that name.
    """
    shards: dict[str, Any] = getattr(current_session("get_dataset_shard"), "shards", {})
    if name not in shards:
        known = ", ".join(f"`{one}`" for one in shards) or "none"
        raise OptionError(
            f"There are no data `{name}`; `TorchTrainer(data=…)` has {known}.{did_you_mean(name, shards)}",
            option="data",
        )
    return shards[name]


def barrier() -> None:
    """Wait until every rank has come here."""
    distributed = _distributed("barrier")
    if distributed is not None:
        distributed.barrier()


def broadcast(value: Any = None, source: int = 0) -> Any:
    """Return on every rank what rank *source* passes; the others' *value* does not matter."""
    distributed = _distributed("broadcast")
    if distributed is None:
        return value
    box = [value]
    distributed.broadcast_object_list(box, src=source)
    return box[0]


def _distributed(function: str) -> Any:
    current_session(function)
    import torch.distributed as distributed

    return distributed if distributed.is_available() and distributed.is_initialized() else None
