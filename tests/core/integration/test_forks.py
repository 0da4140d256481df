"""Tasks and actors that fork: the child ends with the user's code, and is no executor."""

from __future__ import annotations

import multiprocessing
import os
import sys

import pytest

import shoal


def status_of_child(child):
    """Fork, have the child call *child*, and return its exit status. The child comes back from here, too."""
    pid = os.fork()
    if pid == 0:
        return child()
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def fail():
    raise ValueError("in the child")


@shoal.remote
def fork(child):
    return status_of_child(child)


@shoal.remote
class Forker:
    def fork(self, child):
        return status_of_child(child)


@pytest.mark.parametrize(
    ("child", "status"),
    [
        (lambda: "a value", 0),
        (fail, 1),
        (lambda: sys.exit(5), 5),
        (lambda: sys.exit("why"), 1),
        (lambda: sys.exit(), 0),
    ],
    ids=["returns", "raises", "exits", "exits with text", "exits without"],
)
def test_a_child_that_comes_back_from_user_code_ends(embedded, child, status):
    assert shoal.get([fork.remote(child), Forker.remote().fork.remote(child)], timeout=30) == [status, status]


def test_a_child_has_no_part_in_the_cluster(embedded):
    def use():
        try:
            shoal.put(1)
        except shoal.errors.NotInitializedError as error:
            sys.exit(7 if "was forked by a task" in str(error) else 8)

    assert shoal.get(fork.remote(use), timeout=30) == 7


def test_what_a_child_prints_is_in_the_executors_log(embedded, wait_until):
    ref = fork.remote(lambda: print("from the child"))
    assert shoal.get(ref, timeout=30) == 0
    wait_until(lambda: "from the child" in [line.text for line in shoal.logs(ref)], "the line in the log")
    [line] = [line for line in shoal.logs(ref) if line.text == "from the child"]
    assert line.stream == "process"


def test_pools_of_processes_work_in_tasks(embedded):
    @shoal.remote
    def pool():
        with multiprocessing.get_context("fork").Pool(2) as workers:
            return workers.map(abs, [-1, -2])

    assert shoal.get(pool.remote(), timeout=30) == [1, 2]
