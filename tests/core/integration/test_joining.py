"""Joining clusters and leaving them, wrong addresses included."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import threading
import time

import numpy as np
import pytest

import shoal
from shoal.api import session


def test_refs_of_an_ended_session_say_so():
    with shoal.init(num_cpus=1):
        ref = shoal.put(1)
    with pytest.raises(shoal.errors.NotInitializedError, match=r"has ended|shut down"):
        shoal.get(ref)
    assert not shoal.is_initialized()
    with pytest.raises(shoal.errors.NotInitializedError, match=r"shoal\.init"):
        shoal.snapshot()


@shoal.remote
class Keeper:
    def __init__(self, value=1):
        self.value = value

    def get(self, *ignored):
        return self.value


@shoal.remote
def same(x):
    return x


@shoal.remote
def counts():
    yield 1


#: What may be done with a ref, a generator and an actor of a session that has ended.
STALE_USES = {
    "get": lambda ref, values, actor: shoal.get(ref),
    "wait": lambda ref, values, actor: shoal.wait([ref]),
    "wait for several": lambda ref, values, actor: shoal.wait([same.remote(1), ref], num_returns=2),
    "as_completed": lambda ref, values, actor: list(shoal.as_completed([ref])),
    "put": lambda ref, values, actor: shoal.put([ref]),
    "argument": lambda ref, values, actor: same.remote(ref),
    "inside an argument": lambda ref, values, actor: same.remote({"x": [ref]}),
    "argument of an actor": lambda ref, values, actor: Keeper.remote(ref),
    "handle as an argument": lambda ref, values, actor: same.remote(actor),
    "call": lambda ref, values, actor: actor.get.remote(),
    "next value": lambda ref, values, actor: next(values),
    "stop": lambda ref, values, actor: shoal.stop(actor),
    "kill": lambda ref, values, actor: shoal.kill(actor),
    "why": lambda ref, values, actor: shoal.why(ref),
    "why of an actor": lambda ref, values, actor: shoal.why(actor),
}


def test_nothing_of_an_ended_session_works_in_another():
    with shoal.init(num_cpus=1):
        ref, values, actor = same.remote(1), counts.remote(), Keeper.remote()
        assert shoal.get([ref, actor.get.remote()], timeout=30) == [1, 1]
    for use in STALE_USES.values():
        if use is not STALE_USES["put"]:  # it would start a cluster, as any first use does
            with pytest.raises(shoal.errors.NotInitializedError, match="has ended"):
                use(ref, values, actor)
            shoal.shutdown()
    with shoal.init(num_cpus=1):
        other = Keeper.remote(2)
        for name, use in STALE_USES.items():
            with pytest.raises(shoal.errors.NotInitializedError, match="has ended"):
                use(ref, values, actor)
                pytest.fail(f"{name} was not refused")
        with pytest.raises(shoal.errors.NotInitializedError, match="has ended"):
            other.get.remote(ref)
        shoal.cancel(ref)  # harmless, as for everything that has ended
        assert shoal.get([other.get.remote(), same.remote(3)], timeout=30) == [2, 3]


def test_an_executor_ends_with_its_session():
    executor = shoal.Executor(max_workers=1)
    with shoal.init(num_cpus=1):
        futures = [executor.submit(time.sleep, 300), executor.submit(abs, -1), executor.submit(abs, -2)]
    for future in futures:
        with pytest.raises(shoal.errors.NotInitializedError):
            future.result(30)
    assert not shoal.is_initialized()
    executor.shutdown()


def test_what_waits_when_the_session_ends_is_told():
    with shoal.init(num_cpus=1):
        errors = []
        ref = shoal.remote(lambda: time.sleep(300)).remote()

        def get():
            try:
                shoal.get(ref)
            except shoal.errors.ShoalError as error:
                errors.append(error)

        thread = threading.Thread(target=get)
        thread.start()
        with pytest.raises(shoal.errors.GetTimeoutError):
            shoal.get(ref, timeout=0.1)
    thread.join(10)
    assert [type(error) for error in errors] == [shoal.errors.NotInitializedError]


def test_an_address_that_does_not_answer_fails_within_its_timeout():
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    begin = time.monotonic()
    with pytest.warns(UserWarning, match="no TLS"), pytest.raises(ConnectionError, match=f"127.0.0.1:{port}"):
        shoal.init(f"tcp://127.0.0.1:{port}", timeout=3)
    assert time.monotonic() - begin < 10
    assert not shoal.is_initialized()


def test_an_address_that_accepts_and_says_nothing_fails_too():
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        port = silent.getsockname()[1]
        with pytest.warns(UserWarning, match="no TLS"), pytest.raises(shoal.errors.ConnectError):
            shoal.init(f"tcp://127.0.0.1:{port}", timeout=2)


def test_a_name_nobody_has_lists_those_that_run():
    with pytest.raises(shoal.errors.ConnectError, match=r"called `nowhere` \(running: none\)"):
        shoal.init("nowhere")


def test_values_of_init_are_checked():
    for options in ({"num_cpus": 0}, {"num_cpus": 1.5}, {"timeout": 0}, {"address": "x", "num_cpus": 1}):
        with pytest.raises(shoal.errors.OptionError):
            shoal.init(**options)
    with pytest.raises(TypeError, match="dask"):
        shoal.init(3.5)


def test_another_process_joins_by_name_and_leaves_the_cluster_alone():
    with shoal.init(num_cpus=1, name="shared") as cluster:
        code = (
            "import shoal\n"
            "c = shoal.init('shared')\n"
            "print(c.id, shoal.get(shoal.remote(lambda: 6 * 7).remote(), timeout=20))\n"
        )
        done = subprocess.run(
            [sys.executable, "-c", code], capture_output=True, text=True, timeout=60, env=dict(os.environ)
        )
        assert done.stdout.split() == [cluster.id, "42"], done.stderr
        assert shoal.get(shoal.remote(lambda: 1).remote(), timeout=20) == 1


def test_code_that_arrives_without_tls_draws_one_warning():
    from distributed import LocalCluster

    with (
        LocalCluster(n_workers=1, threads_per_worker=1, dashboard_address=":0") as dask_cluster,
        pytest.warns(UserWarning, match="no TLS") as caught,
        shoal.init(dask_cluster.scheduler_address, timeout=30),
    ):
        assert shoal.get(shoal.remote(lambda: 2).remote(), timeout=30) == 2
    assert len(caught) == 1


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"name": 5}, "`name`"),
        ({"name": ""}, "`name`"),
        ({"labels": {"a": 1}}, "`labels`"),
        ({"labels": {"a": "!b"}}, r"`labels\['a'\]`"),
        ({"security": "x"}, "`security`"),
    ],
)
def test_values_of_init(options, words, monkeypatch):
    monkeypatch.delenv("SHOAL_ADDRESS", raising=False)
    with pytest.raises(shoal.errors.OptionError, match=words):
        shoal.init(**options)
    assert not shoal.is_initialized()


def test_numbers_may_be_numpys():
    with shoal.init(num_cpus=np.int64(1)) as cluster:
        assert shoal.get(same.options(num_cpus=np.float32(0.5), max_retries=np.int8(1)).remote(1), timeout=30) == 1
        assert cluster.snapshot()["nodes"][0]["cpus"] == 1


def test_a_background_thread_never_starts_a_cluster():
    """What asks on its own, such as a notebook's completion, may ask after a shutdown."""
    raised = []

    def ask():
        session.stay_in_background()
        try:
            shoal.nodes()
        except shoal.errors.NotInitializedError as error:
            raised.append(error)

    assert not shoal.is_initialized()
    thread = threading.Thread(target=ask)
    thread.start()
    thread.join(30)
    assert raised
    assert not shoal.is_initialized()
