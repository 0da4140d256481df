"""What a run has brought: ``ResultGrid`` and ``Result``."""

from __future__ import annotations

import html
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from shoal.errors import OptionError
from shoal_ml.tune.searchers.searcher import Objective
from shoal_ml.tune.space import flatten
from shoal_ml.tune.storing import PROGRESS, TrialFiles
from shoal_ml.tune.trials import ERROR, Trial

if TYPE_CHECKING:
    import pandas as pd

#: Trials shown in a notebook: the best.
SHOWN = 10


class Result:
    """One trial and what has become of it.

    Attributes
    ----------
    trial_id, config, metrics
        The trial, its configuration, and its last report.
    error
        What it has failed with; "" if it has not.
    path
        Its directory.
    """

    def __init__(self, trial: Trial, directory: Path) -> None:
        self._trial = trial
        self._files = TrialFiles(directory, 1)
        self.trial_id, self.config, self.metrics = trial.trial_id, trial.config, trial.metrics
        self.error, self.traceback = trial.error if trial.state == ERROR else "", trial.traceback
        self.path = self._files.of(trial.trial_id)

    @property
    def checkpoint(self) -> Any:
        """The newest checkpoint; None if it has saved none. Checkpoints are pickled."""
        return self._files.load_checkpoint(self.trial_id)

    @property
    def metrics_dataframe(self) -> pd.DataFrame:
        """All its reports, in order."""
        import pandas as pd

        path = self.path / PROGRESS
        try:
            return pd.read_csv(path)
        except (FileNotFoundError, pd.errors.EmptyDataError):
            return pd.DataFrame()

    def __repr__(self) -> str:
        return f"{self.trial_id}: {flatten(self.config)} -> {self.error or self.metrics}"


class ResultGrid(Sequence[Result]):
    """The trials of a run, in the order in which they were made."""

    def __init__(self, directory: Path, trials: Sequence[Trial], objective: Objective) -> None:
        self.directory = directory
        self._trials = list(trials)
        self._objective = objective

    def __len__(self) -> int:
        return len(self._trials)

    def __getitem__(self, index: Any) -> Any:
        if isinstance(index, slice):
            return [Result(trial, self.directory) for trial in self._trials[index]]
        return Result(self._trials[index], self.directory)

    def __iter__(self) -> Iterator[Result]:
        return (Result(trial, self.directory) for trial in self._trials)

    @property
    def errors(self) -> dict[str, str]:
        """What trials have failed with, by their ids."""
        return {trial.trial_id: trial.error for trial in self._trials if trial.state == ERROR}

    @property
    def best(self) -> Result:
        """The best trial by the last report."""
        return self.get_best_result()

    def get_best_result(self, metric: str | None = None, mode: str | None = None, scope: str = "last") -> Result:
        """Return the best trial.

        Parameters
        ----------
        metric, mode
            By which metric; the first that was optimised by default.
        scope
            ``"last"``: by the last report of each trial. ``"all"``: by its best one.

        Raises
        ------
        OptionError
            No trial has reported it, or only NaN.
        """
        metric = metric or self._objective.metrics[0]
        mode = mode or self._objective.modes[0]
        if scope not in ("last", "all"):
            raise OptionError(f"`scope` is `last` or `all`, not {scope!r}.", option="scope")
        if mode not in ("min", "max"):
            raise OptionError(f"`mode` is `min` or `max`, not {mode!r}.", option="mode")
        objective = Objective((metric,), (mode,))
        scored = []
        for trial in self._trials:
            score = self._best_score(trial, objective) if scope == "all" else objective.score(trial.metrics)
            if score is not None:
                scored.append((score, trial))
        if not scored:
            names = sorted({name for trial in self._trials for name in trial.metrics})
            raise OptionError(f"No trial has reported a number for `{metric}`; reported were {names}.", option="metric")
        return Result(max(scored, key=lambda pair: pair[0])[1], self.directory)

    def pareto_front(self) -> list[Result]:
        """Return the trials that no other is better than in one objective and as good in all."""
        scored = [(values, trial) for trial in self._trials if (values := self._signed(trial)) is not None]
        return [
            Result(trial, self.directory)
            for values, trial in scored
            if not any(
                all(a >= b for a, b in zip(other, values, strict=True)) and other != values for other, _ in scored
            )
        ]

    def get_dataframe(self) -> pd.DataFrame:
        """Return a row for each trial: id, state, configuration by path (``config.lr``), and last metrics."""
        import pandas as pd

        rows = [
            {
                "trial_id": trial.trial_id,
                "state": trial.state,
                **{f"config.{name}": value for name, value in flatten(trial.config).items() if name},
                **trial.metrics,
                "reason": trial.reason,
                "error": trial.error,
            }
            for trial in self._trials
        ]
        return pd.DataFrame(rows)

    def _signed(self, trial: Trial) -> list[float] | None:
        values = self._objective.values(trial.metrics)
        if values is None:
            return None
        return [value if mode == "max" else -value for value, mode in zip(values, self._objective.modes, strict=True)]

    def _best_score(self, trial: Trial, objective: Objective) -> float | None:
        frame = Result(trial, self.directory).metrics_dataframe
        scores = [objective.score(report) for report in frame.to_dict("records")]
        return max((score for score in scores if score is not None), default=None)

    def __repr__(self) -> str:
        failed = f", {len(self.errors)} failed" if self.errors else ""
        try:
            best = self.best
        except OptionError:
            return f"{len(self)} trials{failed} in {self.directory}"
        metric = self._objective.metrics[0]
        return f"{len(self)} trials{failed}; best {metric} {best.metrics[metric]:.6g} by {best.trial_id}: {best.config}"

    def _repr_html_(self) -> str:
        frame = self.get_dataframe()
        metric = self._objective.metrics[0]
        if metric in frame:
            frame = frame.sort_values(metric, ascending=self._objective.modes[0] == "min", kind="stable")
        more = f"<p>… and {len(frame) - SHOWN:,} more</p>" if len(frame) > SHOWN else ""
        return f"<p>{html.escape(repr(self))}</p>{frame.head(SHOWN).to_html(index=False)}{more}"
