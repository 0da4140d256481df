"""The journal: what was written is there, torn ends are cut, two do not write at once."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest

from shoal_ml.tune.journal import FILE, VERSION, Journal, JournalError, read_journal


def test_what_was_written_is_read(tmp_path: Path):
    journal = Journal(tmp_path)
    journal.write("run", version=VERSION)
    journal.write(
        "report", metrics={"loss": np.float32(0.5), "curve": np.arange(2), "odd": object, "nan": float("nan")}
    )
    journal.close()
    run, report = read_journal(tmp_path)
    assert run["event"] == "run" and report["metrics"]["loss"] == 0.5 and report["metrics"]["curve"] == [0, 1]
    assert report["metrics"]["nan"] != report["metrics"]["nan"] and "object" in report["metrics"]["odd"]


@pytest.mark.parametrize("torn", [b'{"event": "rep', b"\xff\xfe\r", b"x" * 100_000])
def test_a_torn_end_is_cut_off(tmp_path: Path, torn: bytes):
    journal = Journal(tmp_path)
    journal.write("run", version=VERSION)
    journal.close()
    with open(tmp_path / FILE, "ab") as file:
        file.write(torn)
    assert [event["event"] for event in read_journal(tmp_path)] == ["run"]
    journal = Journal(tmp_path)
    journal.write("more")
    journal.close()
    assert [event["event"] for event in read_journal(tmp_path)] == ["run", "more"]


def test_a_damaged_line_is_named(tmp_path: Path):
    (tmp_path / FILE).write_bytes(b'{"event": "run", "version": 1}\nnonsense\n')
    with pytest.raises(JournalError, match="Line 2"):
        list(read_journal(tmp_path))
    (tmp_path / FILE).write_bytes(b'{"event": "run", "version": 99}\n')
    with pytest.raises(JournalError, match="version 99"):
        list(read_journal(tmp_path))
    with pytest.raises(JournalError, match="holds no run"):
        list(read_journal(tmp_path / "nowhere"))


def test_one_writes_at_a_time(tmp_path: Path):
    journal = Journal(tmp_path)
    with pytest.raises(JournalError, match="Another process"):
        Journal(tmp_path)
    journal.close()
    journal.close()
    Journal(tmp_path).close()
    assert (tmp_path / FILE).stat().st_mode & 0o777 == 0o600


def test_a_full_disk_leaves_whole_lines(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    journal = Journal(tmp_path)
    journal.write("run", version=VERSION)
    write = os.write
    monkeypatch.setattr(os, "write", lambda descriptor, data: write(descriptor, data[:5]))
    with pytest.raises(OSError, match="only 5 of"):
        journal.write("report", metrics={})
    monkeypatch.undo()
    journal.write("more")
    journal.close()
    assert [event["event"] for event in read_journal(tmp_path)] == ["run", "more"]
