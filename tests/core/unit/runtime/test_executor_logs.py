"""What executors' processes write to descriptors 1 and 2, and what a node keeps of all executors."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from shoal.runtime.begun import BegunMark
from shoal.runtime.executor_logs import MAX_ENDED, PATIENCE, ExecutorLogs
from shoal.runtime.log_files import PROCESS, STDOUT, LogWriter, Source
from shoal.runtime.raw_output import MAX_RAW, MAX_TAKEN, RawOutput, raw_path


class Executor:
    """The files of an executor that is there."""

    def __init__(self, directory: Path, executor_id: str) -> None:
        self.directory = directory
        self.id = executor_id
        self._descriptor = os.open(raw_path(directory, executor_id), os.O_CREAT | os.O_WRONLY | os.O_APPEND, 0o600)
        self.begun = BegunMark(directory / f"{executor_id}.begun")
        self.log = LogWriter(directory, executor_id)

    def writes(self, data: bytes) -> None:
        os.write(self._descriptor, data)

    def prints(self, task_id: str, text: str) -> None:
        self.log.write(STDOUT, Source(task_id, "f"), text)
        self.log.flush()

    def close(self) -> None:
        os.close(self._descriptor)


@pytest.fixture
def make(tmp_path: Path):
    made: list[Executor] = []

    def make(executor_id: str) -> Executor:
        made.append(Executor(tmp_path, executor_id))
        return made[-1]

    yield make
    for executor in made:
        executor.close()


def test_raw_text_is_taken_once_by_whole_lines(tmp_path: Path, make) -> None:
    executor = make("exec-1")
    mine, agents = RawOutput(tmp_path, "exec-1"), RawOutput(tmp_path, "exec-1")
    assert mine.take() == ""
    executor.writes(b"one\ntwo\nthr")
    assert mine.take() == "one\ntwo"
    assert agents.take() == "" and agents.num_waiting == 3
    executor.writes(b"ee\n\xff\n")
    assert agents.take() == "three\n�"
    assert mine.take() == ""
    executor.writes(b"no end")
    assert mine.take() == "" and mine.take(at_end=True) == "no end"
    mine.close()
    agents.close()


def test_raw_text_that_is_too_much_is_left_out_and_the_file_begins_anew(tmp_path: Path, make) -> None:
    executor = make("exec-1")
    raw = RawOutput(tmp_path, "exec-1")
    line = b"x" * 99 + b"\n"
    executor.writes(line * (2 * MAX_RAW // 100))
    text = raw.take()
    first, second, *_ = text.split("\n")
    assert "bytes left out, written faster" in first and second == "x" * 99
    assert MAX_TAKEN - 200 < len(text) < MAX_TAKEN + 200
    assert os.stat(raw_path(tmp_path, "exec-1")).st_size == 0
    executor.writes(b"on it goes\n")
    assert raw.take() == "on it goes"
    raw.close()


def test_nobody_takes_what_another_is_taking(tmp_path: Path, make) -> None:
    import fcntl

    executor = make("exec-1")
    raw = RawOutput(tmp_path, "exec-1")
    executor.writes(b"a line\n")
    with open(raw_path(tmp_path, "exec-1")) as other:
        fcntl.flock(other, fcntl.LOCK_EX)
        assert raw.take() == ""
    assert raw.take() == "a line"
    raw.close()


def test_the_node_takes_what_a_stuck_executor_leaves_lying(tmp_path: Path, make) -> None:
    executor, logs = make("exec-1"), ExecutorLogs(tmp_path)
    executor.begun.write("task-9", 1.0)
    executor.writes(b"from C\n")
    for _ in range(PATIENCE - 1):
        logs.look(["exec-1", "exec-unknown"])
        assert logs.read("exec-1", 0, 10, "")[1] == []
    logs.look(["exec-1"])
    (line,) = logs.read("exec-1", 0, 10, "")[1]
    assert (line.stream, line.text, line.task_id) == (PROCESS, "from C", "task-9")


def test_last_words_are_those_of_the_process(tmp_path: Path, make) -> None:
    executor, logs = make("exec-1"), ExecutorLogs(tmp_path)
    executor.prints("task-1", "printed\n")
    executor.writes(b"".join(b"%d\n" % number for number in range(100)) + b"Fatal Python error")
    words = logs.last_words("exec-1").split("\n")
    assert words[-2:] == ["99", "Fatal Python error"] and len(words) == 40
    assert logs.last_words("exec-1").endswith("Fatal Python error"), "asked twice"
    assert logs.last_words("exec-2") == ""


def test_sources_are_executors_actors_and_tasks(tmp_path: Path, make) -> None:
    logs = ExecutorLogs(tmp_path)
    first, second = make("exec-1"), make("exec-2")
    logs.bound("exec-1", "actor-1")
    assert logs.sources("actor-1") == ["exec-1"] and logs.sources("exec-2") == ["exec-2"]
    assert logs.sources("exec-3") == logs.sources("actor-2") == logs.sources("task-5") == []
    second.begun.write("task-5", 1.0)
    assert logs.sources("task-5") == ["exec-2"], "it runs there and has printed nothing yet"
    first.prints("task-5", "an earlier attempt\n")
    second.prints("task-5", "this attempt\n")
    second.prints("task-6", "another\n")
    assert logs.sources("task-5") == ["exec-1", "exec-2"]
    executor_id, lines, _, ended = logs.read("task-5", 0, 10, "")
    assert (executor_id, [line.text for line in lines], ended) == ("exec-2", ["this attempt"], False)
    assert [line.text for line in logs.read("exec-1", 0, 10, "", "task-5")[1]] == ["an earlier attempt"]
    assert [line.text for line in logs.read("exec-2", 0, 10, "THIS")[1]] == ["this attempt"]


@pytest.mark.parametrize("source", ["../exec-1", "exec-*", "", "exec-1/..", "*", "exec-1\n"])
def test_a_source_is_no_path_and_no_pattern(tmp_path: Path, make, source: str) -> None:
    make("exec-1").prints("task-1", "secret\n")
    with pytest.raises(LookupError, match="no log of"):
        ExecutorLogs(tmp_path).read(source, 0, 10, "")


def test_logs_outlive_their_executors_but_not_for_ever(tmp_path: Path, make) -> None:
    logs = ExecutorLogs(tmp_path)
    for number in range(MAX_ENDED + 5):
        executor = make(f"exec-{number}")
        logs.bound(executor.id, f"actor-{number}")
        executor.prints("task-1", f"{number}\n")
        executor.writes(b"and the end")
        assert not logs.has_ended(executor.id)
        logs.ended(executor.id)
        assert logs.has_ended(executor.id)
    make("exec-silent")
    logs.ended("exec-silent")
    assert len(logs.ended_ids()) == MAX_ENDED and logs.ended_ids()[-1] == f"exec-{MAX_ENDED + 4}"
    assert {path.suffix for path in tmp_path.iterdir()} == {".log"}
    assert logs.sources("actor-0") == []
    executor_id, lines, _, ended = logs.read("actor-20", 0, 10, "")
    assert (executor_id, [line.text for line in lines], ended) == ("exec-20", ["20", "and the end"], True)
    assert lines[1].actor == "actor-20"
