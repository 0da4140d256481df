"""Dead letters on disk, beside the output of a run that can be gone on with."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from shoal_ml.batch.bad_rows import BadRow
from shoal_ml.batch.batch_formats import to_column
from shoal_ml.batch.blocks import Block
from shoal_ml.batch.journal import Done
from shoal_ml.batch.output_files import UNFINISHED, read_table, write_table
from shoal_ml.batch.predicting import Letters
from shoal_ml.batch.resuming import LETTERS

#: Columns of a file beside those of the input: which row of its block it was, and what happened.
_ROW, _ERROR, _TRACEBACK = "__row", "__error", "__traceback"


def keep_letters(directory: Path, position: int, remarks: Sequence[Any]) -> tuple[int, str]:
    """Write the rows that failed in one group; return how many there are, and the name of the file."""
    letters = [remark for remark in remarks if isinstance(remark, Letters)]
    if not letters:
        return 0, ""
    (directory / LETTERS).mkdir(exist_ok=True)
    names = []
    for number, letter in enumerate(letters):
        name = f"{LETTERS}/part-{position:06d}-{number:03d}.parquet"
        unfinished = directory / f"{UNFINISHED}letters-{position:06d}"
        write_table(unfinished, _as_block(letter))
        os.replace(unfinished, directory / name)
        names.append(name)
    return sum(len(letter.bad) for letter in letters), ":".join(names)


def read_letters(directory: Path, done: Sequence[Done]) -> list[Letters]:
    """Return the rows that failed, in the order of the source."""
    names = [name for entry in done for name in entry.letters.split(":") if name]
    return [_from_block(read_table(directory / name)) for name in names]


def _as_block(letter: Letters) -> Block:
    told = {
        _ROW: [bad.row for bad in letter.bad],
        _ERROR: [bad.error for bad in letter.bad],
        _TRACEBACK: [bad.traceback for bad in letter.bad],
    }
    return {**letter.inputs, **{name: to_column(values, name, "dead letters") for name, values in told.items()}}


def _from_block(block: Block) -> Letters:
    rows, errors, traces = (block[name].tolist() for name in (_ROW, _ERROR, _TRACEBACK))
    inputs = {name: column for name, column in block.items() if name not in (_ROW, _ERROR, _TRACEBACK)}
    return Letters(inputs, tuple(BadRow(*told) for told in zip(rows, errors, traces, strict=True)))


__all__ = ["keep_letters", "read_letters"]
