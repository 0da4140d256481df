"""Executors' logs: lines go in and come out, whatever happens to the files in between."""

from __future__ import annotations

import os
import resource
import signal
from pathlib import Path

from hypothesis import given, settings
from hypothesis import strategies as st

from shoal.runtime.log_files import (
    GAP,
    MAX_CHARS,
    MAX_FILE,
    MAX_LINES,
    PATIENCE,
    PROCESS,
    STDERR,
    STDOUT,
    LogWriter,
    Source,
    append,
    log_files,
    read_lines,
)

TASK = Source("task-1", "train", "In[3]#ab", "")
OTHER = Source("task-2", "test", "", "actor-7")


class Clock:
    def __init__(self) -> None:
        self.now = 1_000.0

    def __call__(self) -> float:
        return self.now


def texts(directory: Path, offset: int = 0, limit: int = 1_000_000) -> list[str]:
    return [line.text for line in read_lines(directory, "exec-1", offset, limit)[0]]


def test_a_line_says_when_where_and_whose_it_is(tmp_path: Path) -> None:
    writer = LogWriter(tmp_path, "exec-1", Clock())
    assert writer.write(STDERR, TASK, "loss: 0.5\n")
    assert not writer.write(STDOUT, OTHER, "ä\nb\n"), "a flush is due already"
    assert not writer.flush()
    lines, _ = read_lines(tmp_path, "exec-1", 0, 10)
    assert lines[0] == (1_000.0, STDERR, "loss: 0.5", "task-1", "train", "In[3]#ab", "", "exec-1")
    assert [(line.text, line.actor, line.task_id) for line in lines[1:]] == [
        ("ä", "actor-7", "task-2"),
        ("b", "actor-7", "task-2"),
    ]
    ((_, path),) = log_files(tmp_path, "exec-1")
    assert path.stat().st_mode & 0o777 == 0o600


def test_a_line_waits_for_its_end(tmp_path: Path) -> None:
    clock = Clock()
    writer = LogWriter(tmp_path, "exec-1", clock)
    writer.write(STDOUT, TASK, "half a ")
    assert writer.flush(), "once more, later"
    assert texts(tmp_path) == []
    writer.write(STDOUT, OTHER, "other\n")
    writer.write(STDOUT, TASK, "line\nnext")
    writer.flush()
    assert texts(tmp_path) == ["other", "half a line"]
    clock.now += PATIENCE
    assert not writer.flush()
    assert texts(tmp_path)[2:] == ["next"]
    writer.write(STDOUT, TASK, "the last")
    writer.ended("task-1")
    writer.flush()
    assert texts(tmp_path)[3:] == ["the last"]


def test_of_a_progress_bar_the_last_state_is_kept(tmp_path: Path) -> None:
    writer = LogWriter(tmp_path, "exec-1", Clock())
    for percent in range(0, 101, 10):
        writer.write(STDERR, TASK, f"\r{percent} %")
    writer.write(STDERR, TASK, "\r\n")
    writer.write(STDOUT, TASK, "with dos ends\r\nnext\r\n")
    writer.flush()
    assert texts(tmp_path) == ["100 %", "with dos ends", "next"]


def test_follow_is_to_ask_again(tmp_path: Path) -> None:
    writer = LogWriter(tmp_path, "exec-1", Clock())
    seen, offset = [], 0
    for number in range(100):
        writer.write(STDOUT, TASK, f"{2 * number}\n{2 * number + 1}\n")
        writer.flush()
        lines, offset = read_lines(tmp_path, "exec-1", offset, 1_000)
        seen += [line.text for line in lines]
    assert seen == list(map(str, range(200)))
    assert read_lines(tmp_path, "exec-1", offset, 10) == ([], offset)


def test_pages_and_tails(tmp_path: Path) -> None:
    writer = LogWriter(tmp_path, "exec-1", Clock())
    writer.write(STDOUT, TASK, "".join(f"{number}\n" for number in range(1_000)))
    writer.flush()
    seen, offset = [], 0
    while True:
        lines, offset = read_lines(tmp_path, "exec-1", offset, 7)
        if not lines:
            break
        assert len(lines) <= 7
        seen += [line.text for line in lines]
    assert seen == list(map(str, range(1_000)))
    lines, end = read_lines(tmp_path, "exec-1", -3, 100)
    assert [line.text for line in lines] == ["997", "998", "999"] and end == offset
    lines, end = read_lines(tmp_path, "exec-1", -2, 100, lambda line: line.text.endswith("7"))
    assert [line.text for line in lines] == ["987", "997"] and end == offset
    assert read_lines(tmp_path, "exec-2", 0, 10) == ([], 0)
    assert read_lines(tmp_path, "exec-2", -5, 10) == ([], 0)


def test_two_files_take_turns_and_a_slow_reader_is_told(tmp_path: Path) -> None:
    writer = LogWriter(tmp_path, "exec-1", Clock())
    line = "x" * 99 + "\n"
    writer.write(STDOUT, TASK, line)
    writer.flush()
    _, offset = read_lines(tmp_path, "exec-1", 0, 10)
    for _ in range(60):
        writer.write(STDOUT, TASK, line * 500)
        writer.flush()
        files = log_files(tmp_path, "exec-1")
        assert len(files) <= 2
        assert sum(path.stat().st_size for _, path in files) < 2 * MAX_FILE + MAX_FILE // 4
    lines, following = read_lines(tmp_path, "exec-1", offset, 1_000_000)
    assert lines[0].stream == GAP and "not kept any more" in lines[0].text
    assert len(lines) > MAX_FILE // 150 and following > offset
    assert read_lines(tmp_path, "exec-1", 0, 1)[0][0].stream == STDOUT, "who asks for all that is kept misses nothing"


@settings(max_examples=50, deadline=None)
@given(data=st.data())
def test_nothing_is_lost_or_twice_however_it_is_cut(tmp_path_factory, data: st.DataObject) -> None:
    directory = tmp_path_factory.mktemp("log")
    writer = LogWriter(directory, "exec-1", Clock())
    lines = data.draw(st.lists(st.text(st.characters(exclude_characters="\n\r"), max_size=200), max_size=60))
    text = "".join(f"{line}\n" for line in lines)
    seen, offset = [], 0
    while text:
        length = data.draw(st.integers(1, 300))
        writer.write(STDOUT, TASK, text[:length])
        text = text[length:]
        writer.flush()
        limit = data.draw(st.integers(1, 20))
        page, offset = read_lines(directory, "exec-1", offset, limit)
        seen += [line.text for line in page]
    seen += [line.text for line in read_lines(directory, "exec-1", offset, 10_000)[0]]
    encoded = [line.encode("utf-8", "replace").decode() for line in lines]
    assert [line.encode("utf-8", "replace").decode() for line in seen] == encoded


def test_long_lines_and_many_are_cut_into_pieces(tmp_path: Path) -> None:
    writer = LogWriter(tmp_path, "exec-1", Clock())
    writer.write(STDOUT, TASK, "y" * (3 * MAX_CHARS + 5) + "\n" + "z\n" * (2 * MAX_LINES + 1))
    writer.flush()
    found = texts(tmp_path)
    assert "".join(found[:4]) == "y" * (3 * MAX_CHARS + 5)
    assert found[4:] == ["z"] * (2 * MAX_LINES + 1)
    pieces = log_files(tmp_path, "exec-1")[0][1].read_bytes().splitlines()
    assert all(len(piece) < 2 * MAX_CHARS for piece in pieces)


def test_torn_pieces_are_skipped(tmp_path: Path) -> None:
    writer = LogWriter(tmp_path, "exec-1", Clock())
    for word in ("one", "two", "three"):
        writer.write(STDOUT, TASK, f"{word}\n")
        writer.flush()
    ((_, path),) = log_files(tmp_path, "exec-1")
    whole = path.read_bytes()
    first, second, third = whole.splitlines(keepends=True)
    path.write_bytes(first + second[:20] + b"\n" + b"\xff\xfe gar\rbage\x0b\n" + b"[1,2]\n" + b'"text"\n' + third)
    assert texts(tmp_path) == ["one", "three"]
    path.write_bytes(first + second[:20])
    lines, offset = read_lines(tmp_path, "exec-1", 0, 10)
    assert [line.text for line in lines] == ["one"], "what is being written is left for the next time"
    path.write_bytes(first + second)
    assert texts(tmp_path, offset) == ["two"]
    path.write_bytes(whole[: len(whole) // 2])
    append(tmp_path, "exec-1", PROCESS, Source(), "its last words")
    assert texts(tmp_path)[-1] == "its last words"
    path.unlink()
    assert texts(tmp_path) == [] and texts(tmp_path, offset) == []


def test_a_full_disk_costs_lines_and_nothing_else(tmp_path: Path) -> None:
    writer = LogWriter(tmp_path, "exec-1", Clock())
    writer.write(STDOUT, TASK, "before\n")
    writer.flush()
    ((_, path),) = log_files(tmp_path, "exec-1")
    old = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (path.stat().st_size + 30, limits[1]))
        for number in range(5):
            writer.write(STDOUT, TASK, f"lost {number}\n")
            writer.flush()
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        signal.signal(signal.SIGXFSZ, old)
    writer.write(STDOUT, TASK, "after\n")
    writer.flush()
    assert texts(tmp_path) == ["before", "… 5 pieces of output could not be written to the log", "after"]


def test_a_directory_that_is_gone_costs_nothing(tmp_path: Path) -> None:
    writer = LogWriter(tmp_path / "gone", "exec-1", Clock())
    writer.write(STDOUT, TASK, "a line\n")
    writer.flush()
    assert not os.path.exists(tmp_path / "gone")


def test_marks_choose_pieces_without_reading_them(tmp_path: Path) -> None:
    writer = LogWriter(tmp_path, "exec-1", Clock())
    for number in range(10):
        writer.write(STDOUT, TASK if number % 2 else OTHER, f"{number}\n")
    writer.flush()
    lines, offset = read_lines(tmp_path, "exec-1", 0, 100, mark="task-2")
    assert [line.text for line in lines] == ["0", "2", "4", "6", "8"]
    assert offset == read_lines(tmp_path, "exec-1", 0, 100)[1]
