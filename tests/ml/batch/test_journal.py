"""What a journal keeps, whatever happens to it."""

from __future__ import annotations

import os
import pickle
import signal
import subprocess
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shoal_ml.batch.journal import Done, Journal, OutputFile, encode_record, read_records
from shoal_ml.batch.prediction_errors import JournalError, PlanChangedError

PLAN = {"model": "aaaa", "source": "numbers", "_rows": 30}


def write(directory, name, text="x"):
    (directory / name).write_text(text)
    return OutputFile(name, len(text), len(text))


def test_what_was_noted_is_there_again(tmp_path):
    with Journal(tmp_path / "out", PLAN) as journal:
        first = Done(0, ("a",), (write(journal.directory, "0", "abc"),), 3)
        second = Done(1, ("b", "c"), (), 0, 2, "x")
        journal.add(first)
        journal.add(second)
        assert journal.num_rows == 5
    with Journal(tmp_path / "out", {**PLAN, "_rows": 99}) as journal:
        assert journal.done == {0: first, 1: second} and not journal.finished
        assert journal.plan == PLAN
        journal.finish()
    with Journal(tmp_path / "out", PLAN) as journal:
        assert journal.finished


@given(st.integers(0, 400), st.binary(max_size=20))
def test_a_torn_tail_is_cut_off(kept, noise):
    records = [{"kind": "done", "n": n} for n in range(5)]
    lines = [encode_record(record) for record in records]
    data = b"".join(lines)
    whole = next((n for n in range(5, -1, -1) if len(b"".join(lines[:n])) <= kept), 0)
    # noise without a newline cannot end a record
    found, good = read_records(data[:kept] + noise.replace(b"\n", b"?"))
    assert found == records[:whole]
    assert good == len(b"".join(lines[:whole]))


@pytest.mark.parametrize("damage", [b"0000", b"\n\n", b"00000000 {}\n", b"zzzzzzzz {}\n"])
def test_after_damage_it_goes_on_where_it_was_whole(tmp_path, damage):
    with Journal(tmp_path, PLAN) as journal:
        journal.add(Done(0, ("a",), (write(tmp_path, "0"),), 1))
    with open(journal.path, "ab") as file:
        file.write(damage)
    with Journal(tmp_path, PLAN) as journal:
        assert [done.keys for done in journal.done.values()] == [("a",)]
        journal.add(Done(1, ("b",), (), 0))
    with Journal(tmp_path, PLAN) as journal:
        assert [done.keys for done in journal.done.values()] == [("a",), ("b",)]


def test_a_file_that_is_gone_or_cut_is_not_done(tmp_path):
    with Journal(tmp_path, PLAN) as journal:
        for position, name in enumerate("abc"):
            journal.add(Done(position, (name,), (write(tmp_path, name, "text"),), 4))
        journal.finish()
    (tmp_path / "a").unlink()
    (tmp_path / "b").write_text("t")
    with Journal(tmp_path, PLAN) as journal:
        assert [done.keys for done in journal.done.values()] == [("c",)]
        assert not journal.finished


def test_another_plan_is_refused_unless_told(tmp_path):
    with Journal(tmp_path, PLAN) as journal:
        journal.add(Done(0, ("a",), (), 0, 1))
    with pytest.raises(PlanChangedError, match=r"model was aaaa, is bbbb; columns was None, is x\. Choose") as raised:
        Journal(tmp_path, {**PLAN, "model": "bbbb", "columns": "x"})
    assert raised.value.changes == {"model": ("aaaa", "bbbb"), "columns": ("None", "x")}
    assert pickle.loads(pickle.dumps(raised.value)).changes == raised.value.changes
    with Journal(tmp_path, {**PLAN, "model": "bbbb"}, if_changed="go_on") as journal:
        assert len(journal.done) == 1
    with Journal(tmp_path, {**PLAN, "model": "bbbb"}, if_changed="restart") as journal:
        assert journal.done == {}
    with Journal(tmp_path, {**PLAN, "model": "bbbb"}) as journal:
        assert journal.done == {}


def test_a_directory_with_other_files_is_refused(tmp_path):
    (tmp_path / "letter.txt").write_text("dear")
    with pytest.raises(JournalError, match="holds files and no journal"):
        Journal(tmp_path, PLAN)
    assert os.listdir(tmp_path) == ["letter.txt"]


def test_one_run_at_a_time_and_a_killed_one_lets_go(tmp_path):
    program = (
        "import sys\nfrom shoal_ml.batch.journal import Journal\n"
        f"journal = Journal({str(tmp_path)!r}, {PLAN!r})\nprint('open', flush=True)\nsys.stdin.read()\n"
    )
    with subprocess.Popen([sys.executable, "-c", program], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == b"open\n"
        with pytest.raises(JournalError, match="Another run writes"):
            Journal(tmp_path, PLAN)
        os.kill(other.pid, signal.SIGKILL)
        other.wait()
    Journal(tmp_path, PLAN).close()


def test_what_is_done_again_takes_the_place_of_what_was(tmp_path):
    with Journal(tmp_path, PLAN) as journal:
        journal.add(Done(0, ("a",), (write(tmp_path, "0"),), 1))
        journal.finish()
        journal.drop(0)
        journal.add(Done(0, ("b",), (write(tmp_path, "0", "new"),), 3))
    with Journal(tmp_path, PLAN) as journal:
        assert [done.keys for done in journal.done.values()] == [("b",)] and not journal.finished
