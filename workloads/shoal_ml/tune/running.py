"""Runs an experiment: asks actors to run trials, and tells the experiment what comes of them.

One thread, that of ``fit``, waits at one place for reports, for actors and for what users ask in between. Actors are
warm: when a trial has ended, its actor runs the next. Before anything that follows from an event is done, the event is
in the journal.
"""

from __future__ import annotations

import dataclasses
import traceback
from collections.abc import Callable, Mapping
from typing import Any

import shoal
from shoal.api.arrivals import Arrivals
from shoal.errors import GetTimeoutError
from shoal_ml.tune.executing import TrialRunner
from shoal_ml.tune.experiment import Action, Begin, Experiment, GoOn, Halt
from shoal_ml.tune.journal import Journal
from shoal_ml.tune.storing import TrialFiles
from shoal_ml.tune.trials import ERROR, Trial

#: Seconds between two looks at the clock while nothing comes.
TICK = 1.0


@dataclasses.dataclass(slots=True, eq=False)
class _Attempt:
    """One run of a trial in an actor."""

    trial_id: str
    actor: shoal.ActorHandle
    values: shoal.ObjectRefGenerator
    #: Metrics whose checkpoint is the next value.
    metrics: dict[str, Any] | None = None
    waits: bool = False


class Running:
    """See the module's description."""

    def __init__(
        self,
        experiment: Experiment,
        journal: Journal,
        files: TrialFiles,
        trainable: Any,
        parameters: Mapping[str, Any],
        options: Mapping[str, Any],
        on_change: Callable[[Trial], None],
    ) -> None:
        self._experiment, self._journal, self._files = experiment, journal, files
        self._kind = shoal.remote(TrialRunner).options(**options)
        self._arguments = trainable, dict(parameters)
        self._on_change = on_change
        self._arrivals = Arrivals()
        self._attempts: dict[str, _Attempt] = {}
        self._idle: list[shoal.ActorHandle] = []
        #: The last checkpoint of each trial that may still need it, in the object store.
        self._checkpoints: dict[str, shoal.ObjectRef] = {}
        #: Reports of trials that have not ended.
        self.reports: dict[str, list[dict[str, Any]]] = {}
        self._noted: dict[str, str] = {}

    def noted(self, trial: Trial) -> None:
        """The journal has this trial already."""
        self._noted[trial.trial_id] = trial.state

    def ask(self, request: Callable[[Experiment], list[Action]]) -> None:
        """Have *request* called with the experiment, on the thread that runs it. On any thread."""
        self._arrivals.put(request)

    def run(self, deadline: Callable[[], float | None]) -> None:
        """Run until everything has ended; ``deadline()`` is the seconds that are left, None without end."""
        try:
            self._do(self._experiment.go_on())
            while not self._experiment.is_over:
                left = deadline()
                if left is not None and left <= 0:
                    self._do(self._experiment.stop_all("the time of the run is over"))
                    continue
                try:
                    event = self._arrivals.get(timeout=TICK if left is None else min(TICK, left))
                except GetTimeoutError:
                    continue
                self._take(event)
        finally:
            self.close()

    def close(self) -> None:
        """End what runs."""
        self._arrivals.close()
        for attempt in self._attempts.values():
            shoal.cancel(attempt.values)
        for actor in [*self._idle, *(attempt.actor for attempt in self._attempts.values())]:
            shoal.kill(actor)
        self._attempts.clear()
        self._idle.clear()

    # -- events --------------------------------------------------------------------------------------------------------

    def _take(self, event: Any) -> None:
        if callable(event):
            self._do(event(self._experiment))
            return
        attempt: _Attempt = event
        if self._attempts.get(attempt.trial_id) is not attempt:
            return  # it was halted in the meantime
        try:
            ref = attempt.values.next(timeout=0)
            if attempt.metrics is not None:
                self._reported(attempt, attempt.metrics, ref)
                return
            metrics, has_checkpoint = shoal.get(ref)
        except Exception as error:  # boundary: user code, and the end of its process
            self._failed(attempt, error)
            return
        if has_checkpoint is None:
            self._returned(attempt, metrics)
        elif has_checkpoint:
            attempt.metrics = metrics
            self._arrivals.watch(attempt.values, attempt)
        else:
            self._reported(attempt, metrics, None)

    def _reported(self, attempt: _Attempt, metrics: dict[str, Any], checkpoint: shoal.ObjectRef | None) -> None:
        trial = self._experiment.trials[attempt.trial_id]
        attempt.metrics = None
        attempt.waits = True
        step = trial.step + 1
        if checkpoint is not None:
            self._checkpoints[trial.trial_id] = checkpoint
            score = self._experiment.objective.score(metrics)
            self._files.save_checkpoint(trial.trial_id, step, shoal.get(checkpoint), score)
        self._note_report(trial, metrics, checkpoint is not None)
        self._do(self._experiment.reported(trial.trial_id, metrics, checkpoint is not None))

    def _returned(self, attempt: _Attempt, metrics: dict[str, Any] | None) -> None:
        trial = self._experiment.trials[attempt.trial_id]
        del self._attempts[attempt.trial_id]
        self._idle.append(attempt.actor)
        if metrics:
            self._note_report(trial, metrics, False)
        self._do(self._experiment.returned(attempt.trial_id, metrics))

    def _failed(self, attempt: _Attempt, error: Exception) -> None:
        del self._attempts[attempt.trial_id]
        if isinstance(error, (shoal.errors.ActorDiedError, shoal.errors.ActorUnavailableError)):
            shoal.kill(attempt.actor)
        else:
            self._idle.append(attempt.actor)
        text = f"{type(error).__name__}: {error}".partition("\n")[0]
        whole = "".join(traceback.format_exception(error))
        self._do(self._experiment.failed(attempt.trial_id, text, whole))

    # -- actions -------------------------------------------------------------------------------------------------------

    def _do(self, actions: list[Action]) -> None:
        self._note_changes()
        for action in actions:
            match action:
                case Begin(trial_id=trial_id, source=source):
                    self._begin(self._experiment.trials[trial_id], source)
                case GoOn(trial_id=trial_id):
                    attempt = self._attempts[trial_id]
                    attempt.waits = False
                    self._arrivals.watch(attempt.values, attempt)
                case Halt(trial_id=trial_id):
                    self._halt(trial_id)
        self._forget()

    def _begin(self, trial: Trial, source: str) -> None:
        checkpoint: Any = self._checkpoints.get(source)
        if checkpoint is None and source:
            checkpoint = self._files.load_checkpoint(source)
        actor = self._idle.pop() if self._idle else self._kind.remote(*self._arguments)
        values = actor.run.options(name=trial.trial_id).remote(trial.trial_id, trial.config, checkpoint)
        attempt = self._attempts[trial.trial_id] = _Attempt(trial.trial_id, actor, values)
        self._arrivals.watch(values, attempt)

    def _halt(self, trial_id: str) -> None:
        attempt = self._attempts.pop(trial_id)
        shoal.cancel(attempt.values)
        if attempt.waits:  # it is between two steps, and free as soon as it has heard of its end
            self._idle.append(attempt.actor)
        else:  # in the middle of one, which may last
            shoal.kill(attempt.actor)

    def _forget(self) -> None:
        """Let go of what nobody will need: checkpoints and reports of trials that have ended."""
        live = self._experiment.live
        for trial_id in [name for name in self.reports if name not in live]:
            del self.reports[trial_id]
        needed = {*live, *(trial.cloned_from for trial in live.values())}
        for trial_id in [name for name in self._checkpoints if name not in needed]:
            del self._checkpoints[trial_id]

    # -- the journal ---------------------------------------------------------------------------------------------------

    def _note_report(self, trial: Trial, metrics: dict[str, Any], has_checkpoint: bool) -> None:
        self._journal.write("report", trial=trial.trial_id, metrics=metrics, checkpoint=has_checkpoint)
        step = trial.step + 1
        self.reports.setdefault(trial.trial_id, []).append({**metrics, "training_iteration": step})

    def _note_changes(self) -> None:
        """Note what has become of trials: those that are new, in another state, or have another configuration."""
        for trial in self._experiment.changed():
            facts: dict[str, Any] = {"state": trial.state}
            if trial.trial_id not in self._noted or trial.cloned_from:
                facts |= {"values": trial.values, "config": trial.config, "cloned_from": trial.cloned_from}
            self._noted[trial.trial_id] = trial.state
            if trial.has_ended:
                facts["reason"] = trial.reason
                self._files.write_reports(trial.trial_id, trial.config, self.reports.get(trial.trial_id, []))
            if trial.error:
                facts |= {"error": trial.error, "failures": trial.num_failures}
            if trial.state == ERROR:
                facts["traceback"] = trial.traceback
            self._journal.write("trial", trial=trial.trial_id, **facts)
            self._on_change(trial)
