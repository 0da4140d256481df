"""A mixed workload on real processes, while they are killed, stopped and cut off at random.

Whatever happens, every result must be right, nothing may hang, and at the end no object and no segment is left. Run
it for long with ``make chaos SECONDS=3600``; a seed repeats the choices made here, though not the timing of processes.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import random
import secrets
import signal
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import psutil
from distributed import LocalCluster
from distributed.security import Security

import shoal
from shoal.api import session
from shoal.runtime.store import Store

NODES = 3
#: Jobs under way at once.
WINDOW = 24
#: Seconds between two faults, and between two ends of whole nodes.
FAULTS, NODE_FAULTS = (0.1, 0.8), 5.0
#: Seconds that a job may take in all this, and until everything is released at the end: strays are looked for slowly.
JOB_TIMEOUT, RELEASE_TIMEOUT = 120.0, 60.0

again = shoal.remote(max_retries=-1)


@again
def small(value: int) -> int:
    return 2 * value + 1


@again
def make(value: int, size: int) -> np.ndarray:
    return np.full(size, value, np.int64)


@again
def add(array: np.ndarray, value: int) -> np.ndarray:
    return array + value


@again
def total(array: np.ndarray) -> int:
    return int(array.sum())


@again
def nested(value: int, width: int) -> int:
    return sum(shoal.get([small.remote(value + number) for number in range(width)]))


@shoal.remote(max_retries=-1, num_returns="streaming")
def stream(value: int, size: int, length: int) -> Iterator[np.ndarray]:
    for number in range(length):
        yield np.full(size, value + number, np.int64)


@shoal.remote(max_retries=-1, num_returns=3)
def several(value: int, size: int) -> tuple[int, np.ndarray, np.ndarray]:
    return value, np.full(size, value, np.int64), np.full(size, 2 * value, np.int64)


@again
def open_box(box: list[Any]) -> int:
    return sum(int(value.sum()) for value in shoal.get(box))


@again
def box_of(value: int, size: int) -> list[Any]:
    """Return refs of objects that this task owns."""
    return [shoal.put(np.full(100, value, np.int64)), shoal.put(value + size)]


@shoal.remote(max_restarts=-1, max_task_retries=-1)
class Adder:
    """Its calls depend on no state, as that ends with its process."""

    def __init__(self, amount: int) -> None:
        self.amount = amount

    def add(self, value: int) -> int:
        return value + self.amount

    def total(self, array: np.ndarray) -> int:
        return int(array.sum()) + self.amount


class Workload:
    """Jobs with known results."""

    def __init__(self, chance: random.Random, adders: list[tuple[int, Any]]) -> None:
        self._chance = chance
        self._adders = adders
        self.kinds: Counter[str] = Counter()

    def job(self) -> tuple[str, Callable[[], Any], Any]:
        """Begin a job; returns its kind, what gives its result, and what that has to be."""
        kind = self._chance.choice([name[4:] for name in dir(self) if name.startswith("job_")])
        self.kinds[kind] += 1
        result, expected = getattr(self, "job_" + kind)(self._chance.randrange(1_000), self._size())
        if callable(result):
            return kind, result, expected
        return kind, lambda: shoal.get(result, timeout=JOB_TIMEOUT), expected

    def _size(self) -> int:
        return self._chance.choice([10, 1_000, 20_000, 200_000])

    def job_small(self, value: int, size: int) -> tuple[Any, Any]:
        return [small.remote(value + number) for number in range(50)], [
            2 * (value + number) + 1 for number in range(50)
        ]

    def job_chain(self, value: int, size: int) -> tuple[Any, Any]:
        ref, length = make.remote(value, size), self._chance.randrange(1, 5)
        for number in range(length):
            ref = add.remote(ref, number)
        return total.remote(ref), size * (value + sum(range(length)))

    def job_kept(self, value: int, size: int) -> tuple[Any, Any]:
        """The value itself comes here, some time later."""
        ref = add.remote(make.remote(value, size), 1)

        def result() -> int:
            return int(shoal.get(ref, timeout=JOB_TIMEOUT).sum())

        return result, size * (value + 1)

    def job_nested(self, value: int, size: int) -> tuple[Any, Any]:
        return nested.remote(value, 5), sum(2 * (value + number) + 1 for number in range(5))

    def job_stream(self, value: int, size: int) -> tuple[Any, Any]:
        values = stream.remote(value, size, 4)

        def result() -> list[int]:
            totals = []
            while True:
                try:
                    ref = values.next(timeout=JOB_TIMEOUT)
                except StopIteration:
                    return totals
                totals.append(int(shoal.get(ref, timeout=JOB_TIMEOUT).sum()))

        return result, [size * (value + number) for number in range(4)]

    def job_several(self, value: int, size: int) -> tuple[Any, Any]:
        one, two, three = several.remote(value, size)
        return [one, total.remote(two), total.remote(three)], [value, size * value, 2 * size * value]

    def job_box(self, value: int, size: int) -> tuple[Any, Any]:
        return open_box.remote([make.remote(value, size), make.remote(1, size)]), size * (value + 1)

    def job_actor(self, value: int, size: int) -> tuple[Any, Any]:
        amount, adder = self._chance.choice(self._adders)
        return [adder.add.remote(value), adder.total.remote(make.remote(value, size))], [
            value + amount,
            size * value + amount,
        ]


class Chaos:
    """What is done to the cluster."""

    def __init__(self, chance: random.Random, cluster: LocalCluster) -> None:
        self._chance = chance
        self._cluster = cluster
        self.faults: Counter[str] = Counter()
        self._next = time.monotonic()
        self._next_node = time.monotonic() + NODE_FAULTS

    def step(self) -> None:
        """Do something, if it is time."""
        now = time.monotonic()
        if now < self._next:
            return
        self._next = now + self._chance.uniform(*FAULTS)
        if now >= self._next_node and len(shoal.nodes()) == NODES:
            self._next_node = now + NODE_FAULTS * self._chance.uniform(0.5, 1.5)
            fault = self._chance.choice([self.kill_node, self.kill_template, self.stop_node])
        else:
            fault = self._chance.choice([self.kill_executor, self.kill_executor, self.stop_executor, self.cut])
        with contextlib.suppress(psutil.Error, ProcessLookupError):
            if fault():
                self.faults[fault.__name__] += 1

    def workers(self) -> list[psutil.Process]:
        return [psutil.Process(nanny.pid) for nanny in self._cluster.workers.values() if nanny.pid]

    def templates(self) -> list[psutil.Process]:
        children = [child for worker in self.workers() for child in worker.children()]
        return [child for child in children if "shoal.runtime.template" in " ".join(child.cmdline())]

    def executors(self) -> list[psutil.Process]:
        return [child for template in self.templates() for child in template.children()]

    def kill_executor(self) -> bool:
        return self._signal(self.executors(), signal.SIGKILL)

    def kill_node(self) -> bool:
        return self._signal(self.workers(), signal.SIGKILL)

    def kill_template(self) -> bool:
        return self._signal(self.templates(), signal.SIGKILL)

    def stop_executor(self) -> bool:
        return self._stop(self.executors())

    def stop_node(self) -> bool:
        return self._stop(self.workers())

    def cut(self) -> bool:
        """Break a connection of the driver's: both ends see it end, and neither process does."""
        peers = session._session.owner.peers
        streams = [stream for stream in peers.streams() if not stream.closed]
        if not streams:
            return False
        session._session.owner.loop.call_soon_threadsafe(self._chance.choice(streams).abort)
        return True

    def _signal(self, processes: list[psutil.Process], number: int) -> bool:
        if processes:
            self._chance.choice(processes).send_signal(number)
        return bool(processes)

    def _stop(self, processes: list[psutil.Process]) -> bool:
        """Stop a process for a moment."""
        if not processes:
            return False
        process = self._chance.choice(processes)
        process.suspend()
        try:
            time.sleep(self._chance.uniform(0.05, 0.5))
        finally:
            process.resume()
        return True


def what_waits() -> str:
    """Say why the work that is under way is not done, for whoever reads of a failure."""
    owner = session._session.owner
    lines = [f"{calls}, coming: {owner.actors._coming}" for calls in owner.actors._actors.values()]
    for work in [*owner.tasks.works(), *owner.actors.works()]:
        try:
            lines.append(str(owner.explain("object", work.object_id, 5.0)))
        except Exception as error:
            lines.append(f"{work.target.name} {work.object_id}: {error!r}")
    return "\n".join(lines)


def run(seed: int, seconds: float, say: Callable[[str], None] = print) -> Counter[str]:
    """Run the workload for *seconds* and check it; returns what was done and what was done to it.

    Raises
    ------
    AssertionError
        A result was wrong, or missing, or something was left at the end.
    """
    say(f"chaos with seed {seed} for {seconds:g} s")
    chance = random.Random(seed)
    with (
        LocalCluster(
            n_workers=NODES,
            threads_per_worker=1,
            security=Security.temporary(),
            dashboard_address=":0",
            protocol="tls://",
        ) as dask_cluster,
        shoal.init(dask_cluster, timeout=60),
    ):
        owner = session._session.owner
        amounts = [chance.randrange(100) for _ in range(2)]
        adders = [(amount, Adder.options(num_cpus=0).remote(amount)) for amount in amounts]
        workload, chaos = Workload(chance, adders), Chaos(chance, dask_cluster)
        jobs: list[tuple[str, Callable[[], Any], Any]] = []
        done = 0
        end = time.monotonic() + seconds
        while time.monotonic() < end or jobs:
            while len(jobs) < WINDOW and time.monotonic() < end:
                jobs.append(workload.job())
                chaos.step()
            kind, result, expected = jobs.pop(chance.randrange(len(jobs)))
            try:
                found = result()
            except Exception as error:
                say(what_waits())
                raise AssertionError(f"seed {seed}: job {done} ({kind}) failed: {error!r}") from error
            assert found == expected, f"seed {seed}: job {done} ({kind}) gave {found}, not {expected}"
            done += 1
            if time.monotonic() < end:
                chaos.step()
        del adders, workload._adders[:], result, expected, found
        stores = [Store(directory, "") for directory in owner.stores.values()]
        deadline = time.monotonic() + RELEASE_TIMEOUT
        while owner.num_objects() or any(store.segments() for store in stores):
            left = [found.name for store in stores for found in store.segments()]
            assert time.monotonic() < deadline, (
                f"seed {seed}: {owner.num_objects()} objects and these segments are left: {left[:20]}"
            )
            time.sleep(0.2)
        summary = Counter({"jobs": done}) + chaos.faults
        say(", ".join(f"{name} {count}" for name, count in summary.items()))
        return summary


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seed", type=int, default=None)
    parser.add_argument("--seconds", type=float, default=60.0, help="of each run")
    parser.add_argument("--runs", type=int, default=1)
    arguments = parser.parse_args()
    first = secrets.randbelow(1_000_000) if arguments.seed is None else arguments.seed
    for seed in range(first, first + arguments.runs):
        run(seed, arguments.seconds, lambda text: print(text, flush=True))


if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).parent))
    os.environ.setdefault("PYTHONPATH", str(Path(__file__).parent))
    main()
