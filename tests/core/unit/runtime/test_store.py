"""The object store: one private file per value."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from shoal.runtime import store as stores
from shoal.runtime.serialization import Frame, dumps, loads
from shoal.runtime.store import Store, map_segment, read_range, segment_nbytes, split, unlink_quietly


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Store:
    monkeypatch.setenv("SHOAL_STORE_DIR", str(tmp_path))
    return Store.create("node-1", "tls://127.0.0.1:1")


def mode(path: str | Path) -> int:
    return stat.S_IMODE(os.stat(path).st_mode)


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
        unlink_quietly(path)


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


def test_a_value_outlives_its_file(store: Store) -> None:
    frames, _ = dumps(np.arange(1_000))
    path, sizes = store.write("owner.obj-1", frames)
    array = loads(map_segment(path, sizes))
    unlink_quietly(path)
    unlink_quietly(path)
    assert array.sum() == 499_500
    with pytest.raises(FileNotFoundError):
        map_segment(path, sizes)


def test_a_name_is_written_once(store: Store) -> None:
    path, sizes = store.write("owner.obj-1", [b"first"])
    with pytest.raises(FileExistsError):
        store.write("owner.obj-1", [b"second"])
    assert bytes(map_segment(path, sizes)[0]) == b"first"


def test_a_write_that_fails_leaves_nothing_behind(store: Store) -> None:
    with pytest.raises(TypeError):
        store.write("owner.obj-1", [b"first", 3])  # type: ignore[list-item]
    holes = memoryview(b"a.b.")[::2]
    with pytest.raises(TypeError):
        store.write("owner.obj-1", [holes])
    assert os.listdir(store.directory) == []


def test_an_owner_takes_its_segments_with_it(store: Store) -> None:
    for name in ("exec-1.obj-1", "exec-1.task-2", "exec-10.obj-1", "driver-1.obj-1"):
        store.write(name, [b"value"])
    store.remove_of("exec-1")
    assert sorted(os.listdir(store.directory)) == ["driver-1.obj-1", "exec-10.obj-1"]


def test_a_store_that_is_gone_is_no_trouble(store: Store) -> None:
    store.remove()
    store.remove()
    store.remove_of("exec-1")
    assert not store.reachable()
    with pytest.raises(FileNotFoundError):
        store.write("owner.obj-1", [b"value"])


def test_a_store_of_another_user_is_not_ours(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    user = os.getuid()
    monkeypatch.setattr(os, "getuid", lambda: user + 1)
    assert not store.reachable()


def test_parts_are_read_for_other_machines(store: Store) -> None:
    frames: list[Frame] = [b"a" * 100, b"b" * 50]
    path, sizes = store.write("owner.obj-1", frames)
    whole = b"".join(read_range(path, offset, 40) or b"" for offset in range(0, segment_nbytes(sizes), 40))
    assert [bytes(frame) for frame in split(memoryview(whole), sizes)] == frames
    assert read_range(path + "x", 0, 10) is None


def test_where_stores_live_can_be_chosen(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SHOAL_STORE_DIR", str(tmp_path))
    assert stores.default_root() == tmp_path
    monkeypatch.delenv("SHOAL_STORE_DIR")
    assert stores.default_root() != tmp_path
    assert os.access(stores.default_root(), os.W_OK)
