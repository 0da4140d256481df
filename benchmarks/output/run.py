"""What printing in tasks costs, and how much of it reaches a notebook's kernel.

Run ``make bench-output`` on a quiet machine. A real kernel, spoken to as a notebook speaks to it; every row is
measured ``--rounds`` times and shown as median (least to most).
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import sys
import time
from typing import Any

from jupyter_client.manager import KernelManager

TIMEOUT = 120.0
SET_UP = """
%load_ext shoal
import gc, shoal
shoal.init(num_cpus=2)
from shoal_kernel.output_settings import OutputSettings
from shoal_kernel.routing import OutputRouter
(router,) = [found for found in gc.get_objects() if isinstance(found, OutputRouter)]

@shoal.remote
def flood(rank):
    for number in range(125_000):
        print("of", rank, "line", number)
"""
#: One print in a task, beside the same print to a file: microseconds.
PER_LINE = """%%remote
import os, sys, time

def seconds(file, count):
    begin = time.perf_counter()
    for number in range(count):
        print("step", number, "loss", 0.123456, file=file)
    return time.perf_counter() - begin

with open(os.devnull, "w") as null:
    to_file = min(seconds(null, 20_000) for _ in range(5)) / 20_000
steady = seconds(sys.stdout, 20_000) / 20_000
flooded = seconds(sys.stdout, 1_000_000) / 1_000_000
to_file * 1e6, steady * 1e6, flooded * 1e6
"""
LINES = 200_000
#: Far below what is cut as a flood, at the speed of the slowest part.
STREAM = f"%%remote\nimport time\nfor n in range({LINES}):\n    print(n)\n    if n % 2_000 == 0: time.sleep(0.001)"
STEADY = """%%remote
import time
begin = time.monotonic()
for n in range(30_000):
    print("step", n, "of a training run, loss 0.123456")
    if n % 100 == 99: time.sleep(max(0, begin + n / 10_000 - time.monotonic()))
"""
MILLION = "%%remote\nfor number in range(1_000_000):\n    print(number)"
EIGHT = """
names = [f"rank {rank}" for rank in range(8)]
with router.open_lanes(names) as lanes:
    shoal.get([flood.options(name=name, cell=lanes.tag).remote(rank) for rank, name in enumerate(names)])
"""


class Kernel:
    """A kernel and what its cells publish."""

    def __init__(self) -> None:
        self._manager = KernelManager(kernel_name="python3")
        self._manager.start_kernel()
        self._client = self._manager.blocking_client()
        self._client.start_channels()
        self._client.wait_for_ready(timeout=TIMEOUT)

    def close(self) -> None:
        self.run("shoal.shutdown()")
        self._client.stop_channels()
        self._manager.shutdown_kernel(now=True)

    def run(self, code: str) -> dict[str, Any]:
        """Run a cell; returns its seconds, the bytes it published, its printed lines and its value."""
        begin = time.perf_counter()
        msg_id = self._client.execute(code)
        seen: dict[str, Any] = {"bytes": 0, "lines": 0, "messages": 0, "value": None}
        while True:
            message = self._client.get_iopub_msg(timeout=TIMEOUT)
            if message["parent_header"].get("msg_id") != msg_id:
                continue
            content = message["content"]
            seen["bytes"] += len(json.dumps(content))
            seen["messages"] += 1
            if message["msg_type"] == "stream":
                seen["lines"] += content["text"].count("\n")
            elif message["msg_type"] == "execute_result":
                seen["value"] = content["data"]["text/plain"]
            elif message["msg_type"] == "error":
                raise RuntimeError("\n".join(content["traceback"]))
            elif message["msg_type"] == "status" and content["execution_state"] == "idle":
                return {**seen, "seconds": time.perf_counter() - begin}

    def rss(self) -> int:
        return int(self.run("__import__('psutil').Process().memory_info().rss")["value"])


def measure(kernel: Kernel, rows: dict[str, list[float]]) -> None:
    def add(row: str, value: float) -> None:
        rows.setdefault(row, []).append(value)

    kernel.run("router.settings = OutputSettings(max_lines=1_000_000)")
    for row, value in zip(
        ("print to a file, µs", "print in a task, µs", "print in a flood, µs"),
        json.loads(kernel.run(PER_LINE)["value"].replace("(", "[").replace(")", "]")),
        strict=True,
    ):
        add(row, value)
    seen = kernel.run(STREAM)
    add("lines that arrive per second", seen["lines"] / seen["seconds"])
    add("of 200,000 lines arrive", seen["lines"])
    add("of 30,000 lines at 10,000 a second arrive", kernel.run(STEADY)["lines"])
    for live in (False, True):
        kernel.run(f"router.settings = OutputSettings(live={live})")
        for name, code in (("one task", MILLION), ("8 tasks", EIGHT)):
            before = kernel.rss()
            seen = kernel.run(code)
            what = f"a million lines of {name}, {'lanes' if live else 'text'}"
            add(f"{what}: seconds", seen["seconds"])
            add(f"{what}: MB published", seen["bytes"] / 1e6)
            add(f"{what}: messages", seen["messages"])
            add(f"{what}: MB that the kernel grew", (kernel.rss() - before) / 1e6)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    rounds = parser.parse_args().rounds
    rows: dict[str, list[float]] = {}
    kernel = Kernel()
    try:
        kernel.run(SET_UP)
        for turn in range(rounds):
            print(f"round {turn + 1} of {rounds}", file=sys.stderr)
            measure(kernel, rows)
    finally:
        kernel.close()
    print(f"Python {platform.python_version()}, {os.cpu_count()} CPUs, {rounds} rounds: median (least to most)\n")
    for row, values in rows.items():
        print(f"{row:60} {statistics.median(values):12,.2f} ({min(values):,.2f} to {max(values):,.2f})")


if __name__ == "__main__":
    main()
