"""Tasks and actor calls per second, one by one and in flight, and how long the embedded cluster takes to come up.

Run ``make bench-core`` on a quiet machine. Each row is measured ROUNDS times, all rows in turn within a round, so that
a slow moment touches every row alike; the table shows the median and the range. Start-up is measured in fresh
processes.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import psutil

import shoal

ROUNDS = 5

_START = """
import json, time
begin = time.perf_counter()
import shoal
imported = time.perf_counter()
shoal.init()
ready = time.perf_counter()
shoal.get(shoal.remote(lambda: 1).remote())
first = time.perf_counter()
print(json.dumps({"import": imported - begin, "init": ready - begin, "first result": first - begin}))
"""


@shoal.remote
def same(x: object) -> object:
    return x


@shoal.remote
class Same:
    def same(self, x: object) -> object:
        return x


def per_second(run: Callable[[int], None], count: int) -> float:
    begin = time.perf_counter()
    run(count)
    return count / (time.perf_counter() - begin)


def tasks_one_by_one(count: int) -> None:
    for i in range(count):
        shoal.get(same.remote(i))


def tasks_in_flight(count: int) -> None:
    shoal.get([same.remote(i) for i in range(count)])


def calls_one_by_one(actor: shoal.ActorHandle) -> Callable[[int], None]:
    def run(count: int) -> None:
        for i in range(count):
            shoal.get(actor.same.remote(i))

    return run


def calls_in_flight(actor: shoal.ActorHandle) -> Callable[[int], None]:
    return lambda count: shoal.get([actor.same.remote(i) for i in range(count)])


def gets(count: int) -> None:
    ref = shoal.put(1)
    for _ in range(count):
        shoal.get(ref)


def puts(count: int) -> None:
    for i in range(count):
        shoal.put(i)


def new_actors(count: int) -> None:
    for _ in range(count):
        shoal.get(Same.remote().same.remote(1))


def measure_rates() -> dict[str, list[float]]:
    actor = Same.remote()
    rows: dict[str, tuple[Callable[[int], None], int]] = {
        "tasks, one by one": (tasks_one_by_one, 2_000),
        "tasks, in flight": (tasks_in_flight, 20_000),
        "actor calls, one by one": (calls_one_by_one(actor), 2_000),
        "actor calls, in flight": (calls_in_flight(actor), 20_000),
        "get, small": (gets, 20_000),
        "put, small": (puts, 20_000),
        "new actor to first call": (new_actors, 10),
    }
    for run, count in rows.values():
        run(max(1, count // 10))
    rates: dict[str, list[float]] = {name: [] for name in rows}
    for _ in range(ROUNDS):
        for name, (run, count) in rows.items():
            rates[name].append(per_second(run, count))
    return rates


def measure_start() -> dict[str, list[float]]:
    seconds: dict[str, list[float]] = {}
    for _ in range(ROUNDS):
        done = subprocess.run([sys.executable, "-c", _START], capture_output=True, text=True, check=True, timeout=120)
        for name, value in json.loads(done.stdout).items():
            seconds.setdefault(name, []).append(value)
    return seconds


def idle_footprint() -> tuple[float, int]:
    """Return the proportional memory of all the cluster's processes in MiB, and their number; without the driver."""
    processes = psutil.Process().children(recursive=True)
    return sum(process.memory_full_info().pss for process in processes) / 2**20, len(processes)


def machine() -> str:
    commit = subprocess.run(
        ["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True, cwd=Path(__file__).parent
    ).stdout.strip()
    return (
        f"shoal {shoal.__version__} ({commit or 'no commit'}), Python {platform.python_version()}, "
        f"{platform.system()}, {os.cpu_count()} CPUs, load before {os.getloadavg()[0]:.2f}"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--json", metavar="FILE", help="write the raw numbers there as well")
    options = parser.parse_args()
    print(machine(), flush=True)
    with shoal.init():
        time.sleep(1.0)
        footprint, count = idle_footprint()
        rates = measure_rates()
    start = measure_start()
    print(f"\n{'row':<26}{'median':>12}{'range':>24}")
    for name, values in rates.items():
        low, high = min(values), max(values)
        print(f"{name:<26}{statistics.median(values):>10,.0f}/s{f'{low:,.0f} - {high:,.0f}':>24}")
    for name, values in start.items():
        spread = f"{min(values):.2f} - {max(values):.2f}"
        print(f"{'start: ' + name:<26}{statistics.median(values):>10.2f} s{spread:>24}")
    print(f"{'idle memory (PSS)':<26}{footprint:>8.0f} MiB{f'{count} processes':>24}")
    if options.json:
        Path(options.json).write_text(json.dumps({"machine": machine(), "rates": rates, "start": start}, indent=1))


if __name__ == "__main__":
    main()
