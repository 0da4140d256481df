"""How a training run is scaled, kept and repaired: frozen records, checked where the user wrote them."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from shoal.errors import OptionError
from shoal.model.options import is_number

_STRATEGIES = ("PACK", "SPREAD", "STRICT_PACK", "STRICT_SPREAD")


def _is_count(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _check_seconds(name: str, value: Any) -> None:
    if not (is_number(value) and value > 0):
        raise OptionError(f"`{name}` is a number of seconds above 0, not {value!r}.", option=name)


@dataclasses.dataclass(frozen=True)
class ScalingConfig:
    """How many ranks a run has, and what each of them needs.

    Attributes
    ----------
    num_workers
        Ranks, 1 or more. ``(min, max)``: as many as there is room for, and more or fewer as the cluster changes. 0 runs
        the loop here, in the calling process, for debugging.
    use_gpu
        Each rank gets one device (or as many as *resources_per_worker* says), and the process group is NCCL's.
    resources_per_worker
        What each rank reserves, such as ``{"num_cpus": 2, "num_gpus": 1}``; one CPU by default.
    placement
        How ranks are spread over nodes: a strategy of :func:`shoal.placement_group`.
    backend
        Of the process group: ``"gloo"`` or ``"nccl"``; None chooses.
    mesh
        Names and sizes of the axes of a device mesh, such as ``{"data": 2, "pipe": 2}``: their product is the number
        of ranks. One axis may be -1: what the others leave.
    placement_timeout
        Seconds to wait for room.
    collective_timeout
        Seconds that a collective may take before it fails.
    """

    num_workers: int | tuple[int, int] = 1
    use_gpu: bool = False
    resources_per_worker: Mapping[str, float] = dataclasses.field(default_factory=dict)
    placement: str = "PACK"
    backend: str | None = None
    mesh: Mapping[str, int] | None = None
    placement_timeout: float = 300.0
    collective_timeout: float = 1800.0

    def __post_init__(self) -> None:
        least, most = self.bounds
        if not (_is_count(least) and _is_count(most) and (1 <= least <= most or self.num_workers == 0)):
            raise OptionError(
                "`num_workers` is a number of ranks, 0 to run here, or `(min, max)` with 1 <= min <= max, not "
                f"{self.num_workers!r}.",
                option="num_workers",
            )
        if self.placement not in _STRATEGIES:
            raise OptionError(
                f"`placement` is one of {', '.join(_STRATEGIES)}, not {self.placement!r}.", option="placement"
            )
        if self.backend not in (None, "gloo", "nccl"):
            raise OptionError(f"`backend` is `gloo`, `nccl` or None, not {self.backend!r}.", option="backend")
        for name in ("placement_timeout", "collective_timeout"):
            _check_seconds(name, getattr(self, name))
        if self.mesh is not None:
            check_axes(self.mesh)
            if least == most:
                mesh_sizes(self.mesh, most)

    @property
    def bounds(self) -> tuple[int, int]:
        """The least and the largest number of ranks."""
        if isinstance(self.num_workers, (tuple, list)) and len(self.num_workers) == 2:
            return self.num_workers[0], self.num_workers[1]
        return self.num_workers, self.num_workers

    @property
    def bundle(self) -> dict[str, float]:
        """What one rank reserves."""
        return {"num_cpus": 1, **({"num_gpus": 1} if self.use_gpu else {}), **self.resources_per_worker}

    @property
    def group_backend(self) -> str:
        return self.backend or ("nccl" if self.bundle.get("num_gpus") else "gloo")


def check_axes(mesh: Mapping[str, int]) -> None:
    """Refuse a mesh that has no axes, or sizes that are none."""
    if not isinstance(mesh, Mapping) or not mesh:
        raise OptionError(f'`mesh` is a mapping of axes to sizes such as {{"data": 2}}, not {mesh!r}.', option="mesh")
    for axis, size in mesh.items():
        if not _is_count(size) or (size < 1 and size != -1):
            raise OptionError(f"Axis `{axis}` of `mesh` has a size from 1 up, or -1, not {size!r}.", option="mesh")
    if list(mesh.values()).count(-1) > 1:
        raise OptionError(f"Only one axis of `mesh` can be -1, not {dict(mesh)!r}.", option="mesh")


def mesh_sizes(mesh: Mapping[str, int], world_size: int) -> dict[str, int]:
    """Return the size of each axis for *world_size* ranks.

    Raises
    ------
    OptionError
        They do not multiply to the number of ranks.
    """
    known = math.prod(size for size in mesh.values() if size != -1)
    free = [axis for axis, size in mesh.items() if size == -1]
    if world_size % known or (not free and known != world_size):
        shown = " x ".join(f"{axis} {size}" for axis, size in mesh.items())
        raise OptionError(
            f"The mesh {shown} does not multiply to {world_size} ranks: its known sizes make {known}. Change "
            "`num_workers` or `mesh`, or let one axis be -1.",
            option="mesh",
        )
    return {axis: world_size // known if size == -1 else size for axis, size in mesh.items()}


@dataclasses.dataclass(frozen=True)
class CheckpointConfig:
    """Which checkpoints stay, and how they are written.

    Attributes
    ----------
    keep
        How many, 1 or more; None for all. The newest always stays: a run goes on from it.
    score
        Metric (of rank 0) by which the best are kept; None keeps the newest.
    mode
        ``"max"`` or ``"min"``: what makes a score better.
    asynchronous
        Write in the background: ``report`` copies the state and returns. What fails then is told by the next report.
    """

    keep: int | None = None
    score: str | None = None
    mode: str = "max"
    asynchronous: bool = False

    def __post_init__(self) -> None:
        if self.keep is not None and not (_is_count(self.keep) and self.keep >= 1):
            raise OptionError(f"`keep` is a number from 1 up, or None, not {self.keep!r}.", option="keep")
        if self.mode not in ("max", "min"):
            raise OptionError(f"`mode` is `max` or `min`, not {self.mode!r}.", option="mode")


@dataclasses.dataclass(frozen=True)
class FailureConfig:
    """What happens when ranks fail.

    Attributes
    ----------
    max_failures
        How often the group is started again from the last checkpoint after a rank's process died or hung; -1 without
        end.
    retry_exceptions
        Exception types of the loop after which it is started again too.
    hang_timeout
        Seconds without a report of any rank after which the stacks of all ranks are shown; None never. Until the first
        report it is a minute at least: processes start, and meet.
    on_hang
        ``"tell"``: show the stacks and go on. ``"fail"``: that counts as a failure.
    allow_nan
        Whether metrics may be NaN or infinite; otherwise that ends the run.
    """

    max_failures: int = 0
    retry_exceptions: tuple[type[BaseException], ...] = ()
    hang_timeout: float | None = 600.0
    on_hang: str = "tell"
    allow_nan: bool = False

    def __post_init__(self) -> None:
        if not (_is_count(self.max_failures) and self.max_failures >= -1):
            raise OptionError(
                f"`max_failures` is a number from 0 up, or -1, not {self.max_failures!r}.", option="max_failures"
            )
        if self.on_hang not in ("tell", "fail"):
            raise OptionError(f"`on_hang` is `tell` or `fail`, not {self.on_hang!r}.", option="on_hang")
        if self.hang_timeout is not None:
            _check_seconds("hang_timeout", self.hang_timeout)


@dataclasses.dataclass(frozen=True)
class RunConfig:
    """Where a run is kept, and how it is shown.

    Attributes
    ----------
    name
        Directory of the run inside *storage*; the date, the time and a random word by default.
    storage
        Directory of runs, on the driver's machine. By default the run is kept as long as what ``fit`` returns.
    shared
        Whether ranks can write into *storage* themselves; None finds out. Otherwise checkpoints travel to the driver
        through the object store.
    checkpoint, failure
        See there.
    loggers
        Objects that are told of the run; see :mod:`shoal_ml.train.loggers`.
    show
        Whether to print what is reported.
    """

    name: str | None = None
    storage: str | Path | None = None
    shared: bool | None = None
    checkpoint: CheckpointConfig = CheckpointConfig()
    failure: FailureConfig = FailureConfig()
    loggers: tuple[Any, ...] = ()
    show: bool = True

    def __post_init__(self) -> None:
        if self.name is not None and (not self.name or "/" in self.name or self.name.startswith(".")):
            raise OptionError(f"`name` is the name of a directory, not {self.name!r}.", option="name")
