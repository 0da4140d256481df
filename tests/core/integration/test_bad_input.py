"""Wrong input: one precise error where the mistake was made, and nothing sent."""

from __future__ import annotations

import os
import pickle
import threading

import pytest

import shoal


@shoal.remote
class Keeper:
    def __init__(self, value):
        self.value = value

    def get(self, *ignored):
        return self.value


@shoal.remote
def same(x):
    return x


def test_an_unknown_option_names_the_closest_one():
    with pytest.raises(shoal.errors.OptionError, match=r"`num_cpu`. Did you mean `num_cpus`\?"):
        shoal.remote(num_cpu=2)
    with pytest.raises(ValueError, match="Did you mean `max_retries`"):
        shoal.remote(lambda: 1).options(max_retrys=1)


@pytest.mark.parametrize(
    "options",
    [
        {"num_cpus": -1},
        {"num_cpus": "two"},
        {"num_cpus": True},
        {"num_cpus": float("nan")},
        {"memory": 1.5},
        {"max_retries": -2},
        {"name": 3},
        {"resources": {"num_cpus": 1}},
        {"resources": ["gpu"]},
        {"resources": {"disk": -1}},
    ],
)
def test_option_values_out_of_range(options):
    (name,) = options
    with pytest.raises(shoal.errors.OptionError, match=f"`{name}"):
        shoal.remote(**options)(print)


def test_more_than_the_cluster_has_is_said_at_once(embedded):
    with pytest.raises(shoal.errors.InfeasibleError, match=r"num_cpus=100.*num_cpus=2") as caught:
        shoal.get(shoal.remote(num_cpus=100)(lambda: 1).remote(), timeout=10)
    assert caught.value.asked == {"num_cpus": 100.0}

    @shoal.remote(resources={"fpga": 1})
    class NeedsFpga:
        def ping(self):
            return 1

    actor = NeedsFpga.remote()
    for _ in range(3):  # before and after the cluster has said so
        with pytest.raises(shoal.errors.InfeasibleError, match="fpga"):
            shoal.get(actor.ping.remote(), timeout=10)


def test_a_feasible_task_still_runs_after_an_infeasible_one(embedded):
    with pytest.raises(shoal.errors.InfeasibleError):
        shoal.get(shoal.remote(num_cpus=3)(lambda: 1).remote(), timeout=10)
    assert shoal.get(shoal.remote(num_cpus=2)(lambda: 1).remote(), timeout=10) == 1


def test_what_does_not_pickle_is_named_by_its_path(embedded):
    class Logger:
        def __init__(self):
            self._lock = threading.Lock()

    class Model:
        def __init__(self):
            self.layers = [1, 2]
            self.logger = Logger()

    with pytest.raises(shoal.errors.SerializationError) as caught:
        shoal.put({"model": Model()})
    assert caught.value.path.endswith("['model'].logger._lock")
    lock = threading.Lock()
    with pytest.raises(TypeError, match="lock"):
        shoal.remote(lambda: lock).remote()
    with pytest.raises(TypeError, match="arguments of"):
        shoal.remote(lambda x: x).remote(lock)


def test_a_result_that_does_not_pickle_is_the_tasks_error(embedded):
    with pytest.raises(shoal.errors.SerializationError, match="result of"):
        shoal.get(shoal.remote(lambda: threading.Lock()).remote(), timeout=10)


def test_a_missing_method_is_said_at_the_call(embedded):
    @shoal.remote
    class Greeter:
        def greet(self):
            return "hi"

    with pytest.raises(AttributeError, match=r"no method `great`. Did you mean `greet`\?"):
        Greeter.remote().great.remote()


def test_remote_things_are_not_called_directly(embedded):
    with pytest.raises(TypeError, match=r"call `f.remote"):
        f = shoal.remote(lambda: 1)
        f.__wrapped__.__name__ = "f"
        f()
    with pytest.raises(TypeError, match="is remote already"):
        shoal.remote(f)
    with pytest.raises(TypeError, match="a function or a class"):
        shoal.remote(3)


@pytest.mark.parametrize("call", [shoal.get, shoal.wait], ids=["get", "wait"])
def test_what_is_not_a_ref_is_refused(embedded, call):
    with pytest.raises(TypeError, match="Expected ObjectRefs, got int"):
        call([1, 2])


def test_values_of_get_put_and_wait_are_checked(embedded):
    ref = shoal.put(1)
    with pytest.raises(TypeError, match="in the cluster already"):
        shoal.put(ref)
    with pytest.raises(ValueError, match="`timeout`"):
        shoal.get(ref, timeout=-1)
    with pytest.raises(ValueError, match="`num_returns`"):
        shoal.wait([ref], num_returns=2)
    with pytest.raises(ValueError, match="each ref once"):
        shoal.wait([ref, ref])
    with pytest.raises(TypeError, match="cancel"):
        shoal.cancel("task-1")
    assert shoal.get([]) == []


def test_a_ref_cannot_be_pickled_by_hand(embedded):
    with pytest.raises(shoal.errors.SerializationError, match="keep the object alive"):
        pickle.dumps(shoal.put(1))


def test_a_handle_cannot_be_pickled_by_hand(embedded):
    actor = Keeper.remote(1)
    with pytest.raises(shoal.errors.SerializationError, match=r"<actor Keeper .* keep the actor alive"):
        pickle.dumps(actor)


def test_init_twice_is_one_cluster(embedded):
    assert shoal.init().id == embedded.id
    assert shoal.init(embedded.name).id == embedded.id
    with pytest.raises(shoal.errors.OptionError, match="before joining `elsewhere`"):
        shoal.init("elsewhere")


def test_a_forked_child_has_no_session(embedded):
    read, write = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.write(write, b"yes" if shoal.is_initialized() else b"no")
        os._exit(0)
    os.waitpid(pid, 0)
    assert os.read(read, 10) == b"no"
    os.close(read)
    os.close(write)
    assert shoal.get(shoal.put(1)) == 1


def test_names_that_are_no_utf8_travel(embedded):
    """File names can hold such bytes, and people name things after files."""
    odd = os.fsdecode(b"data-\xff.csv")
    assert shoal.get(same.options(name=odd).remote(odd), timeout=30) == odd
    with pytest.raises(ValueError, match="no actor called"):
        shoal.get_actor(odd)
    assert shoal.get(same.remote(1), timeout=30) == 1


def test_a_concurrency_group_that_is_not_there(embedded):
    actor = Keeper.options(concurrency_groups={"io": 2}).remote(1)
    assert shoal.get(actor.get.options(concurrency_group="io").remote(), timeout=30) == 1
    with pytest.raises(shoal.errors.OptionError, match=r"`ioo`.* Did you mean `io`\?"):
        actor.get.options(concurrency_group="ioo")


@pytest.mark.parametrize("others", ["CPU", "GPU"])
def test_resources_by_their_names_elsewhere(others):
    for use in (lambda: same.options(resources={others: 1}), lambda: shoal.placement_group([{others: 1}])):
        with pytest.raises(shoal.errors.OptionError, match=f"`{others}` is called `num_{others.lower()}s` here"):
            use()


@pytest.mark.parametrize("option", [{"num_cpus": 7}, {"object_store_memory": 5e6}, {"resources": {"x": 1}}])
def test_another_call_of_init_does_not_change_what_runs(embedded, option):
    (name,) = option
    with pytest.raises(shoal.errors.OptionError, match=f"which was not started with `{name}=.*shutdown"):
        shoal.init(**option)
    assert shoal.init(num_cpus=2)._session is embedded._session and shoal.init()._session is embedded._session


def test_nor_does_another_cluster(embedded):
    class Elsewhere:
        scheduler_address = "tls://127.0.0.1:1"

    with pytest.raises(shoal.errors.OptionError, match=r"before joining `tls://127.0.0.1:1`"):
        shoal.init(Elsewhere())
    with pytest.raises(TypeError, match="not int"):
        shoal.init(3)
