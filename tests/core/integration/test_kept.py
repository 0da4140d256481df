"""What actors write down at the controller; callbacks on refs; the life of a process as a ref."""

from __future__ import annotations

import os
import queue
import signal

import pytest

import shoal
from shoal.api.kept import find_kept, keep
from shoal.runtime import session as current


def test_an_actor_that_comes_back_finds_what_it_kept(cluster):
    @shoal.remote(max_restarts=1)
    class Notes:
        def __init__(self):
            self.found = find_kept("notes")

        def write(self, value):
            keep("notes", value)
            return os.getpid()

        def read(self):
            return self.found

    notes = Notes.options(max_task_retries=1).remote()
    pid = shoal.get(notes.write.remote(b"remember"), 30)
    assert find_kept("notes") == b"remember"
    with pytest.raises(shoal.errors.OptionError, match="no bytes"):
        keep("notes", "text")
    if cluster.kind == "embedded":
        os.kill(pid, signal.SIGKILL)
        assert shoal.get(notes.read.remote(), 30) == b"remember"
    keep("notes", b"")


def test_a_callback_is_called_once_with_values_and_with_errors(cluster):
    @shoal.remote
    def fails():
        raise ValueError

    done: queue.SimpleQueue[shoal.ObjectRef] = queue.SimpleQueue()
    ref, failed = shoal.put(1), fails.remote()
    ref.add_done_callback(done.put)
    assert done.get(timeout=10) == ref, "at once, if it is ready"
    failed.add_done_callback(done.put)
    assert done.get(timeout=30) == failed
    assert done.empty()


def test_a_life_fails_where_it_is_borrowed_when_its_process_ends(cluster):
    @shoal.remote
    class Mortal:
        def life(self):
            return [current.get_owner().life()]

        def end(self):
            os.kill(os.getpid(), signal.SIGKILL)

    mortal = Mortal.remote()
    (life,) = shoal.get(mortal.life.remote(), 30)
    assert shoal.wait([life], timeout=0)[0] == []
    mortal.end.remote()
    with pytest.raises(shoal.errors.OwnerDiedError):
        shoal.get(life, 30)
