"""``Pipeline``: a model whose stages are on the ranks along the axis ``pipe`` of the mesh."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from shoal.errors import OptionError
from shoal_ml.train.context import get_context
from shoal_ml.train.parallel.schedules import ScheduleChart, Work, measured
from shoal_ml.train.parallel.stages import StagePlan, build_stage, split_stages

if TYPE_CHECKING:
    import torch
    from torch import nn

SCHEDULES = ("1f1b", "gpipe")


class Pipeline:
    """Trains a chain of layers in stages, one on each rank along ``pipe``; with an axis ``data``, several at once.

    What runs are the schedules of ``torch.distributed.pipelining``. Gradients of the same stage are averaged along
    ``data`` at the end of a step, by one sum of all of them: ``DistributedDataParallel`` counts the passes of several
    micro-batches wrongly there (torch 2.13). Every rank makes one, with the same arguments.

    Parameters
    ----------
    model
        An ``nn.Sequential``, best on the ``meta`` device (``with torch.device("meta"): …``), so that no process ever
        has all of it: each makes its own stage.
    loss
        A function of the last stage's output and the targets; a mean over rows.
    sample
        A tensor like one micro-batch of inputs.
    num_microbatches
        Pieces that a batch is cut into; more of them have fewer bubbles.
    schedule
        ``"1f1b"`` or ``"gpipe"``.
    seed
        Of the parameters of layers on ``meta``.
    plan
        Another split than that of :func:`split_stages`.

    Raises
    ------
    OptionError
        The run has no mesh with an axis ``pipe``, or the layers cannot be split so.
    """

    def __init__(
        self,
        model: nn.Sequential,
        loss: Callable[[Any, Any], Any],
        sample: torch.Tensor,
        *,
        num_microbatches: int = 4,
        schedule: str = "1f1b",
        seed: int = 0,
        plan: StagePlan | None = None,
    ) -> None:
        import torch.distributed.pipelining as pipelining

        mesh = get_context().mesh
        if mesh is None or "pipe" not in mesh.mesh_dim_names:
            raise OptionError(
                'A pipeline needs an axis `pipe`: `ScalingConfig(num_workers=2, mesh={"pipe": 2})`.', option="mesh"
            )
        if schedule not in SCHEDULES:
            raise OptionError(f"`schedule` is one of {', '.join(SCHEDULES)}, not {schedule!r}.", option="schedule")
        self._mesh = mesh
        self._group = mesh["pipe"].get_group()
        self.num_stages: int = mesh["pipe"].size()
        self.stage: int = mesh.get_local_rank("pipe")
        self.plan = plan or split_stages(model, self.num_stages, sample)
        self.module = self._build(model, seed)
        #: The passes of this rank in the last step.
        self._work: list[Work] = []
        stage = _timed(pipelining.PipelineStage)(
            self.module, self.stage, self.num_stages, get_context().device, group=self._group
        )
        stage.work = self._work
        kind = pipelining.Schedule1F1B if schedule == "1f1b" else pipelining.ScheduleGPipe
        self._schedule = kind(stage, n_microbatches=num_microbatches, loss_fn=loss)
        self._num_microbatches = num_microbatches

    @property
    def is_first(self) -> bool:
        return self.stage == 0

    @property
    def is_last(self) -> bool:
        return self.stage == self.num_stages - 1

    def step(self, inputs: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        """Pass a batch forward and backward; gradients are added up, and the mean loss comes back on every rank.

        Parameters
        ----------
        inputs, targets
            The batch, on every rank; the first stage takes the inputs, the last the targets. Rows are cut into
            micro-batches, so their number is a multiple of *num_microbatches*.
        """
        import torch
        import torch.distributed as distributed

        if len(inputs) % self._num_microbatches:
            raise OptionError(
                f"A batch of {len(inputs)} rows cannot be cut into {self._num_microbatches} micro-batches: its rows "
                "have to be a multiple.",
                option="num_microbatches",
            )
        self._work.clear()
        losses: list[torch.Tensor] = []
        args = (inputs,) if self.is_first else ()
        self._schedule.step(*args, target=targets if self.is_last else None, losses=losses if self.is_last else None)
        self._average_gradients()
        mean = torch.stack(losses).mean().detach() if losses else torch.zeros((), device=inputs.device)
        distributed.broadcast(mean, group=self._group, group_src=self.num_stages - 1)
        return mean

    def chart(self) -> ScheduleChart:
        """Return when each stage worked in the last step; every rank along ``pipe`` calls this."""
        import torch.distributed as distributed

        found: list[Any] = [None] * self.num_stages
        distributed.all_gather_object(found, [tuple(one) for one in self._work], group=self._group)
        return measured([Work(*one) for part in found for one in part], self.num_stages)

    def _build(self, model: nn.Sequential, seed: int) -> nn.Sequential:
        start, stop = self.plan.bounds[self.stage]
        if any(parameter.device.type == "meta" for parameter in model[start:stop].parameters()):
            return build_stage(model, self.plan, self.stage, seed=seed, device=get_context().device)
        return model[start:stop].to(get_context().device)  # type: ignore[return-value]

    def _average_gradients(self) -> None:
        import torch
        import torch.distributed as distributed
        from torch.distributed.tensor import DTensor

        if "data" not in self._mesh.mesh_dim_names or self._mesh["data"].size() == 1:
            return
        found = (one.grad for one in self.module.parameters() if one.grad is not None)
        # Of tensors that are split along `tensor`, this rank's part: ranks along `data` hold the same parts.
        gradients = [one.to_local() if isinstance(one, DTensor) else one for one in found]
        if not gradients:
            return
        flat = torch.cat([gradient.reshape(-1) for gradient in gradients])
        distributed.all_reduce(flat, group=self._mesh["data"].get_group())
        flat /= self._mesh["data"].size()
        pieces = torch.split(flat, [gradient.numel() for gradient in gradients])
        for gradient, piece in zip(gradients, pieces, strict=True):
            gradient.copy_(piece.view_as(gradient))


def _timed(kind: type[Any]) -> type[Any]:
    """Return torch's stage with a watch."""

    class TimedStage(kind):  # type: ignore[misc]
        work: list[Work]

        def forward_one_chunk(self, fwd_chunk_id: int, *args: Any, **options: Any) -> Any:
            began = time.time()
            try:
                return super().forward_one_chunk(fwd_chunk_id, *args, **options)
            finally:
                self.work.append(Work(self.stage_index, "F", fwd_chunk_id, began, time.time()))

        def backward_one_chunk(self, bwd_chunk_id: int, *args: Any, **options: Any) -> Any:
            began = time.time()
            try:
                return super().backward_one_chunk(bwd_chunk_id, *args, **options)
            finally:
                self.work.append(Work(self.stage_index, "B", bwd_chunk_id, began, time.time()))

    return TimedStage
