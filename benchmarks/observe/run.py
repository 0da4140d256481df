"""What observing costs: the rate of tasks with and without it, the controller's share, and how long questions take.

Run ``make bench-observe`` on a quiet machine. It writes the tables to ``benchmarks/results/observe.md``.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil

import shoal
import shoal.state
from shoal.launch.dask_cluster import security_from
from shoal.launch.registry import find
from shoal.launch.watching import ClusterWatch
from shoal.model import messages as m
from shoal.observe.event_log import RECORDS, make_frame
from shoal.observe.records import TASK, Batch, RecordBuffer
from shoal.observe.timeline import FINISHED
from shoal.transport.comms import connect
from shoal.transport.stream import Stream

sys.path.insert(0, str(Path(__file__).parent.parent))
from comparing import number, write

#: The most that observing may cost of the task rate, in percent.
COST_BAR = 5.0
#: Records that the controller has, and that come in a second.
RECORDED, RATE, BATCH = 1_000_000, 10_000, 2_500
#: Batches of which the best is what one record costs.
ROUNDS = 40
#: Pairs of blocks of tasks, one with records and one without, that a process is timed with.
PAIRS = 20
#: Seconds for which records come.
SECONDS = 10.0


# -- the rate of tasks, with and without records by turns ------------------------------------------------------------


def measure_rate(count: int) -> None:
    """Print, for each block, tasks per second and the processor time of driver and cluster for one, in µs."""
    note = RecordBuffer.note

    @shoal.remote
    def nothing() -> None:
        pass

    task = nothing.options(cell="In[1]#ab")
    found: dict[str, list[tuple[float, float]]] = {"off": [], "on": []}
    with shoal.init(num_cpus=2) as cluster:
        processes = psutil.Process(), psutil.Process(cluster._session.head.pid)  # type: ignore[union-attr]
        for number_ in range(2 * (PAIRS + 1)):
            # on, off, off, on, …: nothing that changes slowly favours one of them
            mode = "on" if number_ % 4 in (0, 3) else "off"
            RecordBuffer.note = note if mode == "on" else lambda *_: None  # type: ignore[method-assign]
            before, begin = used_by(processes), time.perf_counter()
            shoal.get([task.remote() for _ in range(count)])
            seconds = time.perf_counter() - begin
            time.sleep(0.3)  # the last records are packed and written
            if number_ >= 2:  # the first pair warms up
                found[mode].append((count / seconds, 1e6 * (used_by(processes) - before) / count))
    print(json.dumps(found))


def used_by(processes: tuple[psutil.Process, ...]) -> float:
    """Return the seconds of processor time that some processes have used."""
    return sum(times.user + times.system for times in (process.cpu_times() for process in processes))


def rates_of(count: int, logs: str) -> dict[str, list[list[float]]]:
    environment = {**os.environ, "SHOAL_EVENT_LOG": logs}
    command = [sys.executable, __file__, "--rate", "--count", str(count)]
    result = subprocess.run(command, env=environment, stdout=subprocess.PIPE, check=True, timeout=300)
    return dict(json.loads(result.stdout))


# -- a controller with a million records -----------------------------------------------------------------------------


def make_batch(first: int) -> bytes:
    """Return a packed batch as an owner of many short tasks sends it."""
    buffer, now = RecordBuffer(time.time() - time.monotonic()), time.monotonic()
    for index in range(BATCH):
        ended = now + index / RATE
        executor = f"exec-{index % 8:012x}"
        buffer.note(
            (
                f"task-0123456789-{first + index}", TASK, f"step_{index % 5}", f"In[{index % 20}]#0123456789ab",
                ended - 0.01, ended, 1e-4 + index * 1e-8, executor, FINISHED, 0, "",
            )
        )  # fmt: skip
    batch = buffer.take("driver-bench")
    assert isinstance(batch, Batch)
    return batch.packed


async def send_records(cluster_id: str, on_full: Callable[[], None]) -> None:
    """Be an owner that has recorded a million tasks, and then records on."""
    connection = find(cluster_id)
    assert connection is not None
    comm = await connect(connection.address, security_from(connection.tls_files()), 10.0, to_dask_server=True)
    stream = Stream(comm, lambda *_: None)
    stream.send_nowait(m.OwnerHello(m.PROTOCOL_VERSION, "driver-bench", "job-bench", "tcp://bench", "", True, {}))
    running = asyncio.create_task(stream.run())
    first = 0
    while first < RECORDED:
        stream.send_nowait(stats(make_batch(first)))
        first += BATCH
        await stream.drain()
    on_full()
    begin = time.monotonic()
    for tick in range(int(SECONDS * RATE / BATCH)):
        await asyncio.sleep(max(0.0, begin + tick * BATCH / RATE - time.monotonic()))
        stream.send_nowait(stats(make_batch(first)))
        first += BATCH
    await stream.close(5.0)
    await running


def measure_record() -> list[float]:
    """Return the microseconds that noting, packing and logging one record take."""
    found = []
    for _ in range(ROUNDS):
        buffer = RecordBuffer(0.0)
        begin = time.perf_counter()
        for index in range(BATCH):
            buffer.note((
                f"task-0123456789-{index}", TASK, "step", "In[1]#0123456789ab", 1.0 + index, 2.0 + index, 1e-4,
                "exec-0123456789ab", FINISHED, 0, "",
            ))  # fmt: skip
        noted = time.perf_counter()
        batch = buffer.take("driver-bench")
        packed = time.perf_counter()
        assert batch is not None
        make_frame(RECORDS, tuple(batch), 1.0)
        found.append((noted - begin, packed - noted, time.perf_counter() - packed))
    return [1e6 * min(column) / BATCH for column in zip(*found, strict=True)]


def stats(packed: bytes) -> m.OwnerStats:
    return m.OwnerStats((("In[1]#0123456789ab", "step_1", 0, 0, BATCH, 0, 0, 0.3),), BATCH, packed)


def share_of_controller(head: psutil.Process) -> float:
    """Return which share of a CPU the cluster's process has used for some seconds, in percent."""
    before, begin = head.cpu_times(), time.monotonic()
    time.sleep(SECONDS * 0.8)
    after = head.cpu_times()
    used = after.user + after.system - before.user - before.system
    return 100 * used / (time.monotonic() - begin)


async def watch_answers(cluster_id: str) -> None:
    """Ask the controller something small all the time; print the slowest answer, in ms, for each line that comes."""
    connection = find(cluster_id)
    assert connection is not None
    security = security_from(connection.tls_files())
    watch = ClusterWatch(connection.address, security, lambda *_: None, lambda _: None, interval=60.0)
    await watch.open(10.0)
    line = asyncio.create_task(asyncio.to_thread(sys.stdin.readline))
    slowest = 0.0
    while True:
        begin = time.perf_counter()
        await watch.ask("names", timeout=10.0)
        slowest = max(slowest, time.perf_counter() - begin)
        await asyncio.sleep(0.002)
        if line.done():
            if not line.result():
                break
            print(1e3 * slowest, flush=True)
            slowest, line = 0.0, asyncio.create_task(asyncio.to_thread(sys.stdin.readline))
    await watch.close()


class Other:
    """Another process that asks the controller all the time."""

    def __init__(self, cluster_id: str) -> None:
        command = [sys.executable, __file__, "--watch", cluster_id]
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self.slowest()

    def slowest(self) -> float:
        """Return the slowest answer since last time, in milliseconds."""
        assert self._process.stdin is not None and self._process.stdout is not None
        self._process.stdin.write("\n")
        self._process.stdin.flush()
        return float(self._process.stdout.readline())

    def close(self) -> None:
        self._process.communicate(timeout=20)


def measure_controller(logs: str) -> dict[str, Any]:
    os.environ["SHOAL_EVENT_LOG"] = logs
    with shoal.init(num_cpus=1) as cluster:
        head = psutil.Process(cluster._session.head.pid)  # type: ignore[union-attr]
        idle = share_of_controller(head)
        before = head.memory_info().rss
        full = threading.Event()
        sender = threading.Thread(target=lambda: asyncio.run(send_records(cluster.id, full.set)))
        sender.start()
        full.wait(300)
        time.sleep(1.0)
        busy = share_of_controller(head)
        sender.join()
        found: dict[str, Any] = {
            "record": measure_record(),
            "idle": idle,
            "busy": busy,
            "memory": head.memory_info().rss - before,
        }
        questions: dict[str, Callable[[], Any]] = {
            "`tasks(limit=100)`": lambda: shoal.state.tasks(limit=100),
            "`tasks()`: 10,000": lambda: shoal.state.tasks(),
            "`tasks(cell=, limit=100)`": lambda: shoal.state.tasks(cell="In[7]", limit=100),
            "`tasks(function=)` of none": lambda: shoal.state.tasks(function="nobody"),
            "`tasks(limit=1_000_000)`": lambda: shoal.state.tasks(limit=RECORDED),
            "`summary()`": lambda: shoal.state.summary(),
            "`timeline()`: 50,000": lambda: shoal.state.timeline(),
        }
        other = Other(cluster.id)
        time.sleep(1.0)
        found["quiet"] = other.slowest()
        for name, question in questions.items():
            times, answers = [], []
            for _ in range(3):
                other.slowest()
                begin = time.perf_counter()
                question()
                times.append(1e3 * (time.perf_counter() - begin))
                answers.append(other.slowest())
            found[name] = {"ms": times, "others": answers}
        other.close()
        assert len(shoal.state.tasks(limit=RECORDED, state="finished")) >= RECORDED * 0.99
        cluster_id = cluster.id
    log = Path(logs) / cluster_id
    found["log"] = {"nbytes": sum(file.stat().st_size for file in log.iterdir())}
    begin = time.perf_counter()
    past = shoal.state.open(cluster_id)
    found["log"]["ms"] = 1e3 * (time.perf_counter() - begin)
    found["log"]["tasks"] = len(past.tasks(limit=RECORDED))
    return found


def report(rates: list[dict[str, list[list[float]]]], controller: dict[str, Any]) -> list[str]:
    commit = subprocess.run(["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True).stdout.strip()
    lines = [
        f"{time.strftime('%Y-%m-%d')}, commit {commit}, {platform.system()}, {os.cpu_count()} CPUs, Python "
        f"{platform.python_version()}; load before the run {LOAD:.2f}. Blocks of tasks with and without records take "
        f"turns in one process; medians of {len(rates) * PAIRS} of each, in {len(rates)} processes, with quartiles.",
        "",
        "| one driver, two executors | without records | with records and log | cost | bar | reached |",
        "|---|---|---|---|---|---|",
    ]
    titles = ("tasks per second", "processor time of driver and cluster, µs a task")
    for column, title in enumerate(titles):
        off, on = ([block[column] for found in rates for block in found[mode]] for mode in ("off", "on"))
        change = statistics.median(on) / statistics.median(off)
        cost = 100 * (1 - change if column == 0 else change - 1)
        lines.append(
            f"| {title} | {quartiles(off)} | {quartiles(on)} | {cost:.1f} % | {COST_BAR:g} % | "
            f"{'yes' if cost <= COST_BAR else 'no'} |"
        )
    note, pack, log_frame = controller["record"]
    log = controller["log"]
    lines += [
        "",
        f"One record costs its owner {note + pack:.2f} µs ({note:.2f} to note it, {pack:.2f} to pack it), and the "
        f"thread that writes the log {log_frame:.2f} µs: the best of {ROUNDS} batches of {BATCH:,}.",
        "",
        f"A controller that has {RECORDED:,} records gets {RATE:,} a second. Its process, the whole embedded cluster "
        f"with its node agent, uses {controller['busy']:.1f} % of a CPU, and {controller['idle']:.1f} % when idle; it "
        f"has grown by {controller['memory'] / 2**20:.0f} MiB. Its log has {log['nbytes'] / 2**20:.1f} MiB with the "
        f"last {log['tasks']:,} of them, and is opened in {log['ms']:.0f} ms.",
        "",
        "| question, with a million records | ms | the controller's slowest answer to another process meanwhile, ms |",
        "|---|---|---|",
        f"| nothing, for a second | | {number(controller['quiet'])} |",
    ]
    for name, found in controller.items():
        if name.startswith("`"):
            middle, times = statistics.median(found["ms"]), found["ms"]
            others = found["others"]
            lines.append(
                f"| {name} | {number(middle)} ({number(min(times))}-{number(max(times))}) | {number(max(others))} |"
            )
    return lines


def quartiles(values: list[float]) -> str:
    low, middle, high = statistics.quantiles(values, n=4)
    return f"{number(middle)} ({number(low)}-{number(high)})"


def main() -> None:
    global LOAD
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--count", type=int, default=10_000)
    parser.add_argument("--output", type=Path)
    parser.add_argument("--rate", action="store_true")
    parser.add_argument("--watch")
    args = parser.parse_args()
    if args.watch:
        asyncio.run(watch_answers(args.watch))
        return
    if args.rate:
        measure_rate(args.count)
        return
    LOAD = os.getloadavg()[0]
    with tempfile.TemporaryDirectory() as logs:
        controller = measure_controller(logs)
        rates = [rates_of(args.count, logs) for _ in range(args.rounds)]
    write(args.output, "make bench-observe", report(rates, controller), {"rates": rates, "controller": controller})


LOAD = 0.0
if __name__ == "__main__":
    main()
