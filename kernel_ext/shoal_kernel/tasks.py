"""A cell's parts as tasks: started by the notebook, or for a background cell by the actor that looks after it.

Executors import this module: it needs nothing of Jupyter.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

import shoal
from shoal.api.ranks import Meeting, Rank
from shoal_kernel.cell import CellSpec, run_cell
from shoal_kernel.packing import Package


@dataclasses.dataclass(frozen=True)
class RunOptions:
    """How to run a cell; ``None`` and 0 leave a thing to the cluster."""

    #: The cell, for output and errors.
    tag: str
    #: What panels and errors call it.
    name: str
    num_cpus: float | None = None
    num_gpus: float | None = None
    memory: int | None = None
    #: Seconds after which a background cell is stopped; the notebook itself stops the others.
    timeout: float | None = None
    #: A cell has side effects: it never runs twice unasked.
    retries: int = 0
    #: Its ranks get a process group.
    torch: bool = False

    def reserved(self) -> dict[str, Any]:
        """Return what is reserved while it runs."""
        given = {"num_cpus": self.num_cpus, "num_gpus": self.num_gpus, "memory": self.memory}
        return {name: value for name, value in given.items() if value is not None}


@dataclasses.dataclass(frozen=True)
class CellPart:
    """What one part has of its own."""

    label: str
    #: What its value is collected under.
    key: Any = None
    #: Its own variables, packed.
    own: Package | None = None
    #: Options of its task.
    options: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    #: Its number among ranks; -1 if it is none.
    rank: int = -1


@dataclasses.dataclass(frozen=True)
class CellTasks:
    """All that is needed to start a cell's tasks, wherever that is done."""

    spec: CellSpec
    #: The package, or the ref of one that several parts share.
    package: Any
    stored: tuple[shoal.ObjectRef, ...]
    parts: tuple[CellPart, ...]
    #: How the parts' values are collected (:class:`shoal_kernel.parts.Parts`).
    kind: str
    options: RunOptions

    @property
    def needs_all(self) -> bool:
        """Whether the parts need each other: when one fails, the others are of no use."""
        return self.parts[0].rank >= 0

    def names(self) -> list[str]:
        """Return what output and panels call the tasks."""
        return [part.label or self.options.name for part in self.parts]

    def start(self, timeout: float | None = None) -> StartedTasks:
        """Submit the tasks; each is stopped if it takes longer than *timeout* seconds."""
        gang = _Gang(len(self.parts), self.options) if self.needs_all else None
        try:
            refs = [
                self._submit(part, name, gang, timeout) for part, name in zip(self.parts, self.names(), strict=True)
            ]
        except BaseException:
            if gang is not None:
                gang.end()
            raise
        return StartedTasks(refs, gang)

    def _submit(self, part: CellPart, name: str, gang: _Gang | None, timeout: float | None) -> list[shoal.ObjectRef]:
        spec = self.spec if gang is None else gang.spec(self.spec, part.rank)
        task = shoal.remote(run_cell).options(
            **{**self.options.reserved(), **part.options, **(gang.options(part.rank) if gang is not None else {})},
            name=name,
            cell=self.options.tag,
            timeout=timeout,
            max_retries=self.options.retries,
            retry_exceptions=bool(self.options.retries),
            num_returns=2 if spec.keeps_value else 1,
        )
        found = task.remote(spec, self.package, part.own, *self.stored)
        return found if isinstance(found, list) else [found]


@dataclasses.dataclass(frozen=True)
class StartedTasks:
    """The tasks of a cell."""

    #: Of each part its result, and what else it returns.
    refs: list[list[shoal.ObjectRef]]
    gang: _Gang | None

    def end(self) -> None:
        """All have ended: let go what they shared."""
        if self.gang is not None:
            self.gang.end()


class _Gang:
    """Room for all ranks, reserved together, and the place where they meet."""

    def __init__(self, count: int, options: RunOptions) -> None:
        self._count = count
        self._torch = options.torch
        self._group = shoal.placement_group([{"num_cpus": 1, **options.reserved()}] * count)
        self._meeting = shoal.remote(Meeting).options(cell=options.tag).remote()

    def options(self, rank: int) -> dict[str, Any]:
        return {"scheduling_strategy": self._group.bundle(rank)}

    def spec(self, spec: CellSpec, rank: int) -> CellSpec:
        """Return the cell of one rank; names come back from the first."""
        around = Rank(rank, self._count, self._group, self._meeting, self._torch)
        return dataclasses.replace(spec, around=around, brings_names=spec.brings_names and rank == 0)

    def end(self) -> None:
        shoal.remove_placement_group(self._group)
        shoal.kill(self._meeting)
