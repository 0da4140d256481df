"""The object store: one private file per value, within limits, whoever dies in the middle of what."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import signal
import stat
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from shoal.errors import ObjectStoreFullError
from shoal.runtime import store as stores
from shoal.runtime.serialization import Frame, dumps, loads
from shoal.runtime.store import (
    Limits,
    SegmentGone,
    Store,
    free_segment,
    is_here,
    is_segment_here,
    map_segment,
    map_whole,
    segment_nbytes,
    split,
)
from shoal.runtime.store.room import COPY_SUFFIX

KIB, MIB = 1 << 10, 1 << 20


@pytest.fixture
def make_store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[object]:
    """Return a function that makes a store of 32 MiB, or as asked."""
    monkeypatch.setenv("SHOAL_STORE_DIR", str(tmp_path))
    monkeypatch.setenv("SHOAL_SPILL_DIR", str(tmp_path))
    made = []

    def make(memory: int = 32 * MIB, disk: int = 1 << 30, patience: float = 0.2) -> Store:
        made.append(Store.create(f"node-{len(made)}", "tls://127.0.0.1:1", Limits(memory, disk, patience)))
        return made[-1]

    yield make
    for store in made:
        store.remove()
    assert not list(tmp_path.glob("shoal-*")), "a store leaves nothing"


@pytest.fixture
def store(make_store) -> Store:
    return make_store()


def mode(path: str | Path) -> int:
    return stat.S_IMODE(os.stat(path).st_mode)


def names(store: Store) -> list[str]:
    return sorted(found.name for found in store.segments())


def files(store: Store, place: str) -> list[str]:
    directory = os.path.join(store.directory, place)
    return sorted(os.listdir(directory)) if os.path.exists(directory) else []


def counted(store: Store) -> int:
    """Return the bytes of all files in memory, as the directory says."""
    return sum(
        os.path.getsize(os.path.join(store.directory, place, name))
        for place in ("objects", "drafts", "leaving", "warm")
        for name in files(store, place)
    )


def write(store: Store, name: str, nbytes: int, value: int = 1) -> tuple[str, tuple[int, ...]]:
    return store.write(name, [bytes([value]) * nbytes])


def read(segment: tuple[str, tuple[int, ...]]) -> bytes:
    return b"".join(bytes(frame) for frame in map_segment(*segment))


# -- one segment ---------------------------------------------------------------------------------------------------


def test_only_its_user_gets_in(store: Store) -> None:
    path, _ = store.write("owner.obj-1", [b"secret"])
    assert mode(store.directory) == 0o700
    assert mode(path) == 0o600
    assert store.reachable()


@pytest.mark.parametrize(
    "frames",
    [
        [b"pickle"],
        [b"pickle", b"x" * 63, b"y" * 64, b"z" * 65],
        [b"pickle", b"", b"tail"],
        [b""],
        [b"", b""],
        [b"head", bytes(range(256)) * (20 * MIB // 256), b"tail"],
    ],
)
def test_frames_come_back_and_are_aligned(store: Store, frames: list[Frame]) -> None:
    path, sizes = store.write("owner.obj-1", frames)
    back = map_segment(path, sizes)
    assert [bytes(frame) for frame in back] == frames
    assert sizes == tuple(len(frame) for frame in frames)
    assert os.path.getsize(path) == segment_nbytes(sizes)
    assert segment_nbytes(sizes) % 64 == 0


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(frames=st.lists(st.binary(max_size=300), min_size=1, max_size=5))
def test_any_frames_come_back(store: Store, frames: list[bytes]) -> None:
    path, sizes = store.write("owner.obj-1", list(frames))
    try:
        assert [bytes(frame) for frame in map_segment(path, sizes)] == frames
    finally:
        free_segment(path)


def test_a_write_changes_nobody_elses_copy(store: Store) -> None:
    frames, _ = dumps(np.zeros(100_000))
    path, sizes = store.write("owner.obj-1", frames)
    mine, theirs = loads(map_segment(path, sizes)), loads(map_segment(path, sizes))
    mine[:] = 7
    assert mine.flags.writeable
    assert not theirs.any()
    assert not loads(map_segment(path, sizes)).any()


def test_arrays_are_mapped_not_copied(store: Store) -> None:
    frames, _ = dumps(np.arange(100_000))
    path, sizes = store.write("owner.obj-1", frames)
    mapped = map_segment(path, sizes)
    array = loads(mapped)
    assert np.shares_memory(array, np.frombuffer(mapped[1], np.uint8))
    assert array.ctypes.data % 64 == 0


def test_a_name_is_written_once(store: Store) -> None:
    segment = store.write("owner.obj-1", [b"first"])
    with pytest.raises(FileExistsError):
        store.write("owner.obj-1", [b"second"])
    assert read(segment) == b"first"
    assert counted(store) == store.room.ledger.read() == 64


def test_a_write_that_fails_leaves_nothing_behind(store: Store) -> None:
    with pytest.raises(TypeError):
        store.write("owner.obj-1", [b"first", 3])  # type: ignore[list-item]
    holes = memoryview(b"a.b.")[::2]
    with pytest.raises(TypeError):
        store.write("owner.obj-1", [holes])
    assert names(store) == []
    assert counted(store) == store.room.ledger.read() == 0


def test_a_segment_is_passed_on_as_it_lies(store: Store) -> None:
    frames: list[Frame] = [b"a" * 100, b"b" * 50]
    path, sizes = store.write("owner.obj-1", frames)
    whole = map_whole(path)
    assert len(whole) == segment_nbytes(sizes) and whole.readonly
    assert [bytes(frame) for frame in split(whole, sizes)] == frames
    with pytest.raises(stores.SegmentGone):
        map_whole(path + "x")
    store.free("owner.obj-1")
    write(store, "owner.obj-2", 150)
    assert [bytes(frame) for frame in split(whole, sizes)] == frames, "as long as it is mapped"


def test_without_descriptors_left_a_value_is_copied(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    segment = write(store, "owner.obj-1", 200_000)

    def no_more(*args: object, **kwargs: object) -> None:
        raise OSError(errno.EMFILE, "Too many open files")

    monkeypatch.setattr(stores.segment.mmap, "mmap", no_more)
    assert read(segment) == b"\1" * 200_000


# -- freeing -------------------------------------------------------------------------------------------------------


def test_a_value_outlives_its_object_and_its_memory_goes_with_the_last_mapping(store: Store) -> None:
    frames, _ = dumps(np.arange(10_000))
    path, sizes = store.write("owner.obj-1", frames)
    array = loads(map_segment(path, sizes))
    free_segment(path)
    free_segment(path)
    assert array.sum() == 49_995_000
    with pytest.raises(SegmentGone, match="freed"):
        map_segment(path, sizes)
    assert files(store, "leaving") == ["owner.obj-1"]
    assert store.room.ledger.read() == segment_nbytes(sizes), "it still takes memory"
    store.tend()
    assert files(store, "leaving") == ["owner.obj-1"]
    del array
    store.tend()
    assert files(store, "leaving") == []


def test_freed_memory_is_used_again_but_never_while_somebody_maps_it(store: Store) -> None:
    first = write(store, "owner.obj-1", 8 * MIB, 1)
    inode = os.stat(first[0]).st_ino
    kept = map_segment(*first)
    free_segment(first[0])
    second = write(store, "owner.obj-2", 8 * MIB, 2)
    assert os.stat(second[0]).st_ino != inode
    assert bytes(kept[0][:10]) == b"\1" * 10
    del kept
    store.tend()
    third = write(store, "owner.obj-3", 8 * MIB, 3)
    assert os.stat(third[0]).st_ino == inode
    assert read(second) == b"\2" * 8 * MIB
    assert read(third) == b"\3" * 8 * MIB


@pytest.mark.parametrize("nbytes", [8 * MIB, 5 * MIB, 9 * MIB, 200 * KIB])
def test_a_warm_file_serves_other_sizes(store: Store, nbytes: int) -> None:
    first = write(store, "owner.obj-1", 8 * MIB, 1)
    free_segment(first[0])
    assert files(store, "warm") == ["owner.obj-1"]
    second = write(store, "owner.obj-2", nbytes, 2)
    assert read(second) == b"\2" * nbytes
    assert bool(files(store, "warm")) == (nbytes == 200 * KIB), "it would be a waste"
    assert counted(store) == store.room.ledger.read()


def test_a_reader_that_comes_too_late_sees_nothing_of_the_next_object(store: Store) -> None:
    """It has opened the file, under a name that is gone by the time it has the lock."""
    segment = write(store, "owner.obj-1", 8 * MIB, 1)
    early = os.open(segment[0], os.O_RDONLY)
    free_segment(segment[0])
    write(store, "owner.obj-2", 8 * MIB, 2)
    assert os.fstat(early).st_nlink == 1, "the file is used again"
    assert not stores.segment.is_named(early, segment[0])
    os.close(early)
    with pytest.raises(SegmentGone):
        map_segment(*segment)


def test_warm_memory_is_given_back_after_a_while_and_when_it_is_needed(make_store) -> None:
    store = make_store(memory=16 * MIB)
    for number in range(2):
        free_segment(write(store, f"owner.obj-{number}", 3 * MIB)[0])
    assert len(files(store, "warm")) == 1, "a quarter of the limit at most"
    segment = write(store, "owner.obj-2", 15 * MIB)
    assert files(store, "warm") == []
    free_segment(segment[0])
    small = write(store, "owner.obj-3", 3 * MIB)
    free_segment(small[0])
    (warm,) = files(store, "warm")
    os.utime(os.path.join(store.directory, "warm", warm), (0, time.time() - 11))
    store.tend()
    assert files(store, "warm") == []
    assert store.room.ledger.read() == 0


def test_an_owner_takes_its_segments_with_it(store: Store) -> None:
    for name in ("exec-1.obj-1", "exec-1.task-2", "exec-10.obj-1", "driver-1.obj-1"):
        store.write(name, [b"value"])
    store.free_of("exec-1")
    assert names(store) == ["driver-1.obj-1", "exec-10.obj-1"]


def test_a_store_that_is_gone_is_no_trouble(store: Store) -> None:
    path, sizes = store.write("owner.obj-1", [b"value"])
    store.remove()
    store.remove()
    store.free_of("exec-1")
    store.free("owner.obj-1")
    free_segment(path)
    store.tend()
    assert not store.reachable()
    assert not is_here(path)
    with pytest.raises(SegmentGone):
        map_segment(path, sizes)
    with pytest.raises(FileNotFoundError):
        store.write("owner.obj-1", [b"value"])


def test_a_store_of_another_user_is_not_ours(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    user = os.getuid()
    monkeypatch.setattr(os, "getuid", lambda: user + 1)
    assert not store.reachable()
    monkeypatch.undo()


# -- limits --------------------------------------------------------------------------------------------------------


def test_what_does_not_fit_goes_to_disk_longest_unused_first_and_is_read_from_there(make_store) -> None:
    store = make_store(memory=10 * MIB)
    segments = []
    for number in range(3):
        segments.append(write(store, f"owner.obj-{number}", 3 * MIB, number))
        time.sleep(0.02)  # a file system's clock may be coarse
    read(segments[0])  # used again: the second has now been unused for longest
    segments.append(write(store, "owner.obj-3", 3 * MIB, 3))
    assert files(store, "spilled") == ["owner.obj-1"]
    assert store.room.usage() == (9 * MIB, 3 * MIB)
    for number, segment in enumerate(segments):
        assert read(segment) == bytes([number]) * 3 * MIB
    assert is_segment_here(segments[1][0])
    for path, _ in segments:
        free_segment(path)
    assert names(store) == []
    assert store.room.usage()[1] == 0


def test_what_is_mapped_stays_in_memory(make_store) -> None:
    store = make_store(memory=10 * MIB)
    first, second = (write(store, f"owner.obj-{number}", 4 * MIB, number) for number in range(2))
    kept = map_segment(*first)
    write(store, "owner.obj-2", 4 * MIB)
    assert files(store, "spilled") == ["owner.obj-1"]
    assert read(second) == b"\1" * 4 * MIB
    assert bytes(kept[0][-5:]) == bytes(5)


def test_a_full_store_waits_then_says_who_fills_it(make_store) -> None:
    store = make_store(memory=10 * MIB)
    segments = [write(store, f"owner.obj-{number}", size * MIB) for number, size in enumerate((2, 6))]
    kept = [map_segment(*segment) for segment in segments]
    begin = time.monotonic()
    with pytest.raises(ObjectStoreFullError, match=r"no room for 4.0 MiB.*8.0 MiB of 10.0 MiB.*mapped") as caught:
        write(store, "owner.obj-9", 4 * MIB)
    assert time.monotonic() - begin >= 0.2
    assert caught.value.holders == (("owner.obj-1", 6 * MIB, True), ("owner.obj-0", 2 * MIB, True))
    assert caught.value.needed == 4 * MIB
    assert isinstance(caught.value, MemoryError)
    assert counted(store) == store.room.ledger.read() == 8 * MIB
    del kept


def test_a_full_store_waits_for_what_is_about_to_be_freed(make_store) -> None:
    store = make_store(memory=10 * MIB, patience=10)
    segment = write(store, "owner.obj-1", 8 * MIB)
    kept = [map_segment(*segment)]
    timer = threading.Timer(0.3, kept.clear)
    timer.start()
    begin = time.monotonic()
    write(store, "owner.obj-2", 8 * MIB)
    assert 0.2 < time.monotonic() - begin < 5
    timer.join()


def test_a_value_larger_than_the_store_is_refused_at_once(make_store) -> None:
    store = make_store(memory=10 * MIB, patience=60)
    with pytest.raises(ObjectStoreFullError, match=r"11.0 MiB is larger than the whole object store.*10.0 MiB"):
        write(store, "owner.obj-1", 11 * MIB)


def test_the_disk_budget_is_kept(make_store) -> None:
    store = make_store(memory=10 * MIB, disk=4 * MIB)
    for number in range(3):
        write(store, f"owner.obj-{number}", 4 * MIB)
    with pytest.raises(ObjectStoreFullError, match=r"the 4.0 MiB that it may use on disk are full"):
        write(store, "owner.obj-9", 4 * MIB)
    assert store.room.usage() == (8 * MIB, 4 * MIB)


def test_copies_of_other_nodes_go_first_and_not_to_disk(make_store) -> None:
    store = make_store(memory=10 * MIB)
    first = write(store, "owner.obj-1", 4 * MIB)
    write(store, "owner.obj-2" + COPY_SUFFIX, 4 * MIB)
    write(store, "owner.obj-3", 4 * MIB)
    assert files(store, "spilled") == []
    assert names(store) == ["owner.obj-1", "owner.obj-3"]
    assert read(first) == b"\1" * 4 * MIB


def test_room_is_made_in_the_background_before_it_is_needed(make_store) -> None:
    store = make_store(memory=10 * MIB)
    for number in range(9):
        write(store, f"owner.obj-{number}", MIB)
        time.sleep(0.02)
    assert files(store, "spilled") == []
    store.tend()
    assert files(store, "spilled") == ["owner.obj-0", "owner.obj-1"]
    assert store.room.ledger.read() == 7 * MIB


def test_a_million_bytes_in_tiny_pieces(store: Store) -> None:
    for number in range(1_000):
        write(store, f"owner.obj-{number}", 1_000)
    assert counted(store) == store.room.ledger.read() == 1_000 * 1_024
    store.free_of("owner")
    assert store.room.ledger.read() == 0


# -- faults --------------------------------------------------------------------------------------------------------


def test_a_torn_file_on_disk_is_a_lost_object(make_store) -> None:
    store = make_store(memory=10 * MIB)
    first = write(store, "owner.obj-1", 6 * MIB)
    write(store, "owner.obj-2", 6 * MIB)
    spilled = os.path.join(store.directory, "spilled", "owner.obj-1")
    os.truncate(spilled, 3 * MIB)
    with pytest.raises(SegmentGone, match=r"owner.obj-1.*damaged"):
        map_segment(*first)


@pytest.fixture
def tiny_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 6 MiB."""
    place = tmp_path / "tiny"
    place.mkdir()
    if os.getuid() or subprocess.run(["mount", "-t", "tmpfs", "-o", "size=6m", "tmpfs", place]).returncode:
        pytest.skip("only root can mount a file system with a quota")
    yield place
    subprocess.run(["umount", "--lazy", place], check=True)


def test_a_full_disk(make_store, tiny_disk: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing that was in memory is lost, and nothing half written stays."""
    monkeypatch.setenv("SHOAL_SPILL_DIR", str(tiny_disk))
    store = make_store(memory=10 * MIB)
    segments = [write(store, f"owner.obj-{number}", 4 * MIB, number) for number in range(3)]
    with pytest.raises(ObjectStoreFullError, match=r"cannot be written to: No space left on device"):
        write(store, "owner.obj-9", 4 * MIB)
    assert files(store, "spilled") == ["owner.obj-0"]
    for number, segment in enumerate(segments):
        assert read(segment) == bytes([number]) * 4 * MIB
    assert counted(store) == store.room.ledger.read()
    store.remove()


def test_shared_memory_smaller_than_the_limit(make_store, tiny_disk: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As in a container: what does not fit is noticed without a crash, and goes to disk."""
    monkeypatch.setenv("SHOAL_STORE_DIR", str(tiny_disk))
    store = make_store(memory=32 * MIB)
    segments = [write(store, f"owner.obj-{number}", 4 * MIB, number) for number in range(3)]
    segments.append(write(store, "owner.obj-small", 3 * MIB, 7))
    for number, segment in zip((0, 1, 2, 7), segments, strict=True):
        assert set(read(segment)) == {number}
    with pytest.raises(ObjectStoreFullError, match="no room"):
        write(store, "owner.obj-9", 7 * MIB)
    assert counted(store) == store.room.ledger.read()
    store.remove()


def test_a_disk_that_cannot_be_written_to(make_store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("not a directory")
    monkeypatch.setenv("SHOAL_SPILL_DIR", str(tmp_path / "file"))
    store = make_store(memory=10 * MIB)
    first = write(store, "owner.obj-1", 6 * MIB)
    with pytest.raises(ObjectStoreFullError, match=r"cannot be written to: Not a directory"):
        write(store, "owner.obj-2", 6 * MIB)
    assert read(first) == b"\1" * 6 * MIB


CHILD = """
import os, signal, sys
from shoal.runtime import store as stores
from shoal.runtime.store import room
store = stores.Store(sys.argv[1], "")
def die(*args): os.kill(os.getpid(), signal.SIGKILL)
{patch}
store.write("child.obj-1", [b"x" * (5 << 20)])
"""


@pytest.mark.parametrize(
    "patch",
    [
        pytest.param("room.Draft.fill = die", id="while it writes"),
        pytest.param("room.Draft.publish = die", id="before it says so"),
        pytest.param("room.copy_to_disk = die", id="while it moves another to disk"),
        pytest.param("os.ftruncate = die", id="with the ledger locked"),
    ],
)
def test_a_process_that_is_killed(make_store, patch: str) -> None:
    """Its locks go with it; what it has left is taken away, and the count is right again."""
    store = make_store(memory=10 * MIB)
    first = write(store, "owner.obj-1", 6 * MIB)
    if "Draft" in patch:
        free_segment(first[0])
    child = subprocess.run([sys.executable, "-c", CHILD.format(patch=patch), store.directory], timeout=60)
    assert child.returncode == -signal.SIGKILL
    for name in files(store, "drafts"):
        os.utime(os.path.join(store.directory, "drafts", name), (0, time.time() - 11))
    store.tend()
    assert files(store, "drafts") == []
    assert counted(store) == store.room.ledger.read()
    second = write(store, "owner.obj-2", 9 * MIB)
    if "Draft" not in patch:
        assert read(first) == b"\1" * 6 * MIB
    assert read(second) == b"\1" * 9 * MIB
    assert not [name for name in files(store, "spilled") if name.endswith(".draft")]


def test_a_draft_whose_writer_lives_is_left_alone(make_store) -> None:
    store = make_store()
    draft = store.room.take(MIB, time.monotonic() + 1)
    (name,) = files(store, "drafts")
    os.utime(os.path.join(store.directory, "drafts", name), (0, 0))
    store.tend()
    assert files(store, "drafts") == [name]
    draft.discard()
    assert files(store, "drafts") == []


def test_a_ledger_that_somebody_holds_is_not_waited_for_for_ever(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stores.ledger, "TIMEOUT", 0.2)
    with open(os.path.join(store.directory, "ledger"), "rb") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        with pytest.raises(TimeoutError, match="locked by another process"):
            write(store, "owner.obj-1", MIB)
    write(store, "owner.obj-1", MIB)


WORKER = """
import random, sys, time
from shoal.runtime.store import SegmentGone, Store, free_segment, map_segment
store, me, end = Store(sys.argv[1], ""), sys.argv[2], time.monotonic() + float(sys.argv[3])
chance, mine, rounds = random.Random(int(me)), {}, 0
while time.monotonic() < end:
    rounds += 1
    name, value = f"w{me}.{rounds}", rounds % 256
    mine[name] = value, store.write(name, [bytes([value]) * chance.randrange(1, 3 << 20)])
    if mine and chance.random() < 0.7:
        name = chance.choice(sorted(mine))
        value, segment = mine[name]
        (frame,) = map_segment(*segment)
        assert frame[0] == frame[-1] == frame[len(frame) // 2] == value, (name, value, frame[0], frame[-1])
        if chance.random() < 0.3:
            frame[0] = (value + 1) % 256
    if len(mine) > 4 or chance.random() < 0.4:
        name = chance.choice(sorted(mine))
        value, segment = mine.pop(name)
        free_segment(segment[0])
for value, segment in mine.values():
    free_segment(segment[0])
print(rounds)
"""


def test_many_processes_at_once(make_store) -> None:
    """Writing, reading, freeing and moving to disk, with one of them killed: every value read is right."""
    store = make_store(memory=12 * MIB, patience=30)
    workers = [
        subprocess.Popen(
            [sys.executable, "-c", WORKER, store.directory, str(number), "3"], stdout=subprocess.PIPE, text=True
        )
        for number in range(4)
    ]
    time.sleep(1.5)
    workers[0].kill()
    end = time.monotonic() + 30
    while any(worker.poll() is None for worker in workers) and time.monotonic() < end:
        store.tend()
        time.sleep(0.05)
    rounds = [int(worker.communicate(timeout=1)[0] or 0) for worker in workers]
    assert [worker.returncode for worker in workers] == [-signal.SIGKILL, 0, 0, 0]
    assert min(rounds[1:]) > 20
    store.free_of("w0")
    for name in files(store, "drafts"):
        os.utime(os.path.join(store.directory, "drafts", name), (0, 0))
    store.tend()
    assert names(store) == files(store, "leaving") == files(store, "drafts") == []
    assert counted(store) == store.room.ledger.read()


# -- where stores are ----------------------------------------------------------------------------------------------


def test_limits_are_a_share_of_the_nodes_memory_and_never_more_than_there_is(tiny_disk, monkeypatch) -> None:
    assert stores.default_limits(10 * MIB).memory == 3 * MIB
    monkeypatch.setenv("SHOAL_STORE_DIR", str(tiny_disk))
    assert stores.default_limits(1 << 40).memory <= 6 * MIB * 0.9
    monkeypatch.setenv("SHOAL_SPILL_DIR", str(tiny_disk))
    assert stores.default_limits(1 << 40).disk <= 3 * MIB


def test_a_store_can_be_removed_while_others_use_it(make_store) -> None:
    store = make_store()
    segment = write(store, "owner.obj-1", 5 * MIB)
    kept = map_segment(*segment)
    store.remove()
    assert bytes(kept[0][:3]) == b"\1\1\1"
    with contextlib.suppress(OSError):
        store.room.tend()


def test_room_for_one_is_made_of_many_without_looking_at_all_for_each(make_store, monkeypatch) -> None:
    store = make_store(memory=20 * MIB)
    segments = [write(store, f"owner.obj-{number}", 100_000) for number in range(150)]
    looks = []
    files = type(store.room)._files
    monkeypatch.setattr(type(store.room), "_files", lambda room, place: looks.append(place) or files(room, place))
    large = write(store, "owner.obj-large", 15 * MIB)
    assert len(looks) < 20
    assert read(large) == b"\1" * 15 * MIB
    assert all(read(segment) == b"\1" * 100_000 for segment in segments)
    assert len(files(store.room, "spilled")) >= 90
