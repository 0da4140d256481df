"""``num_workers=0``: the loop runs here, for breakpoints and post-mortem debugging."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from shoal_ml.train.context import TrainContext
from shoal_ml.train.group.coordinator import Orders
from shoal_ml.train.group.rank_session import RankSession, Start
from shoal_ml.train.group.reports import RankReport, ReportBook, Round, Saved
from shoal_ml.train.group.worker import run_loop
from shoal_ml.train.shards import receive, split

if TYPE_CHECKING:
    from shoal_ml.train.run_directory import RunDirectory
    from shoal_ml.train.torch_trainer import TorchTrainer

Take = Callable[[Round], None]
Store = Callable[[Path, Round, Mapping[int, Saved]], None]


class InlineLink:
    """Takes the reports of the one rank, without processes between."""

    def __init__(self, drafts: Path, start: int, take: Take, store: Store) -> None:
        self._book = ReportBook(1, start)
        self._drafts, self._take, self._store = drafts, take, store

    def report(self, report: RankReport) -> Orders:
        done = self._book.add(report, 0.0)
        assert done is not None
        self._take(done)
        self._store_saved()
        return Orders()

    def saved(self, rank: int, number: int, saved: Saved) -> None:
        self._book.add_saved(rank, number, saved)
        self._store_saved()

    def _store_saved(self) -> None:
        for done, parts in self._book.take_saved():
            self._store(self._drafts, done, parts)


def run_here(
    trainer: TorchTrainer, directory: RunDirectory, start: Start, name: str, take: Take, store: Store
) -> list[Any]:
    """Run the loop of *trainer* in this thread; returns what it returns, as a list of one."""
    drafts, _ = directory.open_drafts()
    session = RankSession(
        TrainContext(name=name, storage=str(directory.path)),
        InlineLink(drafts, start.number, take, store),
        start,
        drafts=drafts,
        asynchronous=False,
        allow_nan=trainer.run.failure.allow_nan,
    )
    session.shards = receive(split(trainer.data, 1, lambda value: value)[0], 0, 1, session.meter.count)
    return [run_loop(session, trainer.train_loop, trainer.config)]
