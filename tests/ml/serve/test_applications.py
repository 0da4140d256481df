"""Applications on a cluster: handles, updates in place, roll-backs, limits, scaling."""

from __future__ import annotations

import os
import signal
import threading

import numpy as np
import pytest

import shoal
from shoal_ml import serve

pytestmark = pytest.mark.usefixtures("applications")


@serve.deployment(max_ongoing_requests=20)
class Adder:
    def __init__(self, amount=0):
        self.amount = amount

    def __call__(self, x):
        return x + self.amount

    async def pid(self):
        return os.getpid()

    async def count(self, n):
        for i in range(n):
            yield i


@serve.deployment
class Chain:
    def __init__(self, first, second):
        self.first, self.second = first, second

    async def __call__(self, x):
        return await self.second.remote(self.first.remote(x))


@serve.deployment
class Weights:
    def __init__(self, weights):
        self.weights = weights

    async def __call__(self):
        return float(self.weights.sum()), os.getpid()


def versions(name="default"):
    status = serve.status().application(name)
    return {row.name: {replica.version for replica in row.replicas} for row in status.deployments}


def replica_ids():
    return {replica.replica_id for row in serve.status().application("default").deployments for replica in row.replicas}


def test_calls_chains_and_streams():
    handle = serve.run(Chain.bind(Adder.bind(1), Adder.bind(10)), route_prefix=None)
    assert handle.remote(5).result(20) == 16
    assert list(serve.get_deployment_handle("Adder").options(stream=True).count.remote(3)) == [0, 1, 2]
    status = serve.status().application("default")
    assert status.state == "RUNNING" and status.url == ""
    assert [row.name for row in status.deployments] == ["Chain", "Adder", "Adder_1"]
    assert {row.state for row in status.deployments} == {"HEALTHY"}


def test_two_applications_side_by_side_and_a_handle_in_a_task():
    one = serve.run(Adder.bind(1), name="one", route_prefix=None)
    serve.run(Adder.bind(2), name="two", route_prefix=None)

    @shoal.remote
    def elsewhere(handle, x):
        return handle.remote(x).result(20) + serve.get_app_handle("two").remote(x).result(20)

    assert shoal.get(elsewhere.remote(one, 10), 30) == 23
    assert serve.delete("one") and not serve.delete("one")
    with pytest.raises(serve.UnknownApplicationError, match="one"):
        serve.get_app_handle("one")
    with pytest.raises(serve.UnknownApplicationError):
        one.remote(1).result(20)


def test_weights_are_stored_once_for_all_replicas():
    weights = np.ones(1_000_000)
    app = Weights.options(num_replicas=2).bind(weights)
    handle = serve.run(app, route_prefix=None)
    answers = [handle.remote() for _ in range(20)]
    values = [answer.result(20) for answer in answers]
    assert {value for value, _ in values} == {1_000_000.0}
    assert len({pid for _, pid in values}) == 2
    before = versions()
    serve.run(Weights.options(num_replicas=2).bind(np.ones(1_000_000)), route_prefix=None)
    assert versions() == before, "the same weights are the same version"


def test_an_update_replaces_only_what_has_changed():
    handle = serve.run(Chain.bind(Adder.bind(1), Adder.bind(10)), route_prefix=None)
    pid = serve.get_deployment_handle("Adder").pid.remote().result(20)
    serve.run(Chain.bind(Adder.bind(1), Adder.bind(100)), route_prefix=None)
    assert handle.remote(0).result(20) == 101
    assert serve.get_deployment_handle("Adder").pid.remote().result(20) == pid


def test_user_config_reaches_running_replicas():
    @serve.deployment(user_config=1)
    class Configured:
        def reconfigure(self, config):
            if config < 0:
                raise ValueError("negative")
            self.config = config

        async def __call__(self):
            return self.config, os.getpid()

    handle = serve.run(Configured.bind(), route_prefix=None)
    value, pid = handle.remote().result(20)
    assert value == 1
    serve.run(Configured.options(user_config=2).bind(), route_prefix=None)
    assert handle.remote().result(20) == (2, pid)
    with pytest.raises(serve.DeploymentFailedError, match="negative") as caught:
        serve.run(Configured.options(user_config=-1).bind(), route_prefix=None)
    assert caught.value.rolled_back


def test_a_version_that_does_not_start_is_rolled_back_and_the_old_one_never_stops():
    @serve.deployment(name="Model")
    class Good:
        async def __call__(self):
            return "good"

    @serve.deployment(name="Model")
    class Bad:
        def __init__(self):
            raise ValueError("weights are missing")

        async def __call__(self):
            return "bad"

    handle = serve.run(Good.bind(), route_prefix=None)
    end, answers = threading.Event(), []

    def load():
        while not end.is_set():
            answers.append(handle.remote().result(20))

    thread = threading.Thread(target=load)
    thread.start()
    try:
        with pytest.raises(serve.DeploymentFailedError, match="weights are missing") as caught:
            serve.run(Bad.bind(), route_prefix=None)
    finally:
        end.set()
        thread.join(30)
    assert caught.value.rolled_back and "ValueError" in caught.value.traceback
    assert set(answers) == {"good"}
    status = serve.status().application("default")
    assert status.state == "RUNNING" and "weights are missing" in status.message


def test_a_first_version_that_does_not_start_has_failed():
    @serve.deployment
    class Broken:
        def __init__(self):
            raise ValueError("no such file")

    with pytest.raises(serve.DeploymentFailedError, match="no such file") as caught:
        serve.run(Broken.bind(), route_prefix=None)
    assert not caught.value.rolled_back
    assert serve.status().application("default").state == "DEPLOY_FAILED"
    assert serve.run(Adder.options(name="Broken").bind(1), route_prefix=None).remote(1).result(20) == 2


def test_limits_hold_and_what_is_too_much_is_refused():
    @shoal.remote
    class Gate:
        async def wait(self):
            import asyncio

            await asyncio.Event().wait()

    @serve.deployment(max_ongoing_requests=2, max_queued_requests=1)
    class Slow:
        async def __call__(self, gate):
            await gate.wait.remote()

    gate = Gate.remote()
    handle = serve.run(Slow.bind(), route_prefix=None)
    responses = [handle.remote(gate) for _ in range(3)]
    with pytest.raises(serve.BackPressureError):
        handle.remote(gate)
    for response in responses:
        response.cancel()


def test_a_killed_replica_is_replaced_and_calls_under_way_say_so_or_are_made_again():
    @serve.deployment
    class Mortal:
        def __call__(self, marker, killer):
            if not os.path.exists(marker):
                open(marker, "w").close()
                os.kill(os.getpid(), signal.SIGKILL)
            return killer

    def marker(name):
        return os.path.join(os.environ["SHOAL_EVENT_LOG"], name)

    handle = serve.run(Mortal.bind(), route_prefix=None)
    with pytest.raises(shoal.errors.ActorDiedError):
        handle.remote(marker("first"), 1).result(30)
    assert handle.options(retries=1).remote(marker("second"), 2).result(30) == 2


def test_a_replica_that_fails_its_health_checks_is_replaced():
    @serve.deployment(health_check_period_s=0.05)
    class Sick:
        def __init__(self):
            self.sick = False

        async def __call__(self, sick=False):
            self.sick = sick
            return os.getpid()

        async def check_health(self):
            if self.sick:
                raise RuntimeError("lost the device")

    handle = serve.run(Sick.bind(), route_prefix=None)
    before = replica_ids()
    handle.remote(sick=True).result(20)
    controller = serve.running.find_controller()
    shoal.get(controller.wait_for_message.remote("default", "lost the device"), 30)
    shoal.get(controller.wait_for_replicas.remote("default", "Sick", 1), 30)
    assert not before & replica_ids()


def test_it_scales_from_zero_and_says_why():
    auto = {"min_replicas": 0, "max_replicas": 2, "downscale_delay_s": 0.5, "look_back_period_s": 0.5}
    handle = serve.run(Adder.options(autoscaling_config=auto).bind(1), route_prefix=None)
    (row,) = serve.status().application("default").deployments
    assert row.num_replicas == 0 and row.replicas == () and row.state == "HEALTHY"
    assert handle.remote(1).result(30) == 2
    (row,) = serve.status().application("default").deployments
    assert "there is no replica" in row.decisions[0]["reason"]
    controller = serve.running.find_controller()
    shoal.get(controller.wait_for_replicas.remote("default", "Adder", 0), 30)
    (row,) = serve.status().application("default").deployments
    assert row.num_replicas == 0 and "on average" in row.decisions[-1]["reason"]
    assert handle.remote(2).result(30) == 3


def test_an_application_survives_its_controller():
    handle = serve.run(Adder.bind(5), route_prefix=None)
    pid = handle.pid.remote().result(20)
    controller = serve.running.find_controller()
    os.kill(shoal.get(controller.pid.remote(), 20), signal.SIGKILL)
    assert handle.remote(1).result(20) == 6
    status = serve.status(30)
    assert status.application("default").state == "RUNNING"
    assert handle.pid.remote().result(20) == pid, "the replica is the same"
    serve.run(Adder.bind(6), route_prefix=None)
    assert handle.remote(1).result(20) == 7


def test_names_and_prefixes_are_checked():
    with pytest.raises(shoal.errors.OptionError, match="route_prefix"):
        serve.run(Adder.bind(), route_prefix="no-slash")
    with pytest.raises(shoal.errors.OptionError, match="name"):
        serve.run(Adder.bind(), name="a/b")
    with pytest.raises(shoal.errors.SerializationError, match="lock"):
        serve.run(Adder.bind({"lock": threading.Lock()}), route_prefix=None)
