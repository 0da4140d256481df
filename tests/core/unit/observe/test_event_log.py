"""The log on disk: what is written can be read, whatever happens to disk and process."""

from __future__ import annotations

import errno
import os
import stat
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shoal.observe import event_log
from shoal.observe.event_log import (
    EVENTS,
    EXECUTORS,
    FILES,
    LOCK,
    RECORDS,
    SNAPSHOT,
    EventLog,
    is_written,
    logs_in,
    make_frame,
    remove_old_logs,
)
from shoal.observe.logged import list_logs, read_log

ABOUT = {"id": "cluster-ab12", "name": "mine", "address": "tcp://x", "started": 100.0, "shoal": "1.0"}


def snapshot(records: int = 0, **tables: Any) -> dict[str, Any]:
    empty: dict[str, Any] = {"nodes": [], "actors": [], "groups": [], "owners": [], "events": [], "history": []}
    return {"records": records, **empty, **tables}


class Scene:
    """A log in a directory of its own, and the troubles that were told."""

    def __init__(self, root: Path, name: str = "cluster-ab12", **options: Any) -> None:
        self.directory = root / name
        self.troubles: list[str] = []
        self.log = EventLog(self.directory, {**ABOUT, "id": name}, self.troubles.append, **options)


def write(root: Path, *frames: tuple[int, Any], name: str = "cluster-ab12", **options: Any) -> Scene:
    scene = Scene(root, name, **options)
    for kind, content in frames:
        scene.log.append(kind, content)
    scene.log.close(20.0)
    return scene


def test_what_was_written_is_read(tmp_path: Path) -> None:
    scene = write(
        tmp_path,
        (EXECUTORS, {"exec-1": "node-1"}),
        (SNAPSHOT, snapshot(nodes=[{"id": "node-1", "state": "alive"}], history=[{"time": 1.0}])),
        (EVENTS, [{"number": 1, "text": "a node \udcff joined"}]),
        (RECORDS, ("driver-1", 3, b"packed")),
        (SNAPSHOT, snapshot(records=3, history=[{"time": 2.0}])),
        (EVENTS, [{"number": 2, "text": "it left"}]),
    )
    found = read_log(scene.directory)
    assert (found.id, found.name, found.shoal, found.started) == ("cluster-ab12", "mine", "1.0", 100.0)
    assert (found.in_order, found.running, found.num_tasks) == (True, False, 3)
    assert [tuple(batch) for batch in found.batches] == [("driver-1", 3, b"packed")]
    assert found.executors == {"exec-1": "node-1"}
    assert [event["text"] for event in found.snapshot["events"]] == ["a node \udcff joined", "it left"]
    assert [point["time"] for point in found.snapshot["history"]] == [1.0, 2.0]
    assert found.snapshot["nodes"] == [{"id": "node-1", "state": "left"}], "what has gone is remembered"
    assert scene.troubles == []


def test_only_the_user_may_read_it(tmp_path: Path) -> None:
    scene = write(tmp_path / "logs", (SNAPSHOT, snapshot()))
    assert stat.S_IMODE(scene.directory.stat().st_mode) == stat.S_IMODE(scene.directory.parent.stat().st_mode) == 0o700
    assert {stat.S_IMODE(file.stat().st_mode) for file in scene.directory.iterdir()} == {0o600}


def test_a_log_is_bounded_and_holds_the_newest(tmp_path: Path) -> None:
    frames: list[tuple[int, Any]] = [(SNAPSHOT, snapshot(nodes=[{"id": "node-1"}])), (EXECUTORS, {"exec-1": "node-1"})]
    frames += [(RECORDS, ("driver-1", 1, os.urandom(1_000))) for _ in range(200)]
    scene = write(tmp_path, *frames, (EVENTS, [{"number": 7}]), max_nbytes=40_000)
    files = [scene.directory / name for name in FILES]
    assert sum(file.stat().st_size for file in files) <= 40_000
    found = read_log(scene.directory)
    assert 10 <= len(found.batches) < 40
    assert [batch.packed for batch in found.batches] == [
        content[2] for kind, content in frames[-len(found.batches) :] if kind == RECORDS
    ]
    assert found.snapshot["nodes"] and found.executors == {"exec-1": "node-1"}, "taken over from file to file"
    os.remove(files[1])
    assert read_log(scene.directory).snapshot["nodes"], "either file can be read alone"


def test_a_frame_larger_than_a_file_is_no_harm(tmp_path: Path) -> None:
    scene = write(
        tmp_path, (SNAPSHOT, snapshot()), (RECORDS, ("d", 1, os.urandom(50_000))), (RECORDS, ("d", 1, b"x")),
        max_nbytes=20_000,
    )  # fmt: skip
    assert read_log(scene.directory).batches[-1].packed == b"x" and not scene.troubles


@given(cut=st.integers(0, 1_200), damage=st.integers(0, 2_400))
def test_a_torn_or_damaged_end_costs_no_more_than_itself(cut: int, damage: int, tmp_path_factory: Any) -> None:
    directory = tmp_path_factory.mktemp("log")
    frames = [make_frame(event_log.ABOUT, {**ABOUT, "file": 1}, 1.0), make_frame(SNAPSHOT, snapshot(), 2.0)]
    frames += [make_frame(RECORDS, ("d", 1, bytes(number)), 3.0 + number) for number in range(20)]
    data = bytearray(b"".join(frames))
    del data[cut:]
    if damage < len(data):
        data[damage] ^= 0x55
    (directory / FILES[0]).write_bytes(bytes(data))
    ends = [sum(map(len, frames[: number + 1])) for number in range(len(frames))]
    whole = sum(end <= min(cut, damage if damage < cut else cut) for end in ends)
    if whole == 0:
        with pytest.raises(ValueError, match=r"no log of a cluster|version"):
            read_log(directory)
    else:
        found = read_log(directory)
        assert len(found.batches) == max(0, whole - 2) and found.ended == (3.0 + whole - 3 if whole > 2 else whole)


def test_a_log_of_another_version_says_so(tmp_path: Path) -> None:
    frame = bytearray(make_frame(event_log.ABOUT, {**ABOUT, "file": 1}, 1.0))
    frame[4] = 9
    (tmp_path / FILES[0]).write_bytes(bytes(frame))
    with pytest.raises(ValueError, match="version 9"):
        read_log(tmp_path)
    with pytest.raises(FileNotFoundError):
        read_log(tmp_path / "nowhere")


def test_a_disk_that_cannot_be_written_to_is_told_once(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("no directory")
    scene = write(tmp_path / "file", *[(RECORDS, ("d", 1, b"x"))] * 3)
    assert len(scene.troubles) == 1 and "incomplete" in scene.troubles[0] and str(scene.directory) in scene.troubles[0]


def test_a_full_disk_costs_frames_and_not_the_log(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The operating system writes half of a frame, then says that the disk is full, then has room again."""
    write_there = os.write
    full: list[bool] = []

    def write(descriptor: int, data: Any) -> int:
        if full and os.path.basename(os.readlink(f"/proc/self/fd/{descriptor}")) in FILES:
            if not full.pop():
                raise OSError(errno.ENOSPC, "No space left on device")
            return write_there(descriptor, data[: len(data) // 2])
        return write_there(descriptor, data)

    monkeypatch.setattr(os, "write", write)
    monkeypatch.setattr(event_log, "INTERVAL", 0.0)
    scene = Scene(tmp_path)
    scene.log.append(SNAPSHOT, snapshot())
    scene.log.append(RECORDS, ("d", 1, b"before"))
    wait_for(lambda: (scene.directory / FILES[1]).exists() and len(read_log(scene.directory).batches) == 1)
    full[:] = [False, True]  # taken from the end
    scene.log.append(RECORDS, ("d", 1, b"lost"))
    wait_for(lambda: scene.troubles)
    scene.log.append(RECORDS, ("d", 1, b"after"))
    scene.log.close(20.0)
    assert [batch.packed for batch in read_log(scene.directory).batches] == [b"before", b"after"]
    assert len(scene.troubles) == 1 and "No space left" in scene.troubles[0]


def wait_for(condition: Any) -> None:
    import time

    deadline = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.005)


def test_whoever_appends_is_not_held_up_by_a_slow_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(event_log, "MAX_WAITING_NBYTES", 10_000)
    monkeypatch.setattr(event_log, "INTERVAL", 3600.0)  # nothing is written before the end
    scene = Scene(tmp_path)
    for number in range(100):
        scene.log.append(RECORDS, ("d", 1, bytes([number]) * 1_000))
    assert scene.log.num_dropped == 90 and len(scene.troubles) == 1 and "too slow" in scene.troubles[0]
    scene.log.close(20.0)
    scene.log.close(20.0)
    assert len(read_log(scene.directory).batches) == 10


def test_what_a_killed_process_leaves_is_read(tmp_path: Path) -> None:
    code = f"""
import os, signal, sys
from pathlib import Path
from shoal.observe import event_log
event_log.INTERVAL = 0.0
log = event_log.EventLog(Path({str(tmp_path / "cluster-1")!r}), {ABOUT!r}, print)
log.append(event_log.SNAPSHOT, {snapshot(records=1)!r})
log.append(event_log.RECORDS, ("d", 1, b"x"))
print("written", flush=True)
sys.stdin.read()
"""
    process = subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert process.stdin is not None and process.stdout is not None
    try:
        assert process.stdout.readline() == b"written\n"
        directory = tmp_path / "cluster-1"
        wait_for(lambda: any((directory / name).exists() for name in FILES) and is_written(directory))
        wait_for(lambda: readable(directory) and len(read_log(directory).batches) == 1)
        assert read_log(directory).running
    finally:
        process.kill()
        process.wait()
        process.stdin.close()
        process.stdout.close()
    found = read_log(directory)
    assert (found.running, found.in_order, len(found.batches)) == (False, False, 1)


def readable(directory: Path) -> bool:
    try:
        return bool(read_log(directory).snapshot)
    except (OSError, ValueError):
        return False


def test_the_newest_logs_are_kept_and_nothing_else_is_touched(tmp_path: Path) -> None:
    for number in range(5):
        scene = write(tmp_path, (SNAPSHOT, snapshot()), name=f"cluster-{number}")
        for name in FILES:
            if (scene.directory / name).exists():
                os.utime(scene.directory / name, (1_000 + number, 1_000 + number))
    (tmp_path / "cluster-0" / "notes.txt").write_text("the user's")
    (tmp_path / "thesis").mkdir()
    (tmp_path / "thesis" / "log").write_text("the user's")
    (tmp_path / "link").symlink_to(tmp_path / "cluster-1")
    running = Scene(tmp_path, "cluster-old")
    running.log.append(SNAPSHOT, snapshot())
    wait_for(lambda: is_written(running.directory) and readable(running.directory))
    for name in FILES:
        if (running.directory / name).exists():
            os.utime(running.directory / name, (1, 1))
    remove_old_logs(tmp_path, keep=2)
    assert [directory.name for directory in logs_in(tmp_path)] == ["cluster-4", "cluster-3", "cluster-old"]
    assert [file.name for file in (tmp_path / "cluster-0").iterdir()] == ["notes.txt"]
    assert (tmp_path / "thesis" / "log").exists() and not (tmp_path / "cluster-1").exists()
    running.log.close(20.0)
    assert [log.id for _, log in list_logs(tmp_path)][-1] in ("cluster-old", "cluster-3")
    assert logs_in(tmp_path / "nowhere") == [] and LOCK not in FILES
