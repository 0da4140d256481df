"""The methods of datasets that write files."""

from __future__ import annotations

import os

from shoal_ml.batch import consuming, writing
from shoal_ml.batch.blocks import Block, concat
from shoal_ml.batch.checking import check_choice, check_whole
from shoal_ml.batch.execution import RunOptions
from shoal_ml.batch.plan import Plan, Step
from shoal_ml.batch.writing import Written

PathLike = str | os.PathLike[str]


class Saving:
    """A part of :class:`~shoal_ml.batch.Dataset`."""

    _plan: Plan

    @property
    def _watched(self) -> RunOptions:
        """How it runs, and who is told of the run."""
        raise NotImplementedError

    def write_parquet(self, folder: PathLike, *, mode: str = "error", rows_per_file: int = 0) -> Written:
        """Run the plan and write its rows to Parquet files.

        Executors write; a file appears when it is complete. Whatever ends the run, finished files are whole.

        Parameters
        ----------
        folder
            A directory, made if need be, or an fsspec URL.
        mode
            If it holds files: ``"error"``, ``"append"``, or ``"overwrite"`` them, which go when all is written.
        rows_per_file
            Gather blocks until a file has at least as many rows; by default each block is a file.

        Raises
        ------
        WriteError
            The directory is not empty, or there is no room or no permission.
        """
        return self._write(folder, ".parquet", writing.write_parquet, mode, rows_per_file)

    def write_csv(self, folder: PathLike, *, mode: str = "error", rows_per_file: int = 0) -> Written:
        """Run the plan and write its rows as CSV, each file with a line of names; see :meth:`write_parquet`."""
        return self._write(folder, ".csv", writing.write_csv, mode, rows_per_file)

    def write_json(self, folder: PathLike, *, mode: str = "error", rows_per_file: int = 0) -> Written:
        """Run the plan and write each row as a line of JSON; see :meth:`write_parquet`."""
        return self._write(folder, ".jsonl", writing.write_json, mode, rows_per_file)

    def write_images(
        self,
        folder: PathLike,
        column: str = "image",
        *,
        suffix: str = ".png",
        names: str | None = None,
        mode: str = "error",
    ) -> Written:
        """Run the plan and write the image of each row to a file; *names* is the column to name them by, else numbers.

        See :meth:`write_parquet`.
        """
        path, run, old = writing.begin_writing(folder, check_choice("mode", mode, writing.MODES))
        plan = self._plan.then(Step(writing.WriteImages(path, column, suffix, names, run)))
        return writing.end_writing(self._rows_of(plan), old)

    def _write(self, folder: PathLike, suffix: str, write: writing.Format, mode: str, rows: int) -> Written:
        path, run, old = writing.begin_writing(folder, check_choice("mode", mode, writing.MODES))
        size = check_whole("rows_per_file", rows, 0)
        plan = self._plan.then(Step(writing.WriteBlocks(path, suffix, write, run, size)))
        return writing.end_writing(self._rows_of(plan), old)

    def _rows_of(self, plan: Plan) -> Block:
        return concat(list(consuming.iterate_blocks(plan, self._watched)))


__all__ = ["Saving"]
