"""The directory of a run: its checkpoints, what was reported, and the trainer that it goes on with.

::

    <storage>/<name>/
        run.json                   what it is; written once
        trainer.pkl                the trainer, pickled
        reports.jsonl              the reports of all ranks, one round a line
        checkpoint-000012/         see :mod:`shoal_ml.train.checkpoints`
        .drafts-<word>/            checkpoints that are being written
"""

from __future__ import annotations

import json
import os
import secrets
import shutil
import tempfile
import warnings
import weakref
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from shoal.errors import OptionError
from shoal_ml.train import checkpoints
from shoal_ml.train.checkpoints import Checkpoint, FileEntry
from shoal_ml.train.errors import CheckpointError
from shoal_ml.train.group.reports import Round, Saved
from shoal_ml.train.group.worker import PROBE
from shoal_ml.train.group.writing import write_all
from shoal_ml.train.options import CheckpointConfig

_PREFIX = "checkpoint-"


class RunDirectory:
    """See the module's description. One driver writes it at a time.

    Parameters
    ----------
    path
        The directory; None for a temporary one, which goes with its last user.
    config
        Which checkpoints stay.
    """

    def __init__(self, path: Path | None, config: CheckpointConfig) -> None:
        self.is_temporary = path is None
        self.path = Path(tempfile.mkdtemp(prefix="shoal-train-")) if path is None else path.absolute()
        self._config = config
        if self.is_temporary:
            weakref.finalize(self, shutil.rmtree, self.path, ignore_errors=True)

    def begin(self, about: Mapping[str, Any], trainer: bytes) -> None:
        """Make it the directory of a new run.

        Raises
        ------
        OptionError
            There is a run in it already.
        """
        if (self.path / "run.json").exists():
            raise OptionError(
                f"`{self.path}` is a run already. Go on with it by `shoal_ml.train.resume({str(self.path)!r})`, or "
                "choose another `name`.",
                option="name",
            )
        self.path.mkdir(parents=True, exist_ok=True)
        (self.path / "trainer.pkl").write_bytes(trainer)
        (self.path / "run.json").write_text(json.dumps(about, indent=1) + "\n")

    def open_drafts(self) -> tuple[Path, str]:
        """Return where a group drafts checkpoints, and what the probe says; drafts of others go."""
        for old in self.path.glob(".drafts-*"):
            shutil.rmtree(old, ignore_errors=True)
        word = secrets.token_hex(8)
        (self.path / PROBE).write_text(word)
        drafts = self.path / f".drafts-{word}"
        drafts.mkdir()
        return drafts, word

    def store(self, drafts: Path, done: Round, parts: Mapping[int, Saved]) -> Checkpoint:
        """Make a checkpoint of what the ranks have written; lets go those that are not to stay.

        Raises
        ------
        CheckpointError, StorageFullError
            It could not be stored; those before it are as they were.
        """
        import shoal

        draft = drafts / str(done.number)
        files: dict[str, FileEntry] = {}
        with checkpoints.explaining_full(draft):
            draft.mkdir(parents=True, exist_ok=True)
            for rank, part in sorted(parts.items()):
                for name, entry in part.files.items():
                    if files.setdefault(name, entry) != entry:
                        raise CheckpointError(
                            f"Rank {rank} and another bring different files `{name}` in report {done.number}. Give "
                            "them different names, or let one rank bring it.",
                            path=str(draft),
                        )
                if part.content is not None:
                    write_all(draft, shoal.get(part.content))
                    checkpoints.scan(draft)  # brings them to the disk
        metrics = done.reports[0].metrics
        about = {"report": done.number, "world_size": len(done.reports), "metrics": metrics}
        target = self.path / f"{_PREFIX}{done.number:06d}"
        shutil.rmtree(target, ignore_errors=True)  # of an attempt that got further and left it damaged
        checkpoints.commit(draft, target, about, files)
        self._let_go()
        return self._open(target)

    def write_round(self, done: Round) -> None:
        """Append what was reported."""
        row = {"report": done.number, "ranks": [{**one.metrics, "rank": one.rank, **one.lap} for one in done.reports]}
        with open(self.path / "reports.jsonl", "a") as file:
            file.write(json.dumps(row) + "\n")

    def rounds(self) -> list[list[dict[str, Any]]]:
        """Return what was reported, of each round a row for each rank; of rounds that were repeated, the last."""
        found: dict[int, list[dict[str, Any]]] = {}
        path = self.path / "reports.jsonl"
        for line in path.read_text().splitlines() if path.exists() else ():
            try:
                row = json.loads(line)
            except ValueError:
                continue  # torn by the end of a driver
            found = {number: rows for number, rows in found.items() if number < row["report"]}
            found[row["report"]] = [{"report": row["report"], **rank} for rank in row["ranks"]]
        return list(found.values())

    def checkpoints(self) -> list[Checkpoint]:
        """Return all checkpoints, the oldest first."""
        return [self._open(path) for path in sorted(self.path.glob(f"{_PREFIX}*")) if (path / "manifest.json").exists()]

    def newest(self) -> Checkpoint | None:
        """Return the newest checkpoint that is not damaged; warns of those that are."""
        for checkpoint in reversed(self.checkpoints()):
            try:
                checkpoint.verify()
                return checkpoint
            except CheckpointError as error:
                warnings.warn(f"{error} It is left alone, and the one before it is taken.", UserWarning, stacklevel=2)
        return None

    def best(self) -> Checkpoint | None:
        """Return the best checkpoint by the score; the newest if there is none."""
        found = self.checkpoints()
        return max(found, key=self._rank_of, default=None)

    def _rank_of(self, checkpoint: Checkpoint) -> tuple[float, int]:
        value = checkpoint.metrics.get(self._config.score) if self._config.score else None
        if not isinstance(value, (int, float)):
            return (-float("inf") if self._config.score else 0.0, checkpoint.report)
        return (float(value) if self._config.mode == "max" else -float(value), checkpoint.report)

    def _let_go(self) -> None:
        keep = self._config.keep
        if keep is None:
            return
        found = self.checkpoints()
        by_score = sorted(found, key=self._rank_of, reverse=True)
        stays = {checkpoint.path for checkpoint in by_score[:keep]} | {found[-1].path}
        for checkpoint in found:
            if checkpoint.path not in stays:
                aside = checkpoint.path.with_name(f".drafts-gone-{checkpoint.path.name}")
                os.rename(checkpoint.path, aside)
                shutil.rmtree(aside, ignore_errors=True)

    def _open(self, path: Path) -> Checkpoint:
        return Checkpoint(path, keeper=self if self.is_temporary else None)
