"""Ids: readable, unique, in order, and never shared with a forked child."""

from __future__ import annotations

import os
import threading
import warnings

from shoal.model import ids


def test_ids_say_what_they_name() -> None:
    assert ids.new_task_id().startswith("task-")
    assert ids.new_object_id().startswith("obj-")
    assert ids.new_actor_id().startswith("actor-")
    assert ids.random_id("node").startswith("node-")


def test_ids_of_one_process_share_an_origin_and_count_up() -> None:
    parts = [ids.new_task_id().split("-") for _ in range(12)]
    assert len({origin for _, origin, _ in parts}) == 1
    numbers = [int(number) for _, _, number in parts]
    assert numbers == sorted(set(numbers))


def test_ids_are_unique_across_threads() -> None:
    made: list[str] = []

    def make() -> None:
        made.extend([ids.next_number() for _ in range(500)])

    threads = [threading.Thread(target=make) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(set(made)) == 2000


def test_random_ids_differ() -> None:
    assert len({ids.random_id("exec") for _ in range(1000)}) == 1000


def test_a_forked_child_has_an_origin_of_its_own() -> None:
    ours = ids.next_number().split("-")[0]
    reader, writer = os.pipe()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # Python 3.12: a fork while other threads run
        child = os.fork()
    if not child:
        os.write(writer, ids.next_number().encode())
        os._exit(0)
    os.close(writer)
    with os.fdopen(reader) as pipe:
        theirs = pipe.read().split("-")[0]
    assert os.waitpid(child, 0)[1] == 0
    assert theirs and theirs != ours
    assert ids.next_number().split("-")[0] == ours
