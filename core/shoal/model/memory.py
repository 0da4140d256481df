"""What :func:`shoal.memory` answers: what is in the object stores, and who holds it."""

from __future__ import annotations

import dataclasses

from shoal.model.memory_table import render_html, render_text


@dataclasses.dataclass(frozen=True, slots=True)
class StoreUse:
    """The object store of one node; all in bytes.

    Attributes
    ----------
    node
        Address of its Dask worker; for one that did not answer in time all else is 0.
    used, limit
        In memory, what is kept warm for the next values included.
    on_disk, disk_limit
        Moved to disk.
    """

    node: str
    used: int = 0
    limit: int = 0
    on_disk: int = 0
    disk_limit: int = 0


@dataclasses.dataclass(frozen=True, slots=True)
class ObjectUse:
    """One value.

    Attributes
    ----------
    object_id
        Of the ref; "" for what no ref stands for: large arguments, and values that were freed and are still in use.
    nbytes
        Of its serialized form.
    where
        ``memory`` or ``disk`` of a node's store; ``inline``, with its owner; ``freed``: nobody holds a ref, but running
        code has arrays or tensors of it; ``copy``: of another node's; ``pending`` or ``failed``.
    nodes
        Where: addresses of Dask workers.
    made_by, cell
        The function or ``put``, and the notebook cell it came from, as far as is known.
    owner
        The process that owns it; "" for this one.
    held_by
        Variables, outputs and tracebacks here, work under way, other values, other processes.
    mapped
        Somebody uses its memory, so that it cannot be moved to disk.
    segment
        The name of its file in the store; "" if it has none.
    """

    object_id: str
    nbytes: int
    where: str
    nodes: tuple[str, ...] = ()
    made_by: str = ""
    cell: str | None = None
    owner: str = ""
    held_by: tuple[str, ...] = ()
    mapped: bool = False
    segment: str = ""


@dataclasses.dataclass(frozen=True, slots=True)
class MemoryReport:
    """What :func:`shoal.memory` returns; it prints as a table.

    Attributes
    ----------
    stores
        One for each node.
    objects
        The biggest first.
    more
        How many values are not listed, and their bytes.
    released
        Bytes in the stores that forgetting outputs and tracebacks has freed; None if that was not asked for.
    history_holds
        Whether outputs or tracebacks of the notebook hold any of the values listed.
    """

    stores: tuple[StoreUse, ...]
    objects: tuple[ObjectUse, ...]
    more: tuple[int, int] = (0, 0)
    released: int | None = None
    history_holds: bool = False

    def __str__(self) -> str:
        return render_text(self)

    __repr__ = __str__

    def _repr_html_(self) -> str:
        return render_html(self)
