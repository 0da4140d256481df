"""Lightning and Hugging Face trainers inside a training loop.

Both find the process group that the loop's rank already has; what is here only tells them so, and passes their metrics
on to ``report``. The libraries are imported by the functions that need them.
"""

from __future__ import annotations

from typing import Any

from shoal_ml.train.context import get_context
from shoal_ml.train.session import report


def lightning_options() -> dict[str, Any]:
    """Return the options with which a ``lightning.Trainer`` uses this rank: ``Trainer(**lightning_options(), …)``.

    Lightning starts no processes and takes the process group that is there. Use one node's ranks as its devices.
    """
    import lightning
    from lightning.pytorch.plugins.environments import LightningEnvironment

    context = get_context()

    class Environment(LightningEnvironment):  # type: ignore[misc]
        @property
        def creates_processes_externally(self) -> bool:
            return True

        def world_size(self) -> int:
            return context.world_size

        def set_world_size(self, size: int) -> None:
            pass

        def global_rank(self) -> int:
            return context.rank

        def set_global_rank(self, rank: int) -> None:
            pass

        def local_rank(self) -> int:
            return context.local_rank

        def node_rank(self) -> int:
            return context.node_rank

    class Reports(lightning.Callback):  # type: ignore[misc]
        def on_train_epoch_end(self, trainer: Any, module: Any) -> None:
            report({name: value for name, value in trainer.callback_metrics.items()})

    return {
        "accelerator": "gpu" if context.device.startswith("cuda") else "cpu",
        "devices": context.local_world_size,
        "num_nodes": context.world_size // context.local_world_size,
        "strategy": "ddp",
        "plugins": [Environment()],
        "callbacks": [Reports()],
        "enable_progress_bar": False,
    }


def transformers_callback() -> Any:
    """Return a callback for a Hugging Face ``Trainer`` that passes what it logs on to ``report``.

    The ``Trainer``, and ``accelerate.Accelerator``, find the process group by ``RANK``, ``WORLD_SIZE`` and
    ``LOCAL_RANK``, which the rank has.
    """
    from transformers import TrainerCallback

    class Reports(TrainerCallback):
        def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **options: Any) -> None:
            report({"step": state.global_step, **(logs or {})})

    return Reports()
