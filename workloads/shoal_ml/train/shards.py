"""Data for several ranks: who gets which rows."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from shoal.errors import OptionError


class DataShard(Sequence[Any]):
    """One rank's rows of a sequence, an array or a torch dataset; itself a torch dataset.

    Row ``i`` is row ``rank + i * world_size`` of the whole. Every rank has as many: where the rows do not divide, the
    last ranks begin again at the first row, as torch's DistributedSampler has it.
    """

    def __init__(self, rows: Any, rank: int, world_size: int, count: Callable[[int], None] | None = None) -> None:
        self._rows = rows
        self._rank = rank
        self._world_size = world_size
        self._count = count or (lambda num_rows: None)
        #: Rows of the whole.
        self.num_rows = len(rows)

    def __len__(self) -> int:
        return -(-self.num_rows // self._world_size)

    def __getitem__(self, index: Any) -> Any:
        if isinstance(index, slice):
            return [self[one] for one in range(*index.indices(len(self)))]
        if not -len(self) <= index < len(self):
            raise IndexError(index)
        position = (self._rank + (index % len(self)) * self._world_size) % self.num_rows
        return self._rows[position]

    def iter_batches(self, batch_size: int, *, shuffle_seed: int | None = None) -> Iterator[Any]:
        """Give the rows in batches; the last may be shorter.

        Of an array or tensor a batch is one too, with the rows first; of anything else a list of rows.

        Parameters
        ----------
        batch_size
            Rows of a batch, 1 or more.
        shuffle_seed
            Gives an order of the rows: pass another one in each epoch, the same on every rank.
        """
        if not (isinstance(batch_size, int) and batch_size >= 1):
            raise OptionError(f"`batch_size` is a number from 1 up, not {batch_size!r}.", option="batch_size")
        import numpy as np

        order = np.arange(len(self))
        if shuffle_seed is not None:
            np.random.default_rng(shuffle_seed).shuffle(order)
        positions = (self._rank + order * self._world_size) % self.num_rows
        for start in range(0, len(positions), batch_size):
            chosen = positions[start : start + batch_size]
            self._count(len(chosen))
            yield self._rows[chosen] if _is_array(self._rows) else [self._rows[int(one)] for one in chosen]

    def __reduce__(self) -> tuple[Any, ...]:
        # for the processes of a data loader, which count nothing
        return DataShard, (self._rows, self._rank, self._world_size)

    def __repr__(self) -> str:
        return f"<shard {self._rank} of {self._world_size}: {len(self)} of {self.num_rows} rows>"


def split(data: Mapping[str, Any], world_size: int, put: Callable[[Any], Any]) -> list[dict[str, tuple[str, Any]]]:
    """Return what each rank is sent: by name what kind it is, and the shard or the ref of the whole.

    Raises
    ------
    OptionError
        Something cannot be split, or has fewer rows than there are ranks.
    """
    shards: list[dict[str, tuple[str, Any]]] = [{} for _ in range(world_size)]
    for name, whole in data.items():
        if hasattr(whole, "streaming_split"):
            parts = list(whole.streaming_split(world_size))
            if len(parts) != world_size:
                raise OptionError(f"`data[{name!r}]` was split into {len(parts)}, not {world_size}.", option="data")
            sent = [("own", part) for part in parts]
        elif hasattr(whole, "__getitem__") and hasattr(whole, "__len__") and not isinstance(whole, Mapping):
            if len(whole) < world_size:
                raise OptionError(
                    f"`data[{name!r}]` has {len(whole)} rows for {world_size} ranks: each needs one at least.",
                    option="data",
                )
            sent = [("rows", put(whole))] * world_size
        elif hasattr(whole, "__iter__"):
            sent = [("own", put(whole))] * world_size
        else:
            raise OptionError(
                f"`data[{name!r}]` is a sequence, an array, a torch dataset, or has a method `streaming_split`; a "
                f"{type(whole).__name__} is none of these.",
                option="data",
            )
        for own, one in zip(shards, sent, strict=True):
            own[name] = one
    return shards


def receive(sent: Mapping[str, tuple[str, Any]], rank: int, world_size: int, count: Callable[[int], None]) -> Any:
    """Return the shards of a rank from what it was sent, values in the place of refs."""
    return {
        name: DataShard(value, rank, world_size, count) if kind == "rows" else value
        for name, (kind, value) in sent.items()
    }


def _is_array(rows: Any) -> bool:
    return hasattr(rows, "shape") and hasattr(rows, "dtype")
