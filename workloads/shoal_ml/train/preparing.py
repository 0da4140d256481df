"""What makes a loop for one process one for several: models, data loaders and optimizers."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from shoal.errors import OptionError
from shoal_ml.train.context import get_context
from shoal_ml.train.session import current_session

if TYPE_CHECKING:
    import torch
    from torch.utils.data import DataLoader


def get_device() -> torch.device:
    """Return the device that this rank trains on."""
    import torch

    return torch.device(get_context().device)


def prepare_model(model: torch.nn.Module, *, parallel: str = "ddp", **options: Any) -> torch.nn.Module:
    """Move a model to this rank's device and have the ranks train it together.

    With a device mesh, the ranks along its axis ``data`` do. One rank gets the model itself.

    Parameters
    ----------
    parallel
        ``"ddp"``: each has all parameters and gradients are averaged (``DistributedDataParallel``). ``"fsdp"``:
        each has a share of parameters, gradients and optimizer states (``fully_shard``, FSDP2), and layers are brought
        together as they are needed. ``"none"``.
    **options
        Of ``DistributedDataParallel`` or ``fully_shard``.

    Raises
    ------
    OptionError
        *parallel* is something else.
    """
    if parallel not in ("ddp", "fsdp", "none"):
        raise OptionError(f"`parallel` is `ddp`, `fsdp` or `none`, not {parallel!r}.", option="parallel")
    context = get_context()
    device = get_device()
    model = model.to(device)
    mesh = context.mesh["data"] if context.mesh is not None and "data" in context.mesh.mesh_dim_names else None
    size = mesh.size() if mesh is not None else 1 if context.mesh is not None else context.world_size
    if parallel == "none" or (size == 1 and parallel == "ddp"):
        return model
    if parallel == "fsdp":
        return _fully_sharded(model, mesh, context.world_size, options)  # type: ignore[no-any-return]
    from torch.nn.parallel import DistributedDataParallel

    if not any(parameter.requires_grad for parameter in model.parameters()):
        return model
    if device.type == "cuda":
        options = {"device_ids": [device], **options}
    if mesh is not None:
        options = {"process_group": mesh.get_group(), **options}
    return DistributedDataParallel(model, **options)


def prepare_optimizer(optimizer: Any) -> Any:
    """Have an optimizer follow the settings that are changed from the notebook (``run.set("lr", 0.01)``)."""
    optimizers = getattr(current_session("prepare_optimizer"), "optimizers", None)
    if optimizers is not None:
        optimizers.append(optimizer)
    return optimizer


class PreparedLoader:
    """A data loader of one rank: its share of the rows, on its device, in another order in each epoch.

    Other attributes are those of the loader.
    """

    def __init__(self, loader: DataLoader[Any], device: torch.device, meter: Any) -> None:
        self._loader = loader
        self._device = device
        self._meter = meter
        self._epoch = 0

    def set_epoch(self, epoch: int) -> None:
        """Choose the order of the rows; each pass takes the next. Set it after going on from a checkpoint."""
        self._epoch = epoch

    def __iter__(self) -> Iterator[Any]:
        sampler = self._loader.sampler
        if hasattr(sampler, "set_epoch"):
            sampler.set_epoch(self._epoch)
        self._epoch += 1
        for batch in self._loader:
            if self._meter is not None:
                self._meter.count(_num_rows(batch))
            yield _to(batch, self._device)

    def __len__(self) -> int:
        return len(self._loader)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._loader, name)


def prepare_data_loader(loader: DataLoader[Any], *, seed: int = 0) -> PreparedLoader:
    """Have a data loader give this rank's share of the rows (torch's ``DistributedSampler``), on its device.

    A loader whose data set is a shard of :func:`get_dataset_shard` already keeps all its rows. With a device mesh,
    ranks that differ only in other axes than ``data`` get the same rows.

    Raises
    ------
    TypeError
        Its data set is iterable: rows cannot be chosen; give each rank its own.
    """
    from torch.utils.data import DataLoader, IterableDataset, RandomSampler
    from torch.utils.data.distributed import DistributedSampler

    from shoal_ml.train.shards import DataShard

    context = get_context()
    meter = getattr(current_session("prepare_data_loader"), "meter", None)
    rank, size = data_rank(context)
    if size == 1 or isinstance(loader.dataset, DataShard):
        return PreparedLoader(loader, get_device(), meter)
    if isinstance(loader.dataset, IterableDataset):
        raise TypeError(
            "The loader's data set is iterable: let it give each rank its own rows, by `get_context().rank`."
        )
    shuffles = isinstance(loader.sampler, RandomSampler)
    sampler: Any = DistributedSampler(
        loader.dataset, num_replicas=size, rank=rank, shuffle=shuffles, seed=seed, drop_last=loader.drop_last
    )
    own: DataLoader[Any] = DataLoader(
        loader.dataset,
        batch_size=loader.batch_size,
        sampler=sampler,
        num_workers=loader.num_workers,
        collate_fn=loader.collate_fn,
        pin_memory=loader.pin_memory,
        drop_last=loader.drop_last,
        timeout=loader.timeout,
        worker_init_fn=loader.worker_init_fn,
        generator=loader.generator,
        prefetch_factor=loader.prefetch_factor,
        persistent_workers=loader.persistent_workers,
    )
    return PreparedLoader(own, get_device(), meter)


def data_rank(context: Any) -> tuple[int, int]:
    """Return a rank's position along the axis ``data`` of its mesh (or in the group) and the axis's length."""
    if context.mesh is None:
        return context.rank, context.world_size
    if "data" not in context.mesh.mesh_dim_names:
        return 0, 1
    return context.mesh.get_local_rank("data"), context.mesh["data"].size()


def _fully_sharded(model: Any, mesh: Any, world_size: int, options: dict[str, Any]) -> Any:
    """Shard the model's larger blocks by themselves, so that one at a time is whole, and then the rest."""
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import fully_shard

    if mesh is None:
        mesh = init_device_mesh(get_device().type, (world_size,), mesh_dim_names=("data",))
    for block in blocks_of(model):
        fully_shard(block, mesh=mesh, **options)
    return fully_shard(model, mesh=mesh, **options)


def blocks_of(model: Any) -> list[Any]:
    """Return the blocks that a model is made of: the members of its lists of modules, or else its children."""
    from torch import nn

    found = [
        block
        for module in model.modules()
        if isinstance(module, (nn.ModuleList, nn.Sequential))
        for block in module
        if not isinstance(block, (nn.ModuleList, nn.Sequential)) and any(True for _ in block.parameters())
    ]
    return found or [child for child in model.children() if any(True for _ in child.parameters())]


def _num_rows(batch: Any) -> int:
    if hasattr(batch, "shape") and len(batch.shape):
        return int(batch.shape[0])
    if isinstance(batch, dict):
        batch = list(batch.values())
    return _num_rows(batch[0]) if isinstance(batch, (list, tuple)) and batch else 1


def _to(batch: Any, device: torch.device) -> Any:
    if device.type == "cpu":
        return batch
    if hasattr(batch, "to"):
        return batch.to(device, non_blocking=True)
    if isinstance(batch, dict):
        return {name: _to(value, device) for name, value in batch.items()}
    if isinstance(batch, (list, tuple)):
        return type(batch)(_to(value, device) for value in batch)
    return batch
