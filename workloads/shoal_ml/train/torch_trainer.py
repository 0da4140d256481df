"""``TorchTrainer``: one training loop on several ranks."""

from __future__ import annotations

import inspect
import secrets
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from shoal.errors import OptionError
from shoal_ml.train.checkpoints import Checkpoint
from shoal_ml.train.errors import CheckpointError
from shoal_ml.train.options import RunConfig, ScalingConfig
from shoal_ml.train.result import Result
from shoal_ml.train.run_directory import RunDirectory
from shoal_ml.train.training_run import TrainingRun


class TorchTrainer:
    """Trains one model on several ranks, processes that run the same loop and are one torch process group.

    The ranks are actors whose resources are reserved together. When a process or a node dies, the group starts again
    from the last checkpoint. After Ray Train's ``TorchTrainer``, from which it differs in this: checkpoints need no
    shared storage, a device mesh can be asked for, and nothing is overwritten under an old name.

    Parameters
    ----------
    train_loop
        A function without parameters, or with one: *config*. It runs on every rank and speaks by
        :func:`shoal_ml.train.report`.
    config
        What it is called with.
    scaling, run
        How many ranks and what each needs; where the run is kept and what happens when it fails.
    data
        Names and data sets, of which each rank gets its share: see :func:`shoal_ml.train.get_dataset_shard`.
    resume_from
        A checkpoint of another run to begin with: ``get_checkpoint`` returns it.

    Raises
    ------
    OptionError
        Something that makes no sense, before anything starts.
    """

    def __init__(
        self,
        train_loop: Callable[..., Any],
        *,
        config: Any = None,
        scaling: ScalingConfig | None = None,
        data: Mapping[str, Any] | None = None,
        run: RunConfig | None = None,
        resume_from: Checkpoint | None = None,
    ) -> None:
        self.train_loop = train_loop
        self.config = config
        self.scaling = scaling or ScalingConfig()
        self.run = run or RunConfig()
        self.data = dict(data or {})
        self.resume_from = resume_from
        self._resumed: RunDirectory | None = None
        self._check()

    def fit(self, *, background: bool = False) -> Any:
        """Train, and return what came of it.

        Blocks until the loops of all ranks have ended. The stop button ends the ranks; what was stored stays, and
        :func:`shoal_ml.train.resume` goes on with it.

        Parameters
        ----------
        background
            Return a :class:`TrainingRun` at once: to look at it, stop it, and change settings while it works.

        Returns
        -------
        Result or TrainingRun

        Raises
        ------
        Exception
            What the loop of a rank has raised, of its own type, with a note that says which rank.
        TrainingError, HangError
            Ranks have died or hung more often than ``max_failures``.
        InfeasibleError
            The cluster could never hold so many ranks.
        SerializationError
            The loop or its configuration cannot travel.
        OptionError
            There is a run of this name already.
        """
        training = self._make_run()
        if background:
            if self.scaling.bounds == (0, 0):
                raise OptionError("A run in the background needs ranks: `num_workers` is 0.", option="background")
            training.begin()
            return training
        result: Result = training.work()
        return result

    @classmethod
    def restore(cls, path: str | Path, **changes: Any) -> TorchTrainer:
        """Return the trainer of a run that has ended early, to go on from its last checkpoint by :meth:`fit`.

        Parameters
        ----------
        path
            Directory of the run. Its trainer is unpickled, which runs code that the file may hold: take runs of
            your own.
        **changes
            Arguments of :class:`TorchTrainer` that are to be others, such as *train_loop*, *scaling* or *data*.

        Raises
        ------
        CheckpointError
            *path* holds no run.
        """
        import cloudpickle

        directory = Path(path).absolute()
        try:
            pickled = (directory / "trainer.pkl").read_bytes()
        except OSError as error:
            raise CheckpointError(f"`{directory}` holds no training run: {error}.", path=str(directory)) from None
        kept = cloudpickle.loads(pickled)
        trainer = cls(**{**kept, **changes})
        trainer._resumed = RunDirectory(directory, trainer.run.checkpoint)
        return trainer

    def _make_run(self) -> TrainingRun:
        directory = self._resumed
        if directory is not None:
            return TrainingRun(self, directory, directory.path.name)
        name = self.run.name or f"train-{time.strftime('%Y%m%d-%H%M%S')}-{secrets.token_hex(2)}"
        path = Path(self.run.storage).expanduser() / name if self.run.storage is not None else None
        directory = RunDirectory(path, self.run.checkpoint)
        about = {"name": name, "began": time.time(), "num_workers": self.scaling.num_workers}
        directory.begin(about, self._pickled(directory.is_temporary))
        return TrainingRun(self, directory, name)

    def _pickled(self, is_temporary: bool) -> bytes:
        """Return the trainer for :meth:`restore`; refuses a loop that cannot travel before anything starts."""
        from shoal.runtime.serialization import dumps_code

        dumps_code(self.train_loop, getattr(self.train_loop, "__name__", "train_loop"))
        if is_temporary:
            return b""
        import cloudpickle

        kept = {"train_loop": self.train_loop, "config": self.config, "scaling": self.scaling, "run": self.run}
        return bytes(cloudpickle.dumps({**kept, "data": self.data}))

    def _check(self) -> None:
        for name, value, kind in (("scaling", self.scaling, ScalingConfig), ("run", self.run, RunConfig)):
            if not isinstance(value, kind):
                raise OptionError(f"`{name}` is a {kind.__name__}, not {value!r}.", option=name)
        if not callable(self.train_loop):
            raise TypeError(f"`train_loop` is a function, not {type(self.train_loop).__name__}.")
        try:
            signature = inspect.signature(self.train_loop)
        except (TypeError, ValueError):
            return
        args = () if self.config is None else (self.config,)
        try:
            signature.bind(*args)
        except TypeError as error:
            called = "without arguments, as there is no `config`" if self.config is None else "with `config`"
            raise OptionError(f"`train_loop` is called {called}: {error}.", option="train_loop") from None


def resume(path: str | Path, **changes: Any) -> Result:
    """Go on with a run that has ended early, from its last checkpoint: ``TorchTrainer.restore(path, …).fit()``."""
    result: Result = TorchTrainer.restore(path, **changes).fit()
    return result
