"""A run under way: starts groups of ranks until one comes to the end, and shows how it goes."""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import shoal
from shoal.errors import GetTimeoutError, OptionError
from shoal_ml.train import live_view
from shoal_ml.train.errors import HangError, TrainingError
from shoal_ml.train.group.attempt import Attempt, GroupFailed, Resize
from shoal_ml.train.group.failures import is_crash
from shoal_ml.train.group.inline import run_here
from shoal_ml.train.group.placing import fitting, reserve
from shoal_ml.train.group.rank_session import Start
from shoal_ml.train.group.reports import Round, Saved
from shoal_ml.train.group.worker import RankOrder
from shoal_ml.train.group.writing import read_all
from shoal_ml.train.result import Result
from shoal_ml.train.run_directory import RunDirectory
from shoal_ml.train.shards import split

if TYPE_CHECKING:
    from shoal.api.ranks import Rank
    from shoal_ml.train.torch_trainer import TorchTrainer


class TrainingRun:
    """A run of a trainer; ``fit(background=True)`` returns it while it works. A notebook shows its ranks and curves."""

    def __init__(self, trainer: TorchTrainer, directory: RunDirectory, name: str) -> None:
        self.name = name
        self.path = directory.path
        self._trainer = trainer
        self._directory = directory
        self._began = time.perf_counter()
        self._settings: dict[str, Any] = {}
        self._stopping = False
        self._num_failures = 0
        self._world_size = 0
        self._attempt: Attempt | None = None
        self._last: Round | None = None
        self._result: Result | None = None
        self._error: BaseException | None = None
        self._thread: threading.Thread | None = None
        self._lock = threading.Lock()

    # -- for the notebook ----------------------------------------------------------------------------------------

    def stop(self) -> None:
        """Have the loops end at their next report; returns at once, and the run ends well."""
        with self._lock:
            self._stopping = True
        self._send_orders()

    def set(self, name: str, value: Any) -> None:
        """Change a setting at the next report of all ranks, such as ``run.set("lr", 0.01)``.

        ``report`` returns the settings; optimizers that went through ``prepare_optimizer`` follow those that their
        parameter groups have (``lr``, ``weight_decay``, …).
        """
        if not isinstance(name, str) or not name:
            raise OptionError(f"`name` is the name of a setting, not {name!r}.", option="name")
        with self._lock:
            self._settings = {**self._settings, name: value}
        self._send_orders()

    @property
    def is_done(self) -> bool:
        """Whether it has ended."""
        return self._result is not None or self._error is not None

    @property
    def metrics(self) -> dict[str, Any]:
        """What rank 0 was the last to report."""
        return dict(self._last.reports[0].metrics) if self._last is not None else {}

    def result(self, timeout: float | None = None) -> Result:
        """Wait for the end and return what it has brought; raises what ``fit`` raises.

        Raises
        ------
        GetTimeoutError
            It takes longer than *timeout* seconds; it goes on.
        """
        if self._thread is not None:
            self._thread.join(timeout)
            if self._thread.is_alive():
                raise GetTimeoutError(f"Waited {timeout} s for run `{self.name}`. It goes on.", timeout=timeout)
        if self._error is not None:
            raise self._error
        assert self._result is not None
        return self._result

    def __repr__(self) -> str:
        return live_view.as_text(self._title(), self._last)

    def _repr_mimebundle_(self, include: object = None, exclude: object = None) -> dict[str, str]:
        history = [rows[0] for rows in self._directory.rounds()]
        html = live_view.as_html(self._title(), self._last, history)
        return {"text/plain": repr(self), "text/html": html}

    # -- for the trainer -----------------------------------------------------------------------------------------

    def work(self) -> Result:
        """Do it all in this thread."""
        try:
            self._result = self._work()
            return self._result
        except BaseException as error:
            self._error = error
            raise
        finally:
            self._say_end()

    def begin(self) -> None:
        """Do it all in a thread of its own."""
        self._thread = threading.Thread(target=self._work_quietly, name=f"shoal-train-{self.name}", daemon=True)
        self._thread.start()

    def _work_quietly(self) -> None:
        try:
            self.work()
        except BaseException:  # it is kept, and `result` raises it
            if self._show:
                print(f"{self.name}: {type(self._error).__name__}: {self._error}", file=sys.stderr)

    def _work(self) -> Result:
        trainer = self._trainer
        if trainer.scaling.bounds == (0, 0):
            for logger in trainer.run.loggers:
                logger.begin(self.name, trainer.config)
            return self._ended(run_here(trainer, self._directory, self._start(), self.name, self._take, self._store))
        work = shoal.put((trainer.train_loop, trainer.config))
        while True:
            try:
                return self._ended(self._try_group(work))
            except Resize:
                continue
            except GroupFailed as failed:
                self._num_failures += 1
                error = self._judge(failed)
                if error is not None:
                    raise error from error.__cause__
                self._say(
                    f"rank {failed.rank} has failed ({_one_line(failed.error)}); starting again from {self._where()}"
                )

    def _try_group(self, work: shoal.ObjectRef) -> list[Any]:
        trainer = self._trainer
        group, world_size = reserve(trainer.scaling, self._world_size)
        attempt = Attempt(group, trainer.scaling, trainer.run.failure, self._take, self._store_or_grow, self._tell_hang)
        try:
            self._say_start(world_size)
            self._drafts, probe = self._directory.open_drafts()
            start = self._start()
            self._world_size = world_size
            sent = split(trainer.data, world_size, shoal.put)
            if start.path and (trainer.run.shared is False or (trainer.run.shared is None and len(shoal.nodes()) > 1)):
                start = _with_content(start)
            order = self._make_order(probe, start)
            with self._lock:
                attempt.start(order, work, sent, start, self._settings)
                self._attempt = attempt
            if self._stopping:
                self._send_orders()
            return attempt.work()
        finally:
            with self._lock:
                self._attempt = None
            attempt.end()

    def _make_order(self, probe: str, start: Start) -> Callable[[Rank, shoal.ActorHandle], RankOrder]:
        scaling, run = self._trainer.scaling, self._trainer.run

        def make(around: Rank, coordinator: shoal.ActorHandle) -> RankOrder:
            return RankOrder(
                around=around,
                coordinator=coordinator,
                start=start,
                name=self.name,
                storage=str(self.path),
                drafts=str(self._drafts),
                probe=None if run.shared is False else probe,
                attempt=self._num_failures,
                num_threads=max(1, int(scaling.bundle.get("num_cpus", 1))),
                uses_gpu=bool(scaling.bundle.get("num_gpus")),
                mesh=scaling.mesh,
                asynchronous=run.checkpoint.asynchronous,
                allow_nan=run.failure.allow_nan,
            )

        return make

    def _start(self) -> Start:
        checkpoint = self._directory.newest()
        if checkpoint is None:
            first = self._trainer.resume_from
            return Start(0, str(first.path) if first is not None else "")
        return Start(checkpoint.report, str(checkpoint.path))

    def _judge(self, failed: GroupFailed) -> BaseException | None:
        """Return the error that ends the run, or None if the group is to be started again."""
        failure, error = self._trainer.run.failure, failed.error
        repeats = is_crash(error) or isinstance(error, failure.retry_exceptions)
        if repeats and (failure.max_failures == -1 or self._num_failures <= failure.max_failures):
            return None
        where = f"rank {failed.rank} of {self._world_size}" if failed.rank >= 0 else "no rank in particular"
        if not is_crash(error):
            error.add_note(f"[{where} of training run `{self.name}`; what was stored is in {self.path}]")
            return error
        facts: dict[str, Any] = {"rank": failed.rank, "num_failures": self._num_failures, "path": str(self.path)}
        if isinstance(error, HangError):
            raised: TrainingError = HangError(str(error), **facts, stacks=error.stacks)
        else:
            raised = TrainingError(
                f"The group has failed {self._num_failures} times, of which {failure.max_failures} were allowed "
                f"(`max_failures`). The last: {where}: {_one_line(error)}. `shoal_ml.train.resume({str(self.path)!r})` "
                f"goes on from {self._where()}.",
                **facts,
            )
        raised.__cause__ = error
        return raised

    # -- what ranks report ---------------------------------------------------------------------------------------

    def _take(self, done: Round) -> None:
        self._last = done
        self._directory.write_round(done)
        for logger in self._trainer.run.loggers:
            logger.log_metrics(done.number, done.reports[0].metrics)
        self._say(live_view.describe_round(done, checkpoint=done.has_checkpoint))

    def _store(self, drafts: Path, done: Round, parts: Mapping[int, Saved]) -> None:
        checkpoint = self._directory.store(drafts, done, parts)
        for logger in self._trainer.run.loggers:
            logger.log_checkpoint(done.number, checkpoint)

    def _store_or_grow(self, done: Round, parts: Mapping[int, Saved]) -> None:
        self._store(self._drafts, done, parts)
        room = fitting(self._trainer.scaling, self._world_size)
        if room > self._world_size and not self._stopping:
            self._say(f"there is room for {room} ranks now; going on with them from {self._where()}")
            self._world_size = room
            raise Resize

    def _tell_hang(self, text: str) -> None:
        path = self.path / f"stacks-{int(time.time())}.txt"
        path.write_text(text)
        print(f"{self.name}: {text}", file=sys.stderr)

    # -- words ---------------------------------------------------------------------------------------------------

    @property
    def _show(self) -> bool:
        return self._trainer.run.show

    def _say(self, text: str) -> None:
        if self._show:
            print(f"{self.name}: {text}", flush=True)

    def _say_start(self, world_size: int) -> None:
        for logger in self._trainer.run.loggers:
            logger.begin(self.name, self._trainer.config)
        self._say(f"{world_size} ranks, {self.path}")

    def _say_end(self) -> None:
        for logger in self._trainer.run.loggers:
            logger.end()

    def _send_orders(self) -> None:
        with self._lock:
            attempt = self._attempt
            if attempt is not None and attempt.coordinator is not None:
                attempt.coordinator.order.remote(self._stopping, self._settings)

    def _where(self) -> str:
        checkpoint = self._directory.newest()
        return "the beginning" if checkpoint is None else f"the checkpoint of report {checkpoint.report}"

    def _title(self) -> str:
        state = "failed" if self._error is not None else "ended" if self._result is not None else "running"
        return f"training run {self.name}, {state}"

    def _ended(self, returned: list[Any]) -> Result:
        return Result(
            metrics=self.metrics,
            checkpoint=self._directory.newest(),
            best_checkpoint=self._directory.best(),
            returned=returned,
            num_failures=self._num_failures,
            seconds=time.perf_counter() - self._began,
            path=self.path,
            directory=self._directory,
        )


def _with_content(start: Start) -> Start:
    """Return *start* with the files of its checkpoint, for ranks that cannot read them."""
    directory = Path(start.path)
    names = [path.relative_to(directory).as_posix() for path in directory.rglob("*") if path.is_file()]
    return start._replace(content=shoal.put(read_all(directory, names)))


def _one_line(error: BaseException) -> str:
    return f"{type(error).__name__}: {error}".partition("\n")[0]


__all__ = ["TrainingRun"]
