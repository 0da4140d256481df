"""What a process uses by itself: with its children, without what it shares."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator

import pytest

from shoal.runtime.process_memory import find_groups, private_memory, roughly

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="what is shared is known on Linux only")

MIB = 1 << 20
NBYTES = 50 * MIB

ALONE = f"kept = b'x' * {NBYTES}"
FORKS = f"import os, time; kept = b'x' * {NBYTES}; os.fork() or time.sleep(60)"  # only the parent goes on
STARTS = f"""
import subprocess, sys
child = subprocess.Popen([sys.executable, "-c", "kept = b'x' * {NBYTES}; input()"])
"""
MAPS = """
import mmap, sys
file = open(sys.argv[1], "r+")
kept = mmap.mmap(file.fileno(), 0, mmap.MAP_PRIVATE)
sum(kept[::4096])
"""


@pytest.fixture
def start() -> Iterator[object]:
    """A function that starts Python code, at the head of a process group, and waits until it has run."""
    running = []

    def run(code: str, *arguments: str) -> int:
        process = subprocess.Popen(
            [sys.executable, "-c", f"{code}\nprint('ready', flush=True)\ninput()", *arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            start_new_session=True,
        )
        running.append(process)
        assert process.stdout is not None and process.stdout.readline() == b"ready\n"
        return process.pid

    yield run
    for process in running:
        os.killpg(process.pid, 9)
        process.communicate(timeout=10)


def used(pid: int) -> int:
    return private_memory(find_groups([pid]))[pid]


def test_its_own(start):
    empty, full = start("pass"), start(ALONE)
    assert NBYTES <= used(full) - used(empty) + MIB < NBYTES + 10 * MIB


def test_what_a_fork_shares_counts_once(start):
    pid = start(FORKS)
    groups = find_groups([pid])
    assert len(groups[pid]) == 2 and groups[pid][0] == pid
    assert NBYTES < private_memory(groups)[pid] < NBYTES + 30 * MIB
    assert roughly(groups) > 2 * NBYTES


def test_what_it_has_started_counts_as_its(start):
    pid = start(STARTS)
    deadline = time.monotonic() + 10
    while used(pid) < NBYTES:
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_files_and_shared_memory_do_not(start):
    with tempfile.NamedTemporaryFile(dir="/dev/shm") as file:
        file.write(b"x" * NBYTES)
        file.flush()
        pid = start(MAPS, file.name)
        assert used(pid) < 20 * MIB and roughly(find_groups([pid])) < 20 * MIB


def test_one_that_has_gone_uses_nothing():
    process = subprocess.Popen(["true"])
    process.wait()
    assert used(process.pid) == 0 and roughly(find_groups([process.pid])) == 0
