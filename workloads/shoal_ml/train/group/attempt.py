"""One group of ranks, from its start to its end, as the driver sees it."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import shoal
from shoal.api.ranks import Rank
from shoal_ml.train.errors import HangError
from shoal_ml.train.group.coordinator import Coordinator
from shoal_ml.train.group.failures import cause, is_echo
from shoal_ml.train.group.rank_session import Start
from shoal_ml.train.group.reports import Round, Saved
from shoal_ml.train.group.worker import RankOrder, RankWorker
from shoal_ml.train.options import FailureConfig, ScalingConfig

#: Seconds in which the rank at fault has to be known after another one fails because of it.
ECHO_SECONDS = 5.0
#: Seconds that processes may take to start, to import torch and to meet, before anybody calls that hanging.
SETUP_SECONDS = 60.0


class Resize(Exception):
    """The group is to be started again with another number of ranks."""


class GroupFailed(Exception):
    """A group has failed. ``rank`` is at fault, ``error`` is what it raised or died of."""

    def __init__(self, rank: int, error: BaseException) -> None:
        super().__init__(str(error))
        self.rank = rank
        self.error = error


class Attempt:
    """A group under way.

    Parameters
    ----------
    group
        Room for the ranks.
    on_round, on_saved
        Called with what all ranks have reported, and with what they have written for a checkpoint. What *on_saved*
        raises goes to the ranks.
    on_hang
        Called with the stacks of all ranks.
    """

    def __init__(
        self,
        group: shoal.PlacementGroup,
        scaling: ScalingConfig,
        failure: FailureConfig,
        on_round: Callable[[Round], None],
        on_saved: Callable[[Round, Mapping[int, Saved]], None],
        on_hang: Callable[[str], None],
    ) -> None:
        self._group = group
        self._scaling = scaling
        self._failure = failure
        self._on_round, self._on_saved, self._on_hang = on_round, on_saved, on_hang
        self._workers: list[shoal.ActorHandle] = []
        self._results: dict[int, Any] = {}
        self._errors: dict[int, BaseException] = {}
        #: Ranks whose loops have ended well.
        self._ended: set[int] = set()
        self.coordinator: shoal.ActorHandle | None = None

    def start(
        self, make_order: Callable[[Rank, shoal.ActorHandle], RankOrder], work: Any, sent: list[Any], start: Start,
        settings: dict[str, Any],
    ) -> None:  # fmt: skip
        """Start the ranks."""
        num_ranks = len(sent)
        self.coordinator = shoal.remote(Coordinator).remote(num_ranks, start.number, settings)
        bundle = self._scaling.bundle
        own = {name: bundle[name] for name in ("num_cpus", "num_gpus", "memory") if name in bundle}
        rest = {name: amount for name, amount in bundle.items() if name not in own}
        worker = shoal.remote(RankWorker).options(**own, resources=rest)
        self._refs: dict[shoal.ObjectRef, int] = {}
        for rank in range(num_ranks):
            place = worker.options(name="", scheduling_strategy=self._group.bundle(rank))
            self._workers.append(place.remote())
            around = Rank(
                rank, num_ranks, self._group, self.coordinator, torch=True,
                backend=self._scaling.group_backend, timeout=self._scaling.collective_timeout,
            )  # fmt: skip
            run = self._workers[-1].run.options(name=f"train rank {rank}")
            self._refs[run.remote(make_order(around, self.coordinator), work, sent[rank])] = rank

    def work(self) -> list[Any]:
        """Follow the ranks to their end; returns what their loops have returned.

        Raises
        ------
        GroupFailed
            A rank has raised, died or hung.
        """
        assert self.coordinator is not None
        seen, last, told = 0, time.monotonic(), False
        news = self.coordinator.news.remote(seen)
        waits = self._failure.hang_timeout
        while self._refs:
            patience = waits if waits is None or seen else max(waits, SETUP_SECONDS)
            left = None if patience is None or told else max(0.0, last + patience - time.monotonic())
            if self._errors:
                left = max(0.0, last + ECHO_SECONDS - time.monotonic())
            ready, _ = shoal.wait([news, *self._refs], timeout=left)
            if not ready:
                if self._errors:
                    break
                told = True
                self._hang(time.monotonic() - last)
                continue
            if ready[0] is news:
                events = self._news(news)
                for kind, event in events:
                    self._handle(kind, event)
                seen += len(events)
                news = self.coordinator.news.remote(seen)
                last, told = time.monotonic(), False
                continue
            if self._take(ready[0]):
                break
            last = time.monotonic()
        self._drain(seen)
        if self._errors:
            rank, error = cause(self._errors, self._ended)
            raise GroupFailed(rank, error)
        return [self._results[rank] for rank in sorted(self._results)]

    def end(self) -> None:
        """End every process of the group."""
        for actor in (*self._workers, self.coordinator):
            if actor is not None:
                shoal.kill(actor)
        self._group.remove()

    def _take(self, ref: shoal.ObjectRef) -> bool:
        """Take the end of a rank; returns whether the group has failed for a known reason."""
        rank = self._refs.pop(ref)
        try:
            self._results[rank] = shoal.get(ref)
        except Exception as error:
            self._errors[rank] = error
            # Those that have ended cannot be at fault; of the others one may be, and is about to be known.
            return not is_echo(error) or set(self._refs.values()) <= self._ended
        return False

    def _news(self, news: shoal.ObjectRef) -> list[tuple[str, Any]]:
        try:
            events: list[tuple[str, Any]] = shoal.get(news)
        except shoal.errors.ShoalError as error:
            raise GroupFailed(-1, error) from error
        return events

    def _drain(self, seen: int) -> None:
        """Handle what was reported before the end: a checkpoint that is complete counts, whoever has died since."""
        assert self.coordinator is not None
        try:
            for kind, event in self._news(self.coordinator.backlog.remote(seen)):
                with contextlib.suppress(Resize):  # it ends here anyway
                    self._handle(kind, event)
        except GroupFailed as error:
            self._errors.setdefault(-1, error.error)

    def _handle(self, kind: str, event: Any) -> None:
        assert self.coordinator is not None
        if kind == "round":
            self._on_round(event)
            return
        if kind == "ended":
            self._ended.add(event)
            return
        done, parts = event
        error = None
        try:
            self._on_saved(done, parts)
        except OSError as failure:
            error = failure
        if any(report.saved is not None for report in done.reports):
            self.coordinator.release.remote(done.number, error)
        elif error is not None:
            raise GroupFailed(-1, error)

    def _hang(self, seconds: float) -> None:
        texts = []
        for rank, worker in enumerate(self._workers):
            try:
                texts.append(f"-- rank {rank}\n{shoal.stack(worker)}")
            except (shoal.errors.ShoalError, TimeoutError) as error:
                texts.append(f"-- rank {rank}\n{error}")
        stacks = "\n\n".join(texts)
        self._on_hang(f"No rank has reported for {seconds:.0f} s. Where each of them is:\n\n{stacks}")
        if self._failure.on_hang == "fail":
            raise GroupFailed(
                -1,
                HangError(
                    f"No rank has reported for {seconds:.0f} s (`hang_timeout`); `stacks` of this error has where each "
                    "of them was.",
                    rank=-1,
                    num_failures=0,
                    path=str(Path()),
                    stacks=stacks,
                ),
            )


__all__ = ["Attempt", "GroupFailed", "Resize"]
