"""What tasks, actors and executors print is kept on their nodes and can be read and followed."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from following import Follower

import shoal
from shoal.api.looking import look
from shoal.api.session import owner_or_init
from shoal.runtime.log_files import MAX_FILE

TIMEOUT = 30.0


@shoal.remote
def talk(words: str, count: int = 1) -> str:
    for number in range(count):
        print(words, number)
    print(words, "to stderr", file=sys.stderr)
    return shoal.get_runtime_context().task_id


@shoal.remote
class Talker:
    def say(self, words: str) -> None:
        print(words)

    def pid(self) -> int:
        return os.getpid()

    def say_until(self, gate: Path) -> None:
        number = 0
        while not gate.exists():
            print("still here", number, flush=True)
            number += 1
            time.sleep(0.01)

    def flood(self, count: int) -> float:
        began = time.perf_counter()
        for number in range(count):
            print("line" * 25, number)
        return time.perf_counter() - began


def test_a_tasks_lines_say_when_where_and_whose_they_are(cluster: shoal.Cluster) -> None:
    ref = talk.options(cell="In[7]#ab").remote("hello", 2)
    before = time.time()
    task_id = shoal.get(ref, timeout=TIMEOUT)
    lines = shoal.logs(ref)
    assert [(line.stream, line.text) for line in lines] == [
        ("stdout", "hello 0"),
        ("stdout", "hello 1"),
        ("stderr", "hello to stderr"),
    ]
    assert {(line.task_id, line.function, line.cell, line.actor) for line in lines} == {
        (task_id, "talk", "In[7]#ab", "")
    }
    assert all(abs(line.time - before) < TIMEOUT and line.executor.startswith("exec-") for line in lines)
    assert lines == shoal.logs(task_id) == shoal.logs(ref.id)
    assert str(lines).splitlines()[2].endswith("(talk) [stderr] hello to stderr")
    assert [line.text for line in shoal.logs(ref, tail=1)] == ["hello to stderr"] and shoal.logs(ref, tail=0) == []
    assert [line.text for line in shoal.logs(ref, filter="HELLO 1")] == ["hello 1"]
    assert set(lines) <= set(shoal.logs(lines[0].executor)) and set(lines) <= set(shoal.logs())


def test_silent_tasks_have_no_lines_and_strangers_no_log(cluster: shoal.Cluster) -> None:
    assert repr(shoal.logs(shoal.remote(lambda: 1).remote())) == "<no lines>"
    for target in ("exec-000", "actor-000"):
        with pytest.raises(shoal.errors.OptionError, match="no log of"):
            shoal.logs(target)
    with pytest.raises(shoal.errors.OptionError, match="not the name of an actor"):
        shoal.logs("nobody")
    with pytest.raises(TypeError, match="`logs` takes a ref"):
        shoal.logs(5)
    with pytest.raises(shoal.errors.OptionError, match="`tail`"):
        shoal.logs(tail=-1)


def test_subprocesses_and_c_code_are_in_the_log(cluster: shoal.Cluster) -> None:
    @shoal.remote
    def call() -> None:
        subprocess.run(["sh", "-c", "echo from a child; echo its complaint >&2"], check=True)
        os.write(2, b"from C\n")

    ref = call.options(cell="In[8]#cd").remote()
    shoal.get(ref, timeout=TIMEOUT)
    lines = shoal.logs(ref)
    assert [line.text for line in lines] == ["from a child", "its complaint", "from C"]
    assert {(line.stream, line.function, line.cell) for line in lines} == {("process", "call", "In[8]#cd")}


def test_a_long_task_is_followed_to_its_end(cluster: shoal.Cluster, tmp_path: Path) -> None:
    gate = tmp_path / "gate"

    @shoal.remote
    def work(gate: Path) -> None:
        print("first")
        subprocess.run(["echo", "a child of a long task"], check=True)
        while not gate.exists():
            time.sleep(0.01)
        print("last, without an end", end="")

    ref = work.remote(gate)
    follower = Follower(ref)
    wait_for(lambda: follower.texts == ["first", "a child of a long task"], lambda: str(follower.texts))
    gate.touch()
    follower.join()
    assert follower.texts == ["first", "a child of a long task", "last, without an end"]


def test_an_actor_is_followed_by_name_through_a_restart_to_its_end(cluster: shoal.Cluster) -> None:
    talker = Talker.options(name="talker", max_restarts=1).remote()
    pid = shoal.get(talker.pid.remote(), timeout=TIMEOUT)
    shoal.get(talker.say.remote("before"), timeout=TIMEOUT)
    follower = Follower("talker")
    wait_for(lambda: follower.texts == ["before"], lambda: str(follower.texts))
    os.kill(pid, signal.SIGKILL)
    wait_for(lambda: says(talker, "after"), lambda: "a restart")
    wait_for(lambda: "after" in follower.texts, lambda: str(follower.texts))
    shoal.stop(talker, timeout=TIMEOUT)
    follower.join()
    assert {line.actor for line in follower.lines} == {talker._actor_id}
    assert len({line.executor for line in follower.lines}) == 2


def says(talker: Any, words: str) -> bool:
    with contextlib.suppress(shoal.errors.ActorUnavailableError):
        shoal.get(talker.say.remote(words), timeout=TIMEOUT)
        return True
    return False


def test_an_executor_that_is_killed_ends_its_follower_and_keeps_its_log(cluster: shoal.Cluster, tmp_path: Path) -> None:
    talker = Talker.remote()
    pid = shoal.get(talker.pid.remote(), timeout=TIMEOUT)
    busy = talker.say_until.remote(tmp_path / "never")
    wait_for(lambda: len(shoal.logs(talker)) > 5, lambda: "lines")
    executor_id = shoal.logs(talker)[0].executor
    followers = [Follower(executor_id), Follower(talker), Follower(busy)]
    wait_for(lambda: all(len(follower.lines) > 5 for follower in followers), lambda: "more lines")
    os.kill(pid, signal.SIGKILL)
    for follower in followers:
        follower.join()
    with pytest.raises(shoal.errors.ActorDiedError):
        shoal.get(busy, timeout=TIMEOUT)
    for follower in followers:
        assert follower.texts == [f"still here {number}" for number in range(len(follower.texts))]
    assert len(followers[0].texts) == len(shoal.logs(executor_id))


def test_last_words_come_with_the_error_and_into_the_log(cluster: shoal.Cluster) -> None:
    import ctypes

    crash = shoal.remote(max_retries=0)(lambda: ctypes.string_at(0)).remote()
    with pytest.raises(shoal.errors.ExecutorCrashedError) as caught:
        shoal.get(crash, timeout=TIMEOUT)
    assert "Segmentation fault" in caught.value.stderr
    wait_for(
        lambda: any("Segmentation fault" in line.text for line in shoal.logs() if line.stream == "process"),
        lambda: str(shoal.logs()),
    )


def test_ten_thousand_lines_a_second_are_all_kept(cluster: shoal.Cluster) -> None:
    ref = talk.remote("line", 10_000)
    shoal.get(ref, timeout=TIMEOUT)
    assert [line.text for line in shoal.logs(ref)] == [*(f"line {n}" for n in range(10_000)), "line to stderr"]


def test_a_flood_stays_small_and_says_what_is_missing(cluster: shoal.Cluster) -> None:
    talker = Talker.remote()
    took = shoal.get(talker.flood.remote(1_000_000), timeout=120)
    lines = shoal.logs(talker)
    assert lines[-1].text.endswith(" 999999")
    assert any(line.stream == "gap" and "left out" in line.text for line in lines)
    executor_id = lines[0].executor
    found = [path for path in Path(tempfile.gettempdir()).glob(f"shoal-*-logs-*/{executor_id}.*.log")]
    assert 1 <= len(found) <= 2 and sum(path.stat().st_size for path in found) < 2.5 * MAX_FILE
    assert took < 60


def test_a_torn_log_is_read_as_far_as_it_goes(cluster: shoal.Cluster) -> None:
    talker = Talker.remote()
    for words in ("one", "two", "three"):
        shoal.get(talker.say.remote(words), timeout=TIMEOUT)
    executor_id = shoal.logs(talker)[0].executor
    (path,) = Path(tempfile.gettempdir()).glob(f"shoal-*-logs-*/{executor_id}.*.log")
    data = bytearray(path.read_bytes())
    start = data.index(b"\n") + 1
    data[start : start + 30] = os.urandom(30).replace(b"\n", b"x")
    path.write_bytes(data)
    assert [line.text for line in shoal.logs(talker)] == ["one", "three"]
    path.unlink()
    assert shoal.logs(talker) == []
    shoal.get(talker.say.remote("four"), timeout=TIMEOUT)


def test_following_ends_with_its_time_and_with_the_stop_button(cluster: shoal.Cluster) -> None:
    talker = Talker.remote()
    shoal.get(talker.say.remote("a line"), timeout=TIMEOUT)
    began = time.monotonic()
    assert [line.text for line in shoal.logs(talker, follow=True, timeout=0.5)] == ["a line"]
    assert 0.4 < time.monotonic() - began < 10
    lines = []
    with pytest.raises(KeyboardInterrupt):
        for line in shoal.logs(talker, follow=True):
            lines.append(line.text)
            signal.raise_signal(signal.SIGINT)
    assert lines == ["a line"]
    shoal.get(talker.say.remote("and on it goes"), timeout=TIMEOUT)


def test_nodes_list_their_executors_and_know_their_own_topics(cluster: shoal.Cluster) -> None:
    talker = Talker.remote()
    pid = shoal.get(talker.pid.remote(), timeout=TIMEOUT)
    owner = owner_or_init()
    rows = [row for node in shoal.nodes() for row in look(owner, "executors", target=node.id, timeout=TIMEOUT)]
    (row,) = [row for row in rows if row[1] == pid]
    assert (row[2], row[4]) == ("actor", talker._actor_id) and row[7] > 1_000_000
    node = shoal.nodes()[0].id
    for topic, details, words in [
        ("weather", (), "a node knows nothing of `weather`"),
        ("log", (), "required positional argument"),
        ("log", ("exec-1", "x"), "invalid literal"),
        ("log", ("exec-1",), "this node has no log of `exec-1`"),
        ("log", (f"../{row[0]}",), "this node has no log of"),
        ("stack", ("exec-1",), "this node has no executor `exec-1`"),
        ("profile", ("exec-1", 1e9), "up to 60 s"),
        ("profile", (row[0], "soon"), "could not convert"),
    ]:
        with pytest.raises(shoal.errors.ShoalError, match=re.escape(words)):
            look(owner, topic, *details, target=node, timeout=TIMEOUT)


def test_pending_calls_of_an_actor_are_in_the_snapshot(cluster: shoal.Cluster, tmp_path: Path) -> None:
    talker = Talker.options(name="busy").remote()
    refs = [talker.say_until.remote(tmp_path / "gate"), *(talker.say.remote("x") for _ in range(4))]

    def pending() -> list[int]:
        return [row["pending"] for row in shoal.snapshot()["actors"] if row["name"] == "busy"]

    wait_for(lambda: pending() == [5], lambda: str(pending()))
    (tmp_path / "gate").touch()
    shoal.get(refs, timeout=TIMEOUT)
    wait_for(lambda: pending() == [0], lambda: str(pending()))
    (node, *_) = shoal.snapshot()["nodes"]
    assert node["store"] > 0 and node["gpus"] == []
    kept = shoal.put(bytes(5_000_000))
    wait_for(lambda: max(n["store_used"] for n in shoal.snapshot()["nodes"]) >= 5_000_000, lambda: "store_used")
    del kept


def wait_for(condition: Callable[[], object], what: Callable[[], str]) -> None:
    deadline = time.monotonic() + TIMEOUT
    while not condition():
        if time.monotonic() > deadline:
            pytest.fail(f"not within {TIMEOUT:g} s: {what()}")
        time.sleep(0.02)


@pytest.fixture(autouse=True)
def everything_is_printed_elsewhere() -> Iterator[None]:
    shoal.output.set_sink(lambda event: None)
    yield
    shoal.output.set_sink(None)
