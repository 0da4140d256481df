"""The journal of a run that can be gone on with: which pieces of the source are done, and in which files.

It is a text file beside the output, one record on a line, only ever added to::

    <crc32 of the rest, 8 hex digits> {"kind": "plan", …}
    <crc32> {"kind": "done", "at": 7, "keys": […], "files": [["part-000007-000.parquet", 512, 40960]], …}
    <crc32> {"kind": "finished"}

A record is written after its files have their names: a run that dies in between does that piece again and replaces the
files. A record that was cut short, and whatever follows it, is cut off when the journal is next opened, and the files
that it may have named are made anew. One run at a time holds the journal (``flock``: the lock goes with its process).
"""

from __future__ import annotations

import dataclasses
import fcntl
import json
import os
import time
import zlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from shoal_ml.batch.prediction_errors import JournalError, PlanChangedError

NAME = "_shoal_journal.jsonl"
#: Of the format; another one is not gone on with.
VERSION = 1
#: What to do when the plan is another than the one that was begun.
IF_CHANGED = ("refuse", "restart", "go_on")
#: Seconds between two times that the disk is waited for: a machine that loses power loses at most these.
SYNC_SECONDS = 1.0


@dataclasses.dataclass(frozen=True, slots=True)
class OutputFile:
    """A file of the output: its name, rows, and bytes on disk."""

    name: str
    num_rows: int
    nbytes: int


@dataclasses.dataclass(frozen=True, slots=True)
class Done:
    """Pieces of the source that belong together and are finished.

    Attributes
    ----------
    position
        Of the first of them in the source, from 0.
    keys
        Of the pieces, in order.
    files
        What they have become, in order.
    num_rows
        Rows that were predicted.
    num_bad
        Rows that failed.
    """

    position: int
    keys: tuple[str, ...]
    files: tuple[OutputFile, ...]
    num_rows: int
    num_bad: int = 0
    #: File of the rows that failed, if they are kept.
    letters: str = ""


class Journal:
    """The journal in a directory, open for one run. A context manager; closing it lets another run have it.

    Parameters
    ----------
    directory
        Of the output; made if it is not there.
    plan
        What is done to what, in words or fingerprints by name: it must be what it was. Entries whose names begin with
        ``_`` are remembered and not compared.
    if_changed
        ``"refuse"`` raises, ``"restart"`` forgets what was done, ``"go_on"`` keeps it and does the rest in the new way.

    Attributes
    ----------
    plan
        What the run that began this said.
    done
        What is finished, by position.
    finished
        Whether everything was.

    Raises
    ------
    PlanChangedError
        The plan is another, and *if_changed* is ``"refuse"``.
    JournalError
        Another run has it, or the directory holds files and no journal.
    """

    def __init__(self, directory: str | Path, plan: Mapping[str, Any], *, if_changed: str = "refuse") -> None:
        self.directory = Path(directory)
        self.directory.mkdir(parents=True, exist_ok=True)
        self.path = self.directory / NAME
        if not self.path.exists() and any(not name.startswith(".") for name in os.listdir(self.directory)):
            raise JournalError(
                f"`{self.directory}` holds files and no journal: a run that can be gone on with needs a directory of "
                "its own.",
                path=str(self.directory),
            )
        self.plan = dict(plan)
        self.done: dict[int, Done] = {}
        self.finished = False
        # in no context of its own: the journal is one
        self._file = open(self.path, "r+b" if self.path.exists() else "w+b", buffering=0)  # noqa: SIM115
        self._synced = 0.0
        try:
            self._lock()
            self._begin(if_changed)
        except BaseException:
            self._file.close()
            raise

    @property
    def num_rows(self) -> int:
        """Rows that are done, the failed ones included."""
        return sum(done.num_rows + done.num_bad for done in self.done.values())

    def add(self, done: Done) -> None:
        """Note that pieces are finished; their files have their names by now."""
        self.done[done.position] = done
        files = [[file.name, file.num_rows, file.nbytes] for file in done.files]
        record = {"kind": "done", "at": done.position, "keys": done.keys, "files": files, "rows": done.num_rows}
        self._write(record | {"bad": done.num_bad, "letters": done.letters})

    def drop(self, position: int) -> None:
        """Forget what was done at a position: the source has something else there."""
        del self.done[position]

    def finish(self) -> None:
        """Note that everything is done."""
        self.finished = True
        self._write({"kind": "finished"}, sync=True)

    def close(self) -> None:
        """Let go of it. Harmless if repeated."""
        self._file.close()

    def __enter__(self) -> Journal:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()

    def _lock(self) -> None:
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise JournalError(
                f"Another run writes to `{self.directory}` now. Wait until it has ended, or choose another directory.",
                path=str(self.directory),
            ) from None

    def _begin(self, if_changed: str) -> None:
        data = self._file.read() or b""
        records, good = read_records(data)
        if records and records[0].get("kind") != "plan":
            raise JournalError(f"`{self.path}` is no journal of this version.", path=str(self.directory))
        changes = compare_plans(records[0]["plan"], self.plan) if records else {}
        if changes and if_changed == "refuse":
            raise _changed(self.directory, changes)
        if not records or (changes and if_changed == "restart"):
            self._file.truncate(0)
            self._file.seek(0)
            self._write({"kind": "plan", "version": VERSION, "plan": self.plan}, sync=True)
            return
        self._file.truncate(good)
        self._file.seek(good)
        self.plan = records[0]["plan"]
        self._take(records[1:])

    def _take(self, records: Sequence[Mapping[str, Any]]) -> None:
        """Believe what is noted as far as the files are there, whole."""
        for record in records:
            if record["kind"] == "finished":
                self.finished = True
                continue
            self.finished = False
            files = tuple(OutputFile(*file) for file in record["files"])
            rest = record["rows"], record["bad"], record["letters"]
            self.done[record["at"]] = Done(record["at"], tuple(record["keys"]), files, *rest)
        for position, done in list(self.done.items()):
            if not all(_is_whole(self.directory / file.name, file.nbytes) for file in done.files):
                self.drop(position)
                self.finished = False

    def _write(self, record: Mapping[str, Any], *, sync: bool = False) -> None:
        self._file.write(encode_record(record))
        now = time.monotonic()
        if sync or now - self._synced >= SYNC_SECONDS:
            _sync_directory(self.directory)  # the names of the files before what says that they are there
            os.fdatasync(self._file.fileno())
            self._synced = now


def encode_record(record: Mapping[str, Any]) -> bytes:
    """Return a record as its line."""
    text = json.dumps(record, separators=(",", ":")).encode()
    return b"%08x %s\n" % (zlib.crc32(text), text)


def read_records(data: bytes) -> tuple[list[dict[str, Any]], int]:
    """Return the records up to the first that is not whole, and the number of bytes that they take."""
    records: list[dict[str, Any]] = []
    good = 0
    while (end := data.find(b"\n", good)) >= 0:
        line = data[good:end]
        try:
            if int(line[:8], 16) != zlib.crc32(line[9:]):
                break
            records.append(json.loads(line[9:]))
        except ValueError:
            break
        good = end + 1
    return records, good


def compare_plans(before: Mapping[str, Any], now: Mapping[str, Any]) -> dict[str, tuple[str, str]]:
    """Return what differs, by name, with what it was and is."""
    names = dict.fromkeys([*before, *now])
    return {
        name: (str(before.get(name)), str(now.get(name)))
        for name in names
        if not name.startswith("_") and before.get(name) != now.get(name)
    }


def _changed(directory: Path, changes: dict[str, tuple[str, str]]) -> PlanChangedError:
    told = "; ".join(f"{name} was {before}, is {now}" for name, (before, now) in changes.items())
    return PlanChangedError(
        f"`{directory}` was begun differently: {told}. Choose another directory, or say what to do: "
        '`if_changed="restart"` does everything anew, `"go_on"` keeps what is done.',
        changes=changes,
    )


def _sync_directory(directory: Path) -> None:
    descriptor = os.open(directory, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _is_whole(path: Path, nbytes: int) -> bool:
    try:
        return path.stat().st_size == nbytes
    except OSError:
        return False


__all__ = ["Done", "Journal", "OutputFile", "compare_plans", "encode_record", "read_records"]
