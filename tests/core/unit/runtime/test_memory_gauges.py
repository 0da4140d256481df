"""Whose memory counts: containers of both versions of control groups, cache or not."""

from __future__ import annotations

from pathlib import Path

import pytest

from shoal.machines.memory_watch import THRESHOLD
from shoal.runtime.environment import NodeSettings
from shoal.runtime.memory_gauges import CONTAINER, MACHINE, Gauges
from shoal.runtime.memory_watch import MemorySettings, memory_settings

MIB = 1 << 20
UNLIMITED_V1 = str((1 << 63) - 4096)


def write(root: Path, files: dict[str, str]) -> None:
    for name, text in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)


def gauges(root: Path, machine: tuple[int, int] = (1000 * MIB, 100 * MIB)) -> list[tuple[str, int, int]]:
    read = Gauges(root, lambda: machine).read(THRESHOLD)
    return [(gauge.what, gauge.limit // MIB, gauge.used // MIB) for gauge in read]


def group(version: int, limit: str, used: int, cache: int = 0) -> dict[str, str]:
    if version == 1:
        return {
            "memory.limit_in_bytes": limit,
            "memory.usage_in_bytes": str(used),
            "memory.stat": f"cache 7\ntotal_inactive_file {cache - MIB}\ntotal_active_file {MIB}\n",
        }
    return {
        "memory.max": limit,
        "memory.current": str(used),
        "memory.stat": f"anon 7\ninactive_file {cache - MIB}\nactive_file {MIB}\nfile 9\n",
    }


def at(directory: str, files: dict[str, str]) -> dict[str, str]:
    return {f"{directory}/{name}": text for name, text in files.items()}


def test_without_control_groups_the_machine_is_all_there_is(tmp_path):
    assert gauges(tmp_path) == [(MACHINE, 1000, 100)]


@pytest.mark.parametrize(
    ("version", "where", "line"),
    [(1, "sys/fs/cgroup/memory/box", "7:cpu,memory:/box"), (2, "sys/fs/cgroup/box", "0::/box")],
)
def test_a_container_counts_without_its_cache_once_that_matters(tmp_path, version, where, line):
    write(tmp_path, {"proc/self/cgroup": f"9:freezer:/\n{line}\n"})
    write(tmp_path, at(where, group(version, str(400 * MIB), 200 * MIB, 50 * MIB)))
    assert gauges(tmp_path)[1:] == [(CONTAINER, 400, 200)]
    write(tmp_path, at(where, group(version, str(400 * MIB), 390 * MIB, 50 * MIB)))
    assert gauges(tmp_path)[1:] == [(CONTAINER, 400, 340)]


def test_groups_around_it_count_if_they_have_a_limit(tmp_path):
    base = "sys/fs/cgroup"
    write(tmp_path, {"proc/self/cgroup": "0::/user/box\n"})
    write(tmp_path, at(f"{base}/user/box", group(2, "max", 10 * MIB)))
    write(tmp_path, at(f"{base}/user", group(2, str(300 * MIB), 150 * MIB)))
    assert gauges(tmp_path)[1:] == [(CONTAINER, 300, 150)]


def test_no_limit_and_one_beyond_the_machine_are_none(tmp_path):
    write(tmp_path, {"proc/self/cgroup": "4:memory:/a/b\n"})
    write(tmp_path, at("sys/fs/cgroup/memory/a/b", group(1, UNLIMITED_V1, 10 * MIB)))
    write(tmp_path, at("sys/fs/cgroup/memory/a", group(1, str(2000 * MIB), 10 * MIB)))
    assert gauges(tmp_path)[1:] == []


@pytest.mark.parametrize("path", ["/outside/of/this", "/../../outside"])
def test_inside_a_container_its_own_group_looks_like_the_root(tmp_path, path):
    write(tmp_path, {"proc/self/cgroup": f"0::{path}\n"})
    write(tmp_path, at("sys/fs/cgroup", group(2, str(256 * MIB), 100 * MIB)))
    assert gauges(tmp_path)[1:] == [(CONTAINER, 256, 100)]


def test_a_group_that_goes_away_is_not_missed(tmp_path):
    write(tmp_path, {"proc/self/cgroup": "0::/box\n"})
    write(tmp_path, at("sys/fs/cgroup/box", group(2, str(400 * MIB), 200 * MIB)))
    both = Gauges(tmp_path, lambda: (1000 * MIB, 0))
    assert len(both.read(THRESHOLD)) == 2
    (tmp_path / "sys/fs/cgroup/box/memory.current").unlink()
    assert len(both.read(THRESHOLD)) == 1


def test_this_machine_has_memory_and_some_of_it_is_used():
    machine = Gauges().read(THRESHOLD)[0]
    assert 0 < machine.used < machine.limit


# -- settings ----------------------------------------------------------------------------------------------------


def test_the_environment_has_the_last_word():
    of_worker = "the memory that the node's Dask worker may use"
    assert memory_settings(0, NodeSettings()) == MemorySettings(THRESHOLD, 0, of_worker)
    assert memory_settings(7, NodeSettings()).share == 7
    assert memory_settings(7, NodeSettings(memory_limit=1_000)).share == 1_000
    assert memory_settings(7, NodeSettings(memory_limit=0)).share == 0
    assert memory_settings(0, NodeSettings(memory_threshold=0.5)).threshold == 0.5


@pytest.mark.parametrize("off", [0.0, 1.0])
def test_a_threshold_that_is_no_share_turns_it_off(off):
    assert not memory_settings(0, NodeSettings(memory_threshold=off)).is_on
