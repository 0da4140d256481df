"""The experiment: which trial is run when, what becomes of it after each report, and when all is done.

Sans-IO: events in, actions out; no clock, no processes, no files. :mod:`~shoal_ml.tune.running` is the shell. Whatever
is decided here follows from the events, the seed and the answers of searcher, scheduler and stopper, all of which learn
of every event in the order in which it comes.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from typing import Any

from shoal.errors import OptionError
from shoal_ml.tune.schedulers.scheduler import Continue, Exploit, Pause, Stop, TrialScheduler
from shoal_ml.tune.searchers.searcher import Exhausted, Objective, Searcher
from shoal_ml.tune.space import Space
from shoal_ml.tune.stoppers import Stopper
from shoal_ml.tune.trials import ERROR, PAUSED, PENDING, RUNNING, TERMINATED, Trial

# -- actions -----------------------------------------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True, slots=True)
class Begin:
    """Run a trial, from the last checkpoint of *source* if that is given, where it has one."""

    trial_id: str
    source: str = ""


@dataclasses.dataclass(frozen=True, slots=True)
class GoOn:
    """Let a trial that has reported go on."""

    trial_id: str


@dataclasses.dataclass(frozen=True, slots=True)
class Halt:
    """Stop running a trial; it is in the state that it is in."""

    trial_id: str


Action = Begin | GoOn | Halt


@dataclasses.dataclass(frozen=True, slots=True)
class Limits:
    """How far an experiment goes.

    Attributes
    ----------
    num_samples
        Trials for each point of the grid; -1 for as many as the searcher has, or until it is stopped.
    max_concurrent
        Trials that run at once.
    max_failures
        How often a trial that has failed is begun again, from its last checkpoint.
    fail_fast
        The first trial that fails for good ends the experiment.
    """

    num_samples: int = 1
    max_concurrent: int = 1
    max_failures: int = 0
    fail_fast: bool = False


class Experiment:
    """See the module's description. Each event returns the actions that follow."""

    def __init__(
        self,
        space: Space,
        objective: Objective,
        searcher: Searcher,
        scheduler: TrialScheduler,
        stopper: Stopper,
        limits: Limits,
        points: list[Mapping[str, Any]] | None = None,
    ) -> None:
        self.space = space
        self.objective = objective
        self.limits = limits
        self.trials: dict[str, Trial] = {}
        #: Those that have not ended.
        self.live: dict[str, Trial] = {}
        self._changed: dict[str, Trial] = {}
        self._searcher, self._scheduler, self._stopper = searcher, scheduler, stopper
        #: What the next trials have fixed: points to try first, then the grid again and again.
        self._points = [space.values_of(point) for point in points or []]
        self._grid = space.grid()
        num_planned = limits.num_samples * len(self._grid) if limits.num_samples >= 0 else math.inf
        #: Trials that are to be made.
        self.num_wanted: float = max(num_planned, len(self._points))
        self._exhausted = False
        self._stopping = ""
        self._pending: list[str] = []
        self._paused: list[str] = []
        self._running: set[str] = set()
        self._actions: list[Action] = []

    # -- what it is like -----------------------------------------------------------------------------------------------

    @property
    def is_over(self) -> bool:
        """Whether nothing runs and nothing will."""
        return not self._running and not self._pending and not self._paused and not self._may_add()

    def changed(self) -> list[Trial]:
        """Return the trials that are new, or in another state or configuration, since this was last called."""
        changed, self._changed = self._changed, {}
        return list(changed.values())

    # -- events --------------------------------------------------------------------------------------------------------

    def go_on(self) -> list[Action]:
        """Begin what may begin. Call it first, and after :meth:`restore`."""
        while len(self._running) < self.limits.max_concurrent and not self._stopping and self._begin_one():
            pass
        actions, self._actions = self._actions, []
        return actions

    def reported(self, trial_id: str, metrics: Mapping[str, Any], has_checkpoint: bool = False) -> list[Action]:
        """A running trial has reported."""
        trial = self.trials[trial_id]
        if trial.state != RUNNING:
            return []
        self._learn(trial, metrics, has_checkpoint)
        reason = self._stopper.should_stop(trial_id, trial.metrics)
        self._tell_who_waits()
        decision = self._scheduler.reported(trial_id, trial.metrics)
        if reason and not isinstance(decision, Stop):
            decision = Stop(reason)
        match decision:
            case Continue():
                self._actions.append(GoOn(trial_id))
            case Stop(reason=reason):
                self._actions.append(Halt(trial_id))
                self._end(trial, reason)
            case Pause():
                self._actions.append(Halt(trial_id))
                self._running.discard(trial_id)
                self._paused.append(trial_id)
                self._set(trial, PAUSED)
            case Exploit(source=source, config=config):
                self._actions.append(Halt(trial_id))
                trial.config, trial.cloned_from = config, source
                self._changed[trial_id] = trial
                self._actions.append(Begin(trial_id, source))
        self._drop_stopped()
        self._look_at_all()
        return self.go_on()

    def returned(self, trial_id: str, metrics: Mapping[str, Any] | None = None) -> list[Action]:
        """A trial has come to its end by itself; *metrics* is a last report, if it has returned one."""
        trial = self.trials[trial_id]
        if trial.state == RUNNING:
            if metrics:
                self._learn(trial, metrics, False)
                self._stopper.should_stop(trial_id, trial.metrics)
            self._end(trial, "")
            self._look_at_all()
        return self.go_on()

    def failed(self, trial_id: str, error: str, traceback: str = "") -> list[Action]:
        """A trial has raised, or its process has died."""
        trial = self.trials[trial_id]
        if trial.state != RUNNING:
            return self.go_on()
        self._running.discard(trial_id)
        trial.num_failures += 1
        trial.error, trial.traceback = error, traceback
        if trial.num_failures <= self.limits.max_failures or self.limits.max_failures < 0:
            self._set(trial, PENDING)
            self._pending.insert(0, trial_id)
        else:
            self._set(trial, ERROR)
            self._scheduler.failed(trial_id)
            self._searcher.ended(trial_id, None)
            if self.limits.fail_fast:
                self._stop_all(f"`{trial_id}` has failed: {error}")
        self._drop_stopped()
        return self.go_on()

    # -- what users ask for --------------------------------------------------------------------------------------------

    def stop(self, trial_id: str, reason: str = "you have stopped it") -> list[Action]:
        """End a trial; what it has reported counts."""
        trial = self.trials[trial_id]
        if not trial.has_ended:
            if trial.state == RUNNING:
                self._actions.append(Halt(trial_id))
            self._end(trial, reason)
        return self.go_on()

    def stop_all(self, reason: str) -> list[Action]:
        """End everything."""
        self._stop_all(reason)
        return self.go_on()

    def clone(self, trial_id: str, config: Mapping[str, Any]) -> list[Action]:
        """Add a trial with a configuration of your own that goes on from the last checkpoint of another."""
        source = self.trials[trial_id]
        made = self._add(dict(config), dict(source.values))
        made.cloned_from = trial_id
        self.num_wanted += 1
        return self.go_on()

    def add_samples(self, count: int) -> list[Action]:
        """Make so many more trials."""
        if not isinstance(count, int) or count < 1:
            raise OptionError(f"`count` is a whole number from 1 up, not {count!r}.", option="count")
        self.num_wanted += count
        self._exhausted = False
        return self.go_on()

    # -- after a restart -----------------------------------------------------------------------------------------------

    def restore(self, trial: Trial) -> None:
        """Learn of a trial of an earlier session; in the order in which they were made, before :meth:`go_on`.

        The scheduler and the stopper have to be told its reports by :meth:`replay`.
        """
        self.trials[trial.trial_id] = trial
        self._scheduler.added(trial.trial_id, trial.config)
        if self._points:
            self._points.pop(0)

    def replay(self, trial_id: str, metrics: Mapping[str, Any], has_checkpoint: bool) -> None:
        """A trial of an earlier session had reported this; what was decided then is in its state."""
        trial = self.trials[trial_id]
        self._learn(trial, metrics, has_checkpoint, tell_searcher=False)
        self._stopper.should_stop(trial_id, trial.metrics)
        self._scheduler.reported(trial_id, trial.metrics)

    def restored(self) -> None:
        """Everything has been told: what had not ended waits, what had is learnt from."""
        for trial in self.trials.values():
            if trial.has_ended:
                metrics = trial.metrics if trial.state == TERMINATED else None
                self._searcher.restored(trial.trial_id, trial.values, metrics)
                if metrics is None:
                    self._scheduler.failed(trial.trial_id)
                else:
                    self._scheduler.ended(trial.trial_id, trial.metrics)
            else:
                self._set(trial, PENDING)
                self._pending.append(trial.trial_id)
        self._drop_stopped()
        self._changed.clear()

    # -- inside --------------------------------------------------------------------------------------------------------

    def _begin_one(self) -> bool:
        """Begin one trial: a paused one that may go on, one that waits, or a new one."""
        trial_id = self._next_paused() or self._next_pending()
        if trial_id is None:
            return False
        trial = self.trials[trial_id]
        self._set(trial, RUNNING)
        self._running.add(trial_id)
        source = trial_id if trial.checkpoint_step else trial.cloned_from
        self._actions.append(Begin(trial_id, source))
        return True

    def _next_paused(self) -> str | None:
        if not self._paused:
            return None
        self._tell_who_waits()
        can_wait = bool(self._running or self._pending or self._may_add())
        found = self._scheduler.next_paused(tuple(self._paused), can_wait)
        self._drop_stopped()
        if isinstance(found, Stop):
            for trial_id in list(self._paused):
                self._end(self.trials[trial_id], found.reason)
            return None
        if found is not None and found in self._paused:
            self._paused.remove(found)
            return found
        return None

    def _tell_who_waits(self) -> None:
        to_come = self.num_wanted - len(self.trials) if self._may_add() else 0
        self._scheduler.num_pending = len(self._pending) + int(min(to_come, 1_000))
        self._scheduler.num_paused = len(self._paused)

    def _next_pending(self) -> str | None:
        if not self._pending and self._may_add():
            self._suggest()
        return self._pending.pop(0) if self._pending else None

    def _may_add(self) -> bool:
        return not self._stopping and not self._exhausted and len(self.trials) < self.num_wanted

    def _suggest(self) -> None:
        number = len(self.trials)
        fixed = dict(self._grid[number % len(self._grid)])
        if self._points:
            fixed |= self._points[0]
        try:
            config = self._searcher.suggest(trial_name(number), fixed)
        except Exhausted:
            self._exhausted = True
            return
        if config is not None:
            del self._points[:1]
            self._add(config, self.space.values_of(config, strict=False))

    def _add(self, config: dict[str, Any], values: dict[str, Any]) -> Trial:
        trial = Trial(trial_name(len(self.trials)), config, values)
        self.trials[trial.trial_id] = trial
        self._set(trial, PENDING)
        self._pending.append(trial.trial_id)
        self._scheduler.added(trial.trial_id, config)
        return trial

    def _set(self, trial: Trial, state: str) -> None:
        trial.state = state
        self._changed[trial.trial_id] = trial
        if trial.has_ended:
            self.live.pop(trial.trial_id, None)
        else:
            self.live[trial.trial_id] = trial

    def _learn(
        self, trial: Trial, metrics: Mapping[str, Any], has_checkpoint: bool, *, tell_searcher: bool = True
    ) -> None:
        trial.step += 1
        trial.metrics = {**metrics, "training_iteration": trial.step}
        if has_checkpoint:
            trial.checkpoint_step = trial.step
        if tell_searcher:
            self._searcher.observed(trial.trial_id, trial.step, trial.metrics)

    def _end(self, trial: Trial, reason: str) -> None:
        for waiting in (self._pending, self._paused):
            if trial.trial_id in waiting:
                waiting.remove(trial.trial_id)
        self._running.discard(trial.trial_id)
        trial.reason = reason
        self._set(trial, TERMINATED)
        self._scheduler.ended(trial.trial_id, trial.metrics)
        self._searcher.ended(trial.trial_id, trial.metrics or None)

    def _stop_all(self, reason: str) -> None:
        self._stopping = self._stopping or reason
        for trial in list(self.live.values()):
            if trial.state == RUNNING:
                self._actions.append(Halt(trial.trial_id))
            self._end(trial, reason)

    def _drop_stopped(self) -> None:
        for trial_id in self._scheduler.stopped_while_paused():
            trial = self.trials[trial_id]
            if not trial.has_ended:
                self._end(trial, "others of its bracket were better")

    def _look_at_all(self) -> None:
        reason = self._stopper.should_stop_all()
        if reason and not self._stopping:
            self._stop_all(reason)


def trial_name(number: int) -> str:
    """Return the id of the trial with this number."""
    return f"trial-{number:05d}"
