"""What is promised when things break, on real processes that really break."""

from __future__ import annotations

import os
import signal
import time
import traceback

import numpy as np
import pytest

import shoal


class CustomError(Exception):
    def __init__(self, code):
        super().__init__(f"code {code}")
        self.code = code


def test_a_users_error_keeps_type_attributes_and_traceback(cluster):
    @shoal.remote
    def fail():
        raise CustomError(7)

    with pytest.raises(CustomError, match="code 7") as caught:
        shoal.get(fail.remote(), timeout=30)
    assert caught.value.code == 7
    frames = traceback.extract_tb(caught.value.__traceback__)
    assert frames[-1].name == "fail"
    assert frames[-1].filename == __file__
    assert frames[-1].line == "raise CustomError(7)"
    assert not [frame for frame in frames if frame.name == "call_user"]
    assert any("attempt 1" in note for note in caught.value.__notes__)


def test_a_standard_error_is_caught_by_its_type_and_keeps_its_cause(cluster):
    @shoal.remote
    def fail():
        try:
            {}["missing"]
        except KeyError as error:
            raise ValueError("wrapped") from error

    with pytest.raises(ValueError, match="wrapped") as caught:
        shoal.get(fail.remote(), timeout=30)
    assert isinstance(caught.value.__cause__, KeyError)


def test_an_error_that_does_not_pickle_still_says_what_it_was(cluster):
    @shoal.remote
    def fail():
        class Local(Exception):
            def __reduce__(self):
                raise TypeError("no")

        raise Local("the words")

    with pytest.raises(shoal.errors.RemoteError, match="the words") as caught:
        shoal.get(fail.remote(), timeout=30)
    assert caught.value.type_name.endswith("Local")


def test_an_error_reaches_what_depends_on_it(cluster):
    @shoal.remote
    def fail():
        raise CustomError(1)

    @shoal.remote
    def use(x):
        return x

    with pytest.raises(CustomError):
        shoal.get(use.remote(use.remote(fail.remote())), timeout=30)


def test_the_first_error_of_many_raises_at_once(cluster, tmp_path):
    @shoal.remote
    def until(path):
        deadline = time.monotonic() + 20
        while not path.exists():
            assert time.monotonic() < deadline
            time.sleep(0.005)

    @shoal.remote
    def fail():
        raise CustomError(2)

    slow = until.remote(tmp_path / "go")
    with pytest.raises(CustomError):
        shoal.get([slow, fail.remote()], timeout=15)
    (tmp_path / "go").touch()
    shoal.get(slow, timeout=30)


def test_a_task_whose_executor_dies_is_run_again(cluster, tmp_path):
    @shoal.remote
    def die_once():
        if not (tmp_path / "died").exists():
            (tmp_path / "died").touch()
            os.kill(os.getpid(), signal.SIGKILL)
        return "alive"

    assert shoal.get(die_once.remote(), timeout=30) == "alive"


def test_a_task_that_always_kills_its_executor_says_how_and_with_what_words(cluster, tmp_path):
    @shoal.remote(max_retries=1)
    def die():
        with open(tmp_path / "attempts", "a") as file:
            file.write("x")
        os.write(2, b"famous last words\n")
        os.kill(os.getpid(), signal.SIGSEGV)
        time.sleep(10)

    with pytest.raises(
        shoal.errors.ExecutorCrashedError, match=r"SIGSEGV, having used up to [\d.]+ MiB of memory"
    ) as caught:
        shoal.get(die.remote(), timeout=30)
    assert "famous last words" in caught.value.stderr
    assert (tmp_path / "attempts").read_text() == "xx"


def test_work_sent_ahead_survives_the_death_of_its_executor(cluster):
    @shoal.remote
    def work(x):
        if x == 30:
            os._exit(7)
        return x

    shoal.get([work.remote(-1) for _ in range(20)], timeout=30)
    refs = [work.options(max_retries=0).remote(i) for i in range(100)]
    with pytest.raises(shoal.errors.ExecutorCrashedError, match="status 7"):
        shoal.get(refs[30], timeout=30)
    # What was sent after it had not begun and is simply run elsewhere. What came before it has run, and may have lost
    # its result with the executor: with `max_retries=0` it must not run twice.
    assert shoal.get(refs[31:], timeout=30) == list(range(31, 100))
    for ref, x in zip(refs[:30], range(30), strict=True):
        try:
            assert shoal.get(ref, timeout=30) == x
        except shoal.errors.ExecutorCrashedError as error:
            assert "status 7" in str(error)


def test_an_actor_that_dies_says_so_for_ever(cluster):
    @shoal.remote
    class Mortal:
        def die(self):
            os._exit(3)

        def ping(self):
            return 1

    mortal = Mortal.remote()
    assert shoal.get(mortal.ping.remote(), timeout=30) == 1
    with pytest.raises(shoal.errors.ActorDiedError, match="status 3"):
        shoal.get(mortal.die.remote(), timeout=30)
    with pytest.raises(shoal.errors.ActorDiedError, match="status 3"):
        shoal.get(mortal.ping.remote(), timeout=30)


def test_an_actor_whose_init_fails_raises_that_error_and_is_dead(cluster, wait_until):
    @shoal.remote
    class Broken:
        def __init__(self):
            raise CustomError(5)

        def ping(self):
            return 1

    broken = Broken.remote()
    for _ in range(3):
        with pytest.raises(shoal.errors.ActorDiedError, match="CustomError: code 5"):
            shoal.get(broken.ping.remote(), timeout=30)
    with pytest.raises(shoal.errors.ActorDiedError, match="CustomError: code 5"):
        shoal.get(broken.ping.remote(), timeout=30)


def test_a_killed_actor_is_gone(cluster, wait_until):
    @shoal.remote
    class Victim:
        def pid(self):
            return os.getpid()

        def forever(self):
            time.sleep(300)

    victim = Victim.remote()
    pid = shoal.get(victim.pid.remote(), timeout=30)
    pending = victim.forever.remote()
    shoal.kill(victim)
    with pytest.raises(shoal.errors.ActorDiedError, match="was killed"):
        shoal.get(pending, timeout=30)
    wait_until(lambda: not os.path.exists(f"/proc/{pid}"), "the end of the actor's process")


def test_an_actor_ends_with_its_last_handle_but_not_before_its_calls(cluster, wait_until):
    @shoal.remote
    class Short:
        def work(self):
            time.sleep(0.1)
            return os.getpid()

    pid = shoal.get(Short.remote().work.remote(), timeout=30)
    wait_until(lambda: not os.path.exists(f"/proc/{pid}"), "the end of the actor's process")


def test_cancelling_what_runs_interrupts_it(cluster, tmp_path):
    @shoal.remote
    def forever():
        (tmp_path / "began").touch()
        try:
            while True:
                time.sleep(0.01)
        finally:
            (tmp_path / "ended").touch()

    ref = forever.remote()
    deadline = time.monotonic() + 20
    while not (tmp_path / "began").exists():
        assert time.monotonic() < deadline
        time.sleep(0.01)
    shoal.cancel(ref)
    with pytest.raises(shoal.errors.TaskCancelledError):
        shoal.get(ref, timeout=20)
    assert (tmp_path / "ended").exists()
    shoal.cancel(ref)  # harmless


def test_cancelling_what_waits_keeps_it_from_beginning(cluster, tmp_path):
    @shoal.remote(num_cpus=1)
    def until():
        deadline = time.monotonic() + 20
        while not (tmp_path / "go").exists():
            assert time.monotonic() < deadline
            time.sleep(0.005)

    @shoal.remote(num_cpus=1)
    def never():
        (tmp_path / "never").touch()

    blockers = [until.remote(), until.remote()]
    ref = never.remote()
    shoal.cancel(ref)
    with pytest.raises(shoal.errors.TaskCancelledError):
        shoal.get(ref, timeout=20)
    (tmp_path / "go").touch()
    shoal.get(blockers, timeout=30)
    assert not (tmp_path / "never").exists()


def test_cancelling_one_call_keeps_the_actors_state(cluster):
    @shoal.remote
    class Keeper:
        def __init__(self):
            self.n = 0

        def add(self):
            self.n += 1
            return self.n

        def forever(self):
            while True:
                time.sleep(0.01)

    keeper = Keeper.remote()
    assert shoal.get(keeper.add.remote(), timeout=30) == 1
    ref = keeper.forever.remote()
    shoal.cancel(ref)
    with pytest.raises(shoal.errors.TaskCancelledError):
        shoal.get(ref, timeout=20)
    assert shoal.get(keeper.add.remote(), timeout=20) == 2


def test_a_task_that_calls_sys_exit_fails_and_its_executor_lives(cluster):
    @shoal.remote
    def leave():
        raise SystemExit(4)

    @shoal.remote
    def fine():
        return 1

    with pytest.raises(RuntimeError, match=r"sys\.exit"):
        shoal.get(leave.remote(), timeout=30)
    assert shoal.get(fine.remote(), timeout=30) == 1


def test_the_owner_of_a_value_can_die(cluster):
    @shoal.remote
    class Maker:
        def make(self):
            return [shoal.put(np.arange(3))]

        def die(self):
            os._exit(1)

    @shoal.remote
    def slow():
        time.sleep(300)

    maker = Maker.remote()
    (inner,) = shoal.get(maker.make.remote(), timeout=30)
    with pytest.raises(shoal.errors.ActorDiedError):
        shoal.get(maker.die.remote(), timeout=30)
    with pytest.raises((shoal.errors.OwnerDiedError, shoal.errors.ObjectLostError)):
        shoal.get(inner, timeout=30)


def test_cancelling_a_task_stops_what_it_has_submitted(cluster, tmp_path, wait_until):
    @shoal.remote
    def inner(name):
        (tmp_path / f"{name}-began").touch()
        try:
            while True:
                time.sleep(0.01)
        finally:
            (tmp_path / f"{name}-ended").touch()

    @shoal.remote
    def outer():
        shoal.get([inner.remote("a"), inner.remote("b")])

    ref = outer.remote()
    wait_until(lambda: (tmp_path / "a-began").exists() and (tmp_path / "b-began").exists(), "the nested tasks' begin")
    shoal.cancel(ref)
    with pytest.raises(shoal.errors.TaskCancelledError):
        shoal.get(ref, timeout=20)
    wait_until(lambda: (tmp_path / "a-ended").exists() and (tmp_path / "b-ended").exists(), "the nested tasks' end")


def test_a_call_whose_argument_failed_does_not_hold_up_those_behind_it(cluster):
    @shoal.remote
    def fail():
        raise CustomError(3)

    @shoal.remote
    class Adder:
        def add(self, x):
            return x + 1

    adder = Adder.remote()
    failing = adder.add.remote(fail.remote())
    assert shoal.get(adder.add.remote(1), timeout=20) == 2
    with pytest.raises(CustomError):
        shoal.get(failing, timeout=20)


def test_a_task_that_prints_what_utf8_cannot_say(cluster, capfd):
    @shoal.remote
    def talk():
        print("odd \udc80 text")
        return 1

    assert shoal.get([talk.remote(), talk.remote()], timeout=20) == [1, 1]
