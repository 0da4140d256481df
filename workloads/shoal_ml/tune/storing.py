"""What a run leaves on disk beside its journal: for each trial its parameters, its reports as CSV, and checkpoints.

::

    storage/name/journal.jsonl
    storage/name/trial-00003/params.json
    storage/name/trial-00003/progress.csv
    storage/name/trial-00003/checkpoint-000012.pkl
"""

from __future__ import annotations

import contextlib
import csv
import io
import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import cloudpickle

PARAMS, PROGRESS = "params.json", "progress.csv"


class TrialFiles:
    """The files of the trials of one run."""

    def __init__(self, directory: Path, keep: int) -> None:
        """*keep* is how many checkpoints of a trial are kept: the newest, and the best of the others."""
        self._directory = directory
        self._keep = keep
        #: Of each trial: steps whose checkpoints are on disk, with their scores.
        self._saved: dict[str, dict[int, float]] = {}

    def of(self, trial_id: str) -> Path:
        """Return the directory of a trial."""
        return self._directory / trial_id

    def save_checkpoint(self, trial_id: str, step: int, checkpoint: Any, score: float | None) -> None:
        """Write a checkpoint, whole or not at all, and remove those that are not kept any more."""
        path = self._checkpoint(trial_id, step)
        path.parent.mkdir(mode=0o700, exist_ok=True)
        _write(path, cloudpickle.dumps(checkpoint))
        saved = self._saved.setdefault(trial_id, {})
        saved[step] = float("-inf") if score is None else score
        while len(saved) > max(1, self._keep):
            worst = min((one for one in saved if one != step), key=lambda one: (saved[one], one))
            del saved[worst]
            with contextlib.suppress(OSError):
                self._checkpoint(trial_id, worst).unlink()

    def load_checkpoint(self, trial_id: str, step: int | None = None) -> Any:
        """Return a checkpoint: of *step*, or the newest; None if there is none. Checkpoints are pickled.

        Raises
        ------
        OSError
            It cannot be read.
        """
        steps = self.checkpoint_steps(trial_id)
        if not steps:
            return None
        with open(self._checkpoint(trial_id, steps[-1] if step is None else step), "rb") as file:
            return cloudpickle.load(file)

    def checkpoint_steps(self, trial_id: str) -> list[int]:
        """Return the steps whose checkpoints are on disk, in order."""
        return sorted(int(path.stem.split("-")[-1]) for path in self.of(trial_id).glob("checkpoint-*.pkl"))

    def found_checkpoints(self, trial_id: str, scores: Mapping[int, float]) -> None:
        """Learn of the checkpoints that an earlier session has left."""
        steps = self.checkpoint_steps(trial_id)
        if steps:
            self._saved[trial_id] = {step: scores.get(step, float("-inf")) for step in steps}

    def write_reports(self, trial_id: str, config: Mapping[str, Any], reports: Sequence[Mapping[str, Any]]) -> None:
        """Write a trial's parameters and all of its reports."""
        directory = self.of(trial_id)
        directory.mkdir(mode=0o700, exist_ok=True)
        _write(directory / PARAMS, json.dumps(config, default=repr, indent=1).encode() + b"\n")
        columns = list(dict.fromkeys(name for report in reports for name in report))
        text = io.StringIO()
        writer = csv.DictWriter(text, columns)
        writer.writeheader()
        writer.writerows(reports)
        _write(directory / PROGRESS, text.getvalue().encode())

    def _checkpoint(self, trial_id: str, step: int) -> Path:
        return self.of(trial_id) / f"checkpoint-{step:06d}.pkl"


def _write(path: Path, data: bytes) -> None:
    unfinished = path.with_suffix(f".{os.getpid()}.tmp")
    try:
        unfinished.write_bytes(data)
        os.replace(unfinished, path)
    finally:
        unfinished.unlink(missing_ok=True)
