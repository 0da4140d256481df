"""Joining clusters and leaving them, wrong addresses included."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import threading
import time

import pytest

import shoal


def test_refs_of_an_ended_session_say_so():
    with shoal.init(num_cpus=1):
        ref = shoal.put(1)
    with pytest.raises(shoal.errors.NotInitializedError, match=r"has ended|shut down"):
        shoal.get(ref)
    assert not shoal.is_initialized()
    with pytest.raises(shoal.errors.NotInitializedError, match=r"shoal\.init"):
        shoal.snapshot()


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
        LocalCluster(n_workers=1, threads_per_worker=1, dashboard_address=None) as dask_cluster,
        pytest.warns(UserWarning, match="no TLS") as caught,
        shoal.init(dask_cluster.scheduler_address, timeout=30),
    ):
        assert shoal.get(shoal.remote(lambda: 2).remote(), timeout=30) == 2
    assert len(caught) == 1
