"""Dask's values as refs, and refs as Dask futures."""

from __future__ import annotations

import gc
import itertools
import os
import pickle
import threading
import time
from pathlib import Path

import dask
import dask.array as da
import dask.bag as db
import dask.dataframe as dd
import numpy as np
import pandas as pd
import pytest
from distributed import Client, LocalCluster, get_worker

import shoal
from shoal.api import dask_interop, session
from shoal.launch import dask_tasks
from shoal.runtime import payload as payloads

#: Numbers in an array that is stored, not sent.
LARGE = 500_000


@pytest.fixture(scope="module")
def client(cluster):
    """A Dask client as users have one, of the cluster that shoal uses; not the default one."""
    with Client(cluster.address, security=session._session.security, set_as_default=False) as client:
        yield client


@pytest.fixture(autouse=True)
def nothing_left(request, wait_until):
    """When a test is over, no object is held and no segment lies in a store."""
    if "cluster" not in request.fixturenames:
        yield
        return
    request.getfixturevalue("client")
    owner = session._session.owner
    before = owner.num_objects()
    yield
    gc.collect()
    wait_until(
        lambda: owner.num_objects() == before,
        lambda: f"release of {[(e.object_id, e.local, e.borrowers) for e in owner.table.entries()]}",
    )
    wait_until(lambda: not segments(), lambda: f"removal of {segments()}")


def segments(owner_id=None):
    """Return the segments of this driver's in all stores of this machine."""
    owner_id = owner_id or session._session.owner.owner_id
    found = Path(os.environ["SHOAL_STORE_DIR"]).glob(f"shoal-*/**/{owner_id}.*")
    return {str(path) for path in found if path.parent.name not in ("leaving", "warm", "drafts")}


def payload_of(ref):
    shoal.wait([ref], timeout=30)
    return ref._owner.table.get(ref.id).payload


def holder_of(ref):
    """Return the Dask worker in whose store the value lies."""
    kind, holder, *_ = payload_of(ref)
    assert kind == payloads.SEGMENT
    return holder


def ones(n=LARGE):
    return np.ones(n)


class Tracked:
    """A value that writes down which processes it is unpickled in."""

    def __init__(self, log, nbytes=0):
        self.log, self.data = log, np.zeros(nbytes, np.uint8)

    def __setstate__(self, state):
        self.__dict__.update(state)
        with open(self.log, "a") as file:
            file.write(f"{os.getpid()}\n")

    def __getstate__(self):
        return self.__dict__


@shoal.remote
def track(log, nbytes):
    return Tracked(log, nbytes)


@shoal.remote
def same(x):
    return x


@shoal.remote
def size_of(x):
    return len(x.data)


@shoal.remote
def array_of(n):
    return np.arange(n)


@shoal.remote
def fails():
    raise KeyError("on purpose")


@shoal.remote
def after(path, value):
    while not path.exists():
        time.sleep(0.01)
    return value


def wait_for(path):
    while not path.exists():
        time.sleep(0.01)
    return np.ones(LARGE)


def sent_by_workers(client):
    """Return the bytes that Dask workers have sent to anybody."""
    return sum(client.run(lambda dask_worker: dask_worker.transfer_outgoing_bytes_total).values())


# -- from Dask ---------------------------------------------------------------------------------------------------


def test_a_future_is_one_ref(client):
    future = client.submit(ones)
    ref = shoal.from_dask(future)
    assert isinstance(ref, shoal.ObjectRef)
    np.testing.assert_array_equal(shoal.get(ref, timeout=30), np.ones(LARGE))
    assert segments() == {payload_of(ref)[2]}
    assert os.path.basename(payload_of(ref)[2]).startswith(session._session.owner.owner_id + ".")
    assert client.submit(np.sum, future).result(timeout=30) == LARGE  # Dask still has it


def test_a_list_of_futures_and_delayed_values(client):
    refs = shoal.from_dask([client.submit(pow, 2, 3), dask.delayed(pow)(2, 4), client.submit(pow, 2, 5)])
    assert shoal.get(refs, timeout=30) == [8, 16, 32]
    assert shoal.from_dask([]) == []


@pytest.mark.parametrize("persisted", [False, True])
def test_an_array_gives_its_blocks_in_c_order(client, persisted):
    array = da.arange(24, chunks=24).reshape(4, 6).rechunk((2, 3))
    refs = shoal.from_dask(client.persist(array) if persisted else array)
    blocks = shoal.get(refs, timeout=30)
    assert [block[0, 0] for block in blocks] == [0, 3, 12, 15]
    np.testing.assert_array_equal(np.block([blocks[:2], blocks[2:]]), np.arange(24).reshape(4, 6))


@pytest.mark.parametrize("persisted", [False, True])
def test_a_dataframe_gives_its_partitions(client, persisted):
    table = pd.DataFrame({"x": range(100), "name": [f"row {i}" for i in range(100)]})
    frame = dd.from_pandas(table, npartitions=4)
    frame = frame[frame.x > 10].assign(y=frame.x * 2)
    refs = shoal.from_dask(client.persist(frame) if persisted else frame)
    assert len(refs) == 4
    found = pd.concat(shoal.get(refs, timeout=30))
    assert found.x.tolist() == list(range(11, 100)) and found.y.sum() == 2 * found.x.sum()


@pytest.mark.parametrize("persisted", [False, True])
def test_a_bag_gives_lists(client, persisted):
    bag = db.from_sequence(range(10), npartitions=3).map_partitions(lambda part: (x * x for x in part))
    refs = shoal.from_dask(client.persist(bag) if persisted else bag)
    parts = shoal.get(refs, timeout=30)
    assert [type(part) for part in parts] == [list] * 3
    assert list(itertools.chain(*parts)) == [x * x for x in range(10)]


def test_what_has_one_value_gives_a_list_of_one(client):
    lazy = dask.delayed(pow)(2, 10)
    total = da.ones(10, chunks=5).sum()
    for collection, value in ((lazy, 1024), (total, 10), (db.from_sequence([1, 2]).sum(), 3)):
        assert shoal.get(shoal.from_dask(collection), timeout=30) == [value]


def test_what_parts_have_in_common_is_computed_once(client, tmp_path):
    def note():
        with open(tmp_path / "log", "a") as file:
            file.write("x")
        return 1

    common = dask.delayed(note)()
    refs = shoal.from_dask([dask.delayed(pow)(common, n) for n in range(5)])
    assert shoal.get(refs, timeout=30) == [1] * 5
    assert (tmp_path / "log").read_text() == "x"


def test_nothing_passes_through_the_driver(client, tmp_path):
    log, nbytes = str(tmp_path / "log"), 20_000_000
    futures = [client.submit(Tracked, log, nbytes, pure=False) for _ in range(2)]
    client.gather([client.submit(id, future) for future in futures])  # they are there
    before = sent_by_workers(client)
    refs = shoal.from_dask(futures)
    holders = {holder_of(ref) for ref in refs}
    assert holders <= set(client.scheduler_info()["workers"])
    assert {holder for future in futures for holder in client.who_has(future)[future.key]} == holders
    assert shoal.get([size_of.remote(ref) for ref in refs], timeout=30) == [nbytes] * 2
    assert sent_by_workers(client) - before < 10_000
    pids = Path(log).read_text().split()
    assert len(pids) == 2 and str(os.getpid()) not in pids


def test_small_values_come_inline(client):
    ref = shoal.from_dask(client.submit(pow, 2, 3))
    assert payload_of(ref)[0] == payloads.INLINE and segments() == set()


def test_tasks_go_where_the_value_is(client, wait_until):
    place = shoal.remote(lambda array: shoal.get_runtime_context().node_id)
    addresses = {node.id: node.address for node in shoal.nodes()}
    for worker in client.scheduler_info()["workers"]:
        ref = shoal.from_dask(client.submit(ones, workers=[worker], pure=False))
        assert holder_of(ref) == worker
        # A node that is busy, with Dask's work too, is not waited for.
        wait_until(lambda: shoal.available_resources() == shoal.cluster_resources(), "idle nodes")
        assert addresses[shoal.get(place.remote(ref), timeout=30)] == worker


def test_a_value_goes_with_the_last_ref(client, wait_until):
    ref = shoal.from_dask(client.submit(ones))
    path = payload_of(ref)[2]
    boxed = shoal.put([ref])
    del ref
    gc.collect()
    time.sleep(0.1)
    assert segments() == {path}
    inner = shoal.get(boxed)[0]
    assert shoal.get(inner, timeout=30).sum() == LARGE
    del boxed, inner
    wait_until(lambda: not segments(), "its end")


def test_a_ref_dropped_before_dask_is_done(client, tmp_path):
    ref = shoal.from_dask(client.submit(wait_for, tmp_path / "gate", pure=False))
    del ref
    gc.collect()
    (tmp_path / "gate").touch()  # the fixture sees to it that nothing is left


def test_an_error_is_that_of_its_part_alone(client):
    def invert(x):
        return 1 // x

    refs = shoal.from_dask([dask.delayed(invert)(x) for x in (1, 0, -1)])
    first, second, third = shoal.get(refs, timeout=30, return_exceptions=True)
    assert (first, third) == (1, -1) and isinstance(second, ZeroDivisionError)
    with pytest.raises(ZeroDivisionError) as caught:
        shoal.get(refs[1])
    assert caught.traceback[-1].name == "invert"
    failed = client.submit(invert, 0)
    with pytest.raises(ZeroDivisionError):
        failed.result(timeout=30)
    with pytest.raises(ZeroDivisionError):
        shoal.get(same.remote(shoal.from_dask(failed)), timeout=30)


def test_what_cannot_be_pickled_says_why(client):
    ref = shoal.from_dask(client.submit(threading.Lock, pure=False))
    with pytest.raises(shoal.errors.SerializationError, match="value of the Dask task"):
        shoal.get(ref, timeout=30)


def test_what_dask_has_cancelled(client, tmp_path):
    before = client.submit(wait_for, tmp_path / "gate", pure=False)
    before.cancel()
    under_way = client.submit(wait_for, tmp_path / "gate", pure=False)
    refs = [shoal.from_dask(before), shoal.from_dask(under_way)]
    under_way.cancel()
    (tmp_path / "gate").touch()
    for ref in refs:
        with pytest.raises(shoal.errors.TaskCancelledError, match=r"Dask cancelled.*obj-"):
            shoal.get(ref, timeout=30)


def test_cancelling_a_ref_lets_dask_forget_it(client, tmp_path, wait_until):
    [ref] = shoal.from_dask(dask.delayed(wait_for)(tmp_path / "gate"))
    wait_until(lambda: sum(len(keys) for keys in client.processing().values()) == 1, "its begin")
    assert "Dask" in shoal.why(ref).detail
    shoal.cancel(ref)
    with pytest.raises(shoal.errors.TaskCancelledError, match=ref.id):
        shoal.get(ref, timeout=30)
    shoal.cancel(ref)
    (tmp_path / "gate").touch()
    wait_until(lambda: not any(client.processing().values()), "its end")
    kept = client.submit(ones, pure=False)
    ref = shoal.from_dask(kept)
    assert shoal.get(ref, timeout=30).sum() == LARGE
    shoal.cancel(ref)  # harmless: it is there
    assert shoal.get(ref, timeout=30).sum() == LARGE and kept.result(timeout=30).sum() == LARGE


def test_nothing_of_a_result_that_dask_drops_stays(client, wait_until):
    """The copy is there and the driver has not been told when Dask drops it."""
    owner = session._session.owner
    future = client.submit(dask_tasks.store, np.ones(LARGE), "obj-lost", owner.owner_id, owner.address, pure=False)
    wait_until(segments, "the copy")
    del future
    wait_until(lambda: not segments(), "its end")


def test_a_pickled_result_is_taken_over(cluster, client, wait_until):
    owner = session._session.owner
    payload = payloads.from_frames([b"", bytes(200_000)], owner.store, f"{owner.owner_id}.obj-x")
    stored = dask_tasks.Stored(payload, [], owner.owner_id, owner.address, owner.loop)
    assert pickle.loads(pickle.dumps(stored)) == (payload, ())
    del stored
    time.sleep(0.1)
    assert segments() == {payload[2]}
    dask_tasks.Stored(payload, [], owner.owner_id, owner.address, owner.loop)  # dropped, and never pickled
    wait_until(lambda: not segments(), "removal")


def test_refs_inside_a_value_made_by_a_session_in_dask(cluster, client):
    if cluster.kind == "embedded":
        pytest.skip("its one Dask worker is in the process of the cluster itself")

    def join(address, security):
        shoal.init(address, security=security)
        return {"inner": shoal.put(np.arange(LARGE)), "small": shoal.put(1)}

    future = client.submit(join, cluster.address, session._session.security, pure=False)
    ref = shoal.from_dask(future)
    value = shoal.get(ref, timeout=30)
    del future, ref
    gc.collect()
    time.sleep(0.3)  # Dask has dropped its own
    assert shoal.get(value["inner"], timeout=30).sum() == np.arange(LARGE).sum() and shoal.get(value["small"]) == 1
    del value
    gc.collect()
    client.run(shoal.shutdown)


def test_tasks_may_use_dask_too(client):
    @shoal.remote
    def total(n):
        refs = shoal.from_dask(da.arange(n, chunks=n // 2))
        assert not shoal.from_dask([])
        return int(sum(part.sum() for part in shoal.get(refs))), refs[0].to_dask().result().sum(), refs

    value, half, refs = shoal.get(total.remote(LARGE), timeout=60)
    assert value == LARGE * (LARGE - 1) // 2 and half == shoal.get(refs[0]).sum()


# -- to Dask -----------------------------------------------------------------------------------------------------


def test_values_large_and_small(client):
    refs = [shoal.put(3), shoal.put(np.arange(LARGE)), same.remote("x"), array_of.remote(LARGE)]
    futures = [ref.to_dask(client) for ref in refs]
    assert all(future.client is client for future in futures)
    first, second, third, fourth = client.gather(futures)
    assert (first, third) == (3, "x")
    np.testing.assert_array_equal(second, np.arange(LARGE))
    np.testing.assert_array_equal(fourth, np.arange(LARGE))
    assert client.submit(np.sum, futures[3]).result(timeout=30) == np.arange(LARGE).sum()


def test_the_default_client_is_the_one_whose_cluster_it_is(client):
    ref = shoal.put(1)
    assert ref.to_dask().client is dask_interop._current[1].client
    with client.as_current():
        future = ref.to_dask()
        assert future.client is client and dask.delayed(pow)(future, 2).compute(scheduler=client) == 1


def test_the_value_goes_from_node_to_dask_directly(client, tmp_path):
    log, nbytes = str(tmp_path / "log"), 20_000_000
    ref = track.remote(log, nbytes)
    holder, path = payload_of(ref)[1:3]
    future = ref.to_dask(client)

    def look(value):
        maps = Path("/proc/self/maps").read_text()
        return get_worker().address, os.getpid(), maps.count(os.path.basename(path)), len(value.data)

    before = sent_by_workers(client)
    address, pid, maps, length = client.submit(look, future, pure=False).result(timeout=30)
    assert address == holder and length == nbytes and maps >= 1
    assert sent_by_workers(client) - before < 10_000
    assert Path(log).read_text().split() == [str(pid)]


def test_it_does_not_wait_for_what_is_not_ready(cluster, client, tmp_path):
    gate = tmp_path / "gate"
    many = [after.remote(gate, n) for n in range(2 * int(shoal.cluster_resources()["num_cpus"]) + 3)]
    begin = time.monotonic()
    futures = [ref.to_dask(client) for ref in many]
    assert time.monotonic() - begin < 5
    follow = client.submit(sum, futures)
    # neither Dask nor shoal is held up by those that wait
    assert client.submit(pow, 2, 10, pure=False).result(timeout=30) == 1024
    assert not any(future.done() for future in futures)
    gate.touch()
    assert follow.result(timeout=60) == sum(range(len(many)))


def test_the_object_is_kept_until_dask_has_it(client, tmp_path, wait_until):
    gate = tmp_path / "gate"
    future = after.remote(gate, np.ones(LARGE)).to_dask(client)  # nobody else holds the ref
    gc.collect()
    gate.touch()
    assert future.result(timeout=30).sum() == LARGE
    gc.collect()
    wait_until(lambda: not segments(), "release")
    assert client.submit(np.sum, future).result(timeout=30) == LARGE  # Dask has it still
    assert shoal.put(5).to_dask(client).result(timeout=30) == 5


def test_errors_are_the_original_ones(client):
    with pytest.raises(KeyError, match="on purpose"):
        fails.remote().to_dask(client).result(timeout=30)
    with pytest.raises(KeyError, match="on purpose"):
        client.submit(pow, fails.remote().to_dask(client), 2).result(timeout=30)


def test_a_value_that_contains_refs_is_refused(client):
    for value in ([shoal.put(1)], [shoal.put(1), np.ones(LARGE)]):
        # `result` would raise it: Dask would then keep its future, the frames it was raised in, and the ref in there.
        error = shoal.put(value).to_dask(client).exception(timeout=30)
        assert isinstance(error, shoal.errors.SerializationError) and "contains refs" in str(error)


def test_a_task_that_is_cancelled(client, tmp_path):
    ref = after.remote(tmp_path / "gate", 1)
    future = ref.to_dask(client)
    shoal.cancel(ref)
    assert isinstance(future.exception(timeout=30), shoal.errors.TaskCancelledError)


def test_a_dask_future_that_is_cancelled_lets_the_object_go(client):
    ref = array_of.remote(LARGE)
    future = ref.to_dask(client)
    future.cancel()
    assert shoal.get(ref, timeout=30).sum() == np.arange(LARGE).sum()


def test_there_and_back(client):
    value = {"array": np.arange(LARGE), "text": "x"}
    ref = shoal.put(value)
    back = shoal.get(shoal.from_dask(ref.to_dask(client)), timeout=30)
    np.testing.assert_array_equal(back["array"], value["array"])
    assert back["text"] == "x"
    frame = dd.from_pandas(pd.DataFrame({"x": range(90)}), npartitions=3)
    futures = [ref.to_dask(client) for ref in shoal.from_dask(client.persist(frame))]
    again = dd.from_delayed(futures, meta=frame._meta)
    assert client.compute(again.x.sum()).result(timeout=30) == frame.x.sum().compute(scheduler="threads")


def test_collections_of_what_tasks_return(client):
    @shoal.remote
    def table(start):
        return pd.DataFrame({"key": ["a", "b"] * 500, "x": range(start, start + 1000)})

    futures = [table.remote(start).to_dask(client) for start in (0, 1000, 2000)]
    sums = dd.from_delayed(futures, meta={"key": str, "x": int}).groupby("key").x.sum()
    found = client.compute(sums).result(timeout=60)
    assert found.sum() == sum(range(3000)) and sorted(found.index) == ["a", "b"]
    bag = db.from_delayed([same.remote([1, 2]).to_dask(client), same.remote([3]).to_dask(client)])
    assert client.compute(bag.sum()).result(timeout=30) == 6
    block = da.from_delayed(array_of.remote(10).to_dask(client), (10,), int)
    assert client.compute(block.sum()).result(timeout=30) == 45


# -- what is refused ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("thing", [1, None, "x", np.ones(3), pd.DataFrame(), [1], [[dask.delayed(1)]], {}, iter([])])
def test_what_is_none_of_dasks(client, thing):
    with pytest.raises(TypeError, match=r"from_dask.*not (int|NoneType|str|ndarray|DataFrame|list|dict|.*iterator)"):
        shoal.from_dask(thing)


def test_refs_are_none_of_dasks(client):
    with pytest.raises(TypeError, match="ObjectRef: it is in the cluster already"):
        shoal.from_dask(shoal.put(1))
    with pytest.raises(TypeError, match="must be a Dask client"):
        shoal.put(1).to_dask("client")


def test_another_cluster(client):
    with (
        LocalCluster(n_workers=1, threads_per_worker=1, processes=False, dashboard_address=":0") as other,
        Client(other, set_as_default=False) as theirs,
    ):
        future = theirs.submit(pow, 2, 3)
        frame = theirs.persist(dd.from_pandas(pd.DataFrame({"x": range(10)}), npartitions=2))
        for given in (future, [future], frame):
            with pytest.raises(shoal.errors.OptionError, match=r"belongs to the Dask cluster at `inproc:.*shoal uses"):
                shoal.from_dask(given)
        with pytest.raises(shoal.errors.OptionError, match="inproc:"):
            shoal.put(1).to_dask(theirs)
        with theirs.as_current():
            assert shoal.put(1).to_dask().client is not theirs
        mixed = [future, client.submit(pow, 2, 3)]
        with pytest.raises(shoal.errors.OptionError, match="several clients"):
            shoal.from_dask(dask.delayed(sum)(mixed))
    with pytest.raises(shoal.errors.OptionError, match="closed"):
        shoal.from_dask(future)
