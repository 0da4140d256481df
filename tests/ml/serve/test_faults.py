"""What constant load loses when something dies or changes: nothing, but what ran in the process that died."""

from __future__ import annotations

import contextlib
import os
import signal

import pytest
from starlette.requests import Request
from web_load import Load, ask

import shoal
from shoal_ml import serve

pytestmark = pytest.mark.usefixtures("applications")
CLIENTS = 4


@serve.deployment(name="Model", num_replicas=2, max_ongoing_requests=50)
class Model:
    def __init__(self, word):
        self.word = word

    async def __call__(self, request: Request):
        return self.word

    async def pid(self):
        return os.getpid()


def kill_and_wait(pid, handle):
    """Kill a replica, and wait until another has taken its place."""
    os.kill(pid, signal.SIGKILL)
    controller = serve.running.find_controller()
    shoal.get(controller.wait_for_message.remote("default", "its process has ended"), 30)
    shoal.get(controller.wait_for_replicas.remote("default", "Model", 2), 30)


def test_an_update_loses_nothing(url):
    serve.run(Model.bind("old"), route_prefix="/m")
    with Load(url + "/m", CLIENTS) as load:
        load.wait_for(100)
        serve.run(Model.bind("new"), route_prefix="/m")
        load.wait_for(200)
        load.wait_for_body(b"new")
    assert load.lost() == 0, dict(load.counts)
    assert set(load.bodies) == {b"old", b"new"}
    assert ask(url + "/m", b"1").body == b"new"


def test_an_update_of_a_single_replica_loses_nothing(url):
    one = Model.options(num_replicas=1)
    serve.run(one.bind("old"), route_prefix="/m")
    with Load(url + "/m", CLIENTS) as load:
        load.wait_for(100)
        serve.run(one.bind("new"), route_prefix="/m")
        load.wait_for(200)
    assert load.lost() == 0, dict(load.counts)


def test_scaling_down_loses_nothing(url):
    serve.run(Model.bind("x"), route_prefix="/m")
    with Load(url + "/m", CLIENTS) as load:
        load.wait_for(100)
        serve.run(Model.options(num_replicas=1).bind("x"), route_prefix="/m")
        load.wait_for(200)
    assert load.lost() == 0, dict(load.counts)


def test_a_killed_replica_loses_only_what_it_was_doing_and_says_so(url):
    handle = serve.run(Model.bind("x"), route_prefix="/m")
    with Load(url + "/m", CLIENTS) as load:
        load.wait_for(100)
        kill_and_wait(handle.pid.remote().result(20), handle)
        load.wait_for(300)
    assert load.lost() <= CLIENTS, dict(load.counts)
    # what had begun to be answered is cut off; the rest is told
    broken = {"RemoteDisconnected", "ConnectionResetError", "IncompleteRead", "BrokenPipeError"}
    assert set(load.counts) <= {200, 503, *broken}, dict(load.counts)


def test_a_killed_controller_loses_nothing(url):
    serve.run(Model.bind("x"), route_prefix="/m")
    controller = serve.running.find_controller()
    with Load(url + "/m", CLIENTS) as load:
        load.wait_for(100)
        os.kill(shoal.get(controller.pid.remote(), 20), signal.SIGKILL)
        load.wait_for(200)
        assert serve.status(30).application("default").state == "RUNNING"
        load.wait_for(100)
    assert load.lost() == 0, dict(load.counts)


def test_a_killed_ingress_comes_back_on_its_port_and_open_connections_go_on(url):
    serve.run(Model.bind("x"), route_prefix="/m")
    ingress = shoal.get_actor("ingress-0", "shoal-serve")
    with Load(url + "/m", CLIENTS) as load:
        load.wait_for(100)
        os.kill(shoal.get(ingress.pid.remote(), 20), signal.SIGKILL)
        load.wait_for(200)
        shoal.get(ingress.connections.options(max_task_retries=-1).remote(), 30)
    assert load.lost() == 0, "the replicas serve the connections that they have"
    shoal.get(serve.running.find_controller().wait_for_http.remote(), 30)
    assert ask(url + "/m", b"1").status == 200


def test_a_stopped_replica_does_not_hold_up_new_connections_for_ever(url):
    handle = serve.run(
        Model.options(health_check_period_s=0.1, health_check_timeout_s=0.3).bind("x"), route_prefix="/m"
    )
    pid = handle.pid.remote().result(20)
    os.kill(pid, signal.SIGSTOP)
    try:
        controller = serve.running.find_controller()
        shoal.get(controller.wait_for_message.remote("default", "health checks in a row"), 30)
        shoal.get(controller.wait_for_replicas.remote("default", "Model", 2), 30)
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGCONT)
    assert ask(url + "/m", b"1").status == 200
