"""Runs that can be gone on with: the output of a plan in a directory, with a journal of what is done.

Each piece of the source has a stable key. What comes of it is written by the executors, durably and without a name;
this process then names the files and notes the keys in the journal. A run that finds a journal leaves out the pieces
in it. Pieces whose rows came together in one piece of work are done together, or not at all.
"""

from __future__ import annotations

import contextlib
import dataclasses
import itertools
import os
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import shoal
from shoal.errors import OptionError
from shoal.model.suggest import did_you_mean
from shoal_ml.batch import consuming
from shoal_ml.batch.execution import RunOptions
from shoal_ml.batch.fingerprints import fingerprint_of
from shoal_ml.batch.handles import UNKNOWN, Handle
from shoal_ml.batch.journal import IF_CHANGED, Done, Journal, OutputFile
from shoal_ml.batch.output_files import UNFINISHED, PartPiece, WriteUnfinished
from shoal_ml.batch.plan import Plan, Step
from shoal_ml.batch.prediction_errors import PlanChangedError
from shoal_ml.batch.sources.source import Source, Wishes

#: What finished files are called: position of the piece in the source, number of the file.
PART = "part-{:06d}-{:03d}.parquet"
#: Directory of the rows that failed; readers of the output leave out names that begin like this.
LETTERS = "_dead_letters"


@dataclasses.dataclass
class Group:
    """Pieces whose rows came together, and what has come of them so far."""

    keys: list[str] = dataclasses.field(default_factory=list)
    #: Names without a name of their own yet.
    files: list[OutputFile] = dataclasses.field(default_factory=list)
    remarks: list[Any] = dataclasses.field(default_factory=list)


#: Writes what failed in a group, and returns its number of rows and its file's name.
KeepRemarks = Callable[[Path, int, list[Any]], tuple[int, str]]


def run_into(
    plan: Plan,
    options: RunOptions,
    directory: str | Path,
    *,
    describes: Mapping[str, Any],
    keep_remarks: KeepRemarks,
    if_changed: str = "refuse",
    say: Callable[[str], None] = print,
) -> tuple[Plan, list[Done]]:
    """Run *plan* into a directory, or what is left of it.

    Parameters
    ----------
    plan
        Its steps are deterministic; none of them is a limit.
    describes
        What the plan is, for the journal: see :class:`~shoal_ml.batch.journal.Journal`.
    keep_remarks
        Told what the plan's transforms remarked on a group; writes down what has to last.
    say
        Told how much was done before.

    Returns
    -------
    plan, done
        A plan that reads the output, in the order of the source; and what it consists of.
    """
    check_if_changed(if_changed)
    directory = Path(directory).absolute()
    wishes = plan.wishes(max(1, int(shoal.cluster_resources().get("num_cpus", 1))))
    about = {**describes, "_wishes": dataclasses.asdict(wishes), "_rows": plan.source.num_rows()}
    with Journal(directory, about, if_changed=if_changed) as journal:
        _clean(journal)
        source = Remaining(plan.source, journal, refuses=if_changed == "refuse")
        is_left = source.find_first()
        _tell(journal, say, is_left)
        if is_left:
            _run(dataclasses.replace(plan, source=source), options, journal, source, keep_remarks)
        source.check_all_seen()
        if not journal.finished:
            journal.finish()
        done = [journal.done[position] for position in sorted(journal.done)]
    return Plan(OutputSource(directory, done)), done


def _run(plan: Plan, options: RunOptions, journal: Journal, source: Remaining, keep_remarks: KeepRemarks) -> None:
    plan = plan.then(Step(WriteUnfinished(str(journal.directory))))
    for group in gather_groups(consuming.iterate_handles(plan, dataclasses.replace(options, preserve_order=True))):
        _commit(group, journal, source.positions[group.keys[0]], keep_remarks)


def gather_groups(handles: Iterator[Handle]) -> Iterator[Group]:
    """Give what is written together with all that shares a piece of the source with it. Handles come in order."""
    group = Group()
    with contextlib.closing(handles):  # type: ignore[type-var]
        for handle in handles:
            if group.keys and not set(group.keys) & set(handle.keys):
                yield group
                group = Group()
            group.keys += [key for key in handle.keys if key not in group.keys]
            group.remarks += handle.remarks
            group.files += _files_of(handle)
    if group.keys:
        yield group


def _files_of(handle: Handle) -> list[OutputFile]:
    if not handle.num_rows:
        return []
    block = consuming.load(handle)
    columns = [column.tolist() for column in (block["rows"], block["nbytes"])]
    names = block["file"].tolist() if hasattr(block["file"], "tolist") else list(block["file"])
    return [OutputFile(str(name), rows, nbytes) for name, rows, nbytes in zip(names, *columns, strict=True)]


def _commit(group: Group, journal: Journal, position: int, keep_remarks: KeepRemarks) -> None:
    """Give files their names, and note that they have them."""
    named = []
    for number, file in enumerate(group.files):
        name = PART.format(position, number)
        os.replace(journal.directory / file.name, journal.directory / name)
        named.append(dataclasses.replace(file, name=name))
    num_bad, letters = keep_remarks(journal.directory, position, group.remarks)
    rows = sum(file.num_rows for file in named)
    journal.add(Done(position, tuple(group.keys), tuple(named), rows, num_bad, letters))


def _tell(journal: Journal, say: Callable[[str], None], is_left: bool) -> None:
    if not journal.done:
        return
    total = journal.plan.get("_rows")
    of = f" of {total:,}" if total is not None else ""
    rest = "going on with the rest" if is_left else "nothing is left to do"
    say(f"{journal.num_rows:,}{of} rows are done in `{journal.directory}`: {rest}.")


def _clean(journal: Journal) -> None:
    """Remove files of a run that ended in the middle: without a name, or named and not noted."""
    known = {file.name for done in journal.done.values() for file in done.files}
    for name in os.listdir(journal.directory):
        if name.startswith(UNFINISHED) or (name.startswith("part-") and name not in known):
            (journal.directory / name).unlink()


class Remaining(Source):
    """A source without the pieces that are done; divided as it was when they were."""

    def __init__(self, source: Source, journal: Journal, *, refuses: bool) -> None:
        self.name, self.reads = source.name, source.reads
        self._source = source
        self._journal = journal
        self._refuses = refuses
        #: Where each piece is in the source.
        self.positions: dict[str, int] = {}
        self._num_seen = 0
        self._handles: Iterator[Handle] = iter(())

    def find_first(self) -> bool:
        """Look for the first piece that is not done; returns whether there is one."""
        left = self._left()
        first = next(left, None)
        if first is not None:
            self._handles = itertools.chain([first], left)
        return first is not None

    def handles(self, wishes: Wishes) -> Iterator[Handle]:
        yield from self._handles

    def _left(self) -> Iterator[Handle]:
        first = Wishes(**_tupled(self._journal.plan["_wishes"]))
        done = {key for entry in self._journal.done.values() for key in entry.keys}
        for position, handle in enumerate(self._source.handles(first)):
            self._num_seen = position + 1
            (key,) = handle.keys or (f"[{position}]",)
            if self.positions.setdefault(key, position) != position:
                raise PlanChangedError(f"Two pieces of the source are called `{key}`: it cannot be gone on with.")
            entry = self._journal.done.get(position)
            if entry is not None and entry.keys[0] != key:
                self._differs(position, entry.keys[0], key)
                done -= set(entry.keys)
            if key not in done:
                yield handle if handle.keys else dataclasses.replace(handle, keys=(key,))

    def check_all_seen(self) -> None:
        """The source has ended: refuse, or forget, what was done of pieces beyond its end."""
        for position in [position for position in self._journal.done if position >= self._num_seen]:
            self._differs(position, self._journal.done[position].keys[0], "nothing")

    def num_rows(self) -> int | None:
        rows = self._source.num_rows()
        return None if rows is None else max(0, rows - self._journal.num_rows)

    def describe(self) -> str:
        return self._source.describe()

    def _differs(self, position: int, before: str, now: str) -> None:
        if self._refuses:
            raise PlanChangedError(
                f"The data is not what it was when `{self._journal.directory}` was begun: piece {position:,} was "
                f'`{before}`, is `{now}`. Choose another directory, or do what has changed anew: `if_changed="go_on"`.',
                changes={"source": (before, now)},
            )
        self._journal.drop(position)


class OutputSource(Source):
    """Files of the output, in the order of the source that they came from."""

    name, reads = "read_output", True

    def __init__(self, directory: Path, done: list[Done]) -> None:
        self._directory = directory
        self._files = [file for entry in done for file in entry.files]

    def handles(self, wishes: Wishes) -> Iterator[Handle]:
        for file in self._files:
            piece = PartPiece(str(self._directory / file.name), file.nbytes)
            yield Handle(piece, UNKNOWN, file.nbytes, (piece.key,))

    def num_rows(self) -> int:
        return sum(file.num_rows for file in self._files)

    def describe(self) -> str:
        return f"{self.num_rows():,} rows in {len(self._files):,} files of {self._directory}"


def describe_steps(plan: Plan) -> dict[str, str]:
    """Return what a journal has to know of a plan's steps."""
    for step in plan.steps:
        if step.transform is None:
            raise OptionError(
                "A plan with a `limit` cannot be gone on with: what it lets through is not known by piece. Limit the "
                "data first (`materialize()`), or leave it out.",
                option="resume",
            )
    return {f"step {number} ({step.name})": fingerprint_of(step.transform) for number, step in enumerate(plan.steps, 1)}


def check_if_changed(if_changed: str) -> None:
    """Refuse what is no way to treat a changed plan."""
    if if_changed not in IF_CHANGED:
        told = ", ".join(f'"{name}"' for name in IF_CHANGED)
        hint = did_you_mean(str(if_changed), IF_CHANGED)
        raise OptionError(f"`if_changed` is one of {told}, not {if_changed!r}.{hint}", option="if_changed")


def _tupled(wishes: Mapping[str, Any]) -> dict[str, Any]:
    return {name: tuple(value) if isinstance(value, list) else value for name, value in wishes.items()}


__all__ = ["LETTERS", "OutputSource", "Remaining", "describe_steps", "run_into"]
