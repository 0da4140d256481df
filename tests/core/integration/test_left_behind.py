"""What a task changes in its process and leaves so: the next task there is not to suffer from it."""

from __future__ import annotations

import io
import os
import signal
import sys
import time
from collections.abc import Iterator

import pytest

import shoal


@pytest.fixture(scope="module", autouse=True)
def one_executor() -> Iterator[None]:
    """All tasks of this module run in one process, one after another."""
    with shoal.init(num_cpus=1):
        yield


@shoal.remote
def call(function, *args):
    return os.getpid(), function(*args)


def process() -> int:
    return shoal.get(call.remote(int), timeout=30)[0]


@pytest.mark.parametrize("stream", [None, io.StringIO], ids=["none", "its own"])
def test_output_belongs_to_the_task_again(stream, wait_until):
    def replace():
        sys.stdout = sys.stderr = stream and stream()

    changed, _ = shoal.get(call.remote(replace), timeout=30)
    ref = call.remote(print, "hello")
    assert shoal.get(ref, timeout=30)[0] == changed
    wait_until(lambda: [line.text for line in shoal.logs(ref)] == ["hello"], "the line in the log")


def test_a_task_can_be_cancelled_after_one_that_ignored_interrupts(tmp_path, wait_until):
    changed, _ = shoal.get(call.remote(lambda: signal.signal(signal.SIGINT, signal.SIG_IGN) and None), timeout=30)

    def stay():
        (tmp_path / "began").touch()
        time.sleep(60)

    ref = call.remote(stay)
    wait_until((tmp_path / "began").exists, "the beginning of the task")
    shoal.cancel(ref)
    with pytest.raises(shoal.errors.TaskCancelledError):
        shoal.get(ref, timeout=10)
    assert process() == changed, "it was interrupted, not killed"
