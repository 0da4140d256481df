"""Values on their way between machines: in pieces, once per machine, and gone everywhere when they are freed."""

from __future__ import annotations

import os
import time

import numpy as np
import pytest

import shoal
from shoal.api import session
from shoal.model import messages as m
from shoal.runtime.store import Store
from shoal.runtime.store.room import COPY_SUFFIX


@shoal.remote
def look_at_store() -> list[str]:
    """Return the segments in the store of the node that this runs on."""
    owner = session.current.get_owner()
    return [found.name for found in owner.store.segments()]


@shoal.remote
def total(array: np.ndarray) -> float:
    value = float(array.sum())
    array[:] = 0  # nobody else's copy
    return value


@shoal.remote
def make(value: int, nbytes: int) -> np.ndarray:
    return np.full(nbytes, value, dtype=np.uint8)


@shoal.remote
def first(array: np.ndarray) -> int:
    return int(array[0])


def on(number: int) -> dict[str, object]:
    return {"resources": {f"far-{number}": 0.1}, "num_cpus": 0}


def segments_on(number: int) -> list[str]:
    return shoal.get(look_at_store.options(**on(number)).remote(), timeout=30)


def here(machines) -> Store:
    return session._session.owner.store


def test_what_the_driver_puts_is_copied_once_to_a_node_and_freed_with_the_ref(machines, wait_until):
    ref = shoal.put(np.ones(3_000_000))
    assert shoal.get([total.options(**on(0)).remote(ref) for _ in range(8)], timeout=60) == [3_000_000] * 8
    copies = segments_on(0)
    assert len(copies) == 1
    assert copies[0].endswith(COPY_SUFFIX)
    assert segments_on(1) == []
    del ref
    wait_until(lambda: not segments_on(0), "an end of the copy")
    assert here(machines).segments() == []


def test_what_a_task_makes_elsewhere_is_read_here_and_elsewhere(machines, wait_until):
    ref = make.options(**on(0)).remote(7, 20_000_001)
    assert shoal.get(first.options(**on(1)).remote(ref), timeout=60) == 7
    array = shoal.get(ref, timeout=60)
    assert array.size == 20_000_001
    assert set(np.unique(array)) == {7}
    array[:] = 1
    assert shoal.get(ref, timeout=60)[0] == 7
    assert [name.endswith(COPY_SUFFIX) for name in segments_on(0) + segments_on(1)] == [False, True]
    assert len(here(machines).segments()) == 1
    del ref, array
    wait_until(lambda: not segments_on(0) and not segments_on(1), "an end of the segment and its copy")
    wait_until(lambda: not here(machines).segments(), "an end of the copy here")


def test_many_nodes_read_one_value(machines, wait_until):
    ref = shoal.put(np.ones(2_000_000))
    reads = [total.options(**on(number)).remote(ref) for number in range(3) for _ in range(4)]
    assert shoal.get(reads, timeout=60) == [2_000_000] * 12
    assert [len(segments_on(number)) for number in range(3)] == [1, 1, 1]
    del ref
    wait_until(lambda: not any(segments_on(number) for number in range(3)), "an end of all copies")


def test_a_value_inside_a_value_travels_when_it_is_asked_for(machines):
    @shoal.remote
    def open_it(box: list) -> float:
        return float(shoal.get(box[0]).sum())

    inner = shoal.put(np.ones(1_000_000))
    assert shoal.get(open_it.options(**on(0)).remote([inner]), timeout=60) == 1_000_000


def test_work_goes_where_its_large_arguments_are(machines):
    @shoal.remote(num_cpus=0.1)
    def where(array: np.ndarray) -> str:
        return shoal.get_runtime_context().node_id

    ref = make.options(**on(1)).remote(1, 50_000_000)
    shoal.wait([ref], timeout=30)
    home = shoal.get(shoal.remote(lambda: shoal.get_runtime_context().node_id).options(**on(1)).remote(), timeout=30)
    assert shoal.get([where.remote(ref) for _ in range(4)], timeout=60) == [home] * 4


def test_nobody_reads_other_files_through_an_agent(machines, tmp_path):
    """Only segments of a store are served, whatever path is asked for."""
    secret = tmp_path / "secret"
    secret.write_bytes(b"x" * 200_000)
    owner = session._session.owner
    for path in (str(secret), os.path.join(owner.store.directory, "objects", "..", "layout.json")):
        with pytest.raises(shoal.errors.ObjectLostError):
            session._session.portal.call(owner.fetcher.puller.pull(("s", owner.store.holder, path, (64,))), timeout=30)
    assert secret.exists()
    session._session.portal.call(send_free(owner, m.FreeSegment(str(secret))), timeout=30)
    time.sleep(0.3)
    assert secret.exists()


async def send_free(owner, message) -> None:
    owner.peers.send(owner.store.holder, message, agent=True)


def test_what_came_from_where_is_counted(machines, wait_until):
    def received(number: int) -> dict[str, int]:
        node_id = shoal.get(node_of.options(**on(number)).remote(), timeout=30)
        (node,) = [node for node in shoal.snapshot()["nodes"] if node["id"] == node_id]
        return dict(map(tuple, node["received_from"]))

    source = shoal.get(node_of.options(**on(0)).remote(), timeout=30)
    before = received(2).get(source, 0)
    ref = make.options(**on(0)).remote(7, 20_000_001)
    assert shoal.get(first.options(**on(2)).remote(ref), timeout=60) == 7
    wait_until(lambda: 20_000_001 <= received(2).get(source, 0) - before < 20_100_000, "news of the transfer")


@shoal.remote
def node_of() -> str:
    """Return the id of the node that this runs on."""
    return shoal.get_runtime_context().node_id
