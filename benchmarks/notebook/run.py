"""What a remote cell costs over the bare task, and how long the stop button takes, in a real kernel.

``make bench-notebook`` writes the table to ``benchmarks/results/notebook.md``.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import subprocess
import time
from pathlib import Path
from typing import Any

from jupyter_client.manager import start_new_kernel

#: Milliseconds.
OVERHEAD_BAR, STOP_BAR = 15.0, 500.0

PREPARE = """
%load_ext shoal
import shoal, time, statistics, json
shoal.init(num_cpus=2)
@shoal.remote
def nothing():
    pass
def in_ms(function, count):
    times = []
    for _ in range(count):
        begin = time.perf_counter()
        function()
        times.append(1e3 * (time.perf_counter() - begin))
    return times
cell = get_ipython().run_cell_magic
for _ in range(20):
    cell("remote", "", "pass")
    shoal.get(nothing.remote())
"""
MEASURE = """
rounds = []
for _ in range({rounds}):
    bare = in_ms(lambda: shoal.get(nothing.remote()), 50)
    remote = in_ms(lambda: cell("remote", "", "pass"), 50)
    rounds.append((statistics.median(bare), statistics.median(remote)))
print(json.dumps(rounds))
"""
#: A cell that runs until it is stopped; the second cannot be interrupted but by the end of its process.
LOOP = "%%remote\nimport time\nprint('begun', flush=True)\nwhile True:\n    time.sleep(0.01)"


class Kernel:
    """A notebook's kernel."""

    def __init__(self) -> None:
        self.manager, self.client = start_new_kernel(kernel_name="python3")

    def run(self, code: str) -> str:
        """Run a cell and return what it printed."""
        printed: list[str] = []

        def hook(message: dict[str, Any]) -> None:
            if message["msg_type"] == "stream" and message["content"]["name"] == "stdout":
                printed.append(message["content"]["text"])

        reply = self.client.execute_interactive(code, output_hook=hook, timeout=300)
        assert reply["content"]["status"] == "ok", reply["content"]
        return "".join(printed)

    def time_to_stop(self) -> float:
        """Run a cell that never ends, press stop, and return the milliseconds until the notebook is free again."""
        cell = self.client.execute(LOOP)
        while True:
            message = self.client.get_iopub_msg(timeout=60)
            if message["parent_header"].get("msg_id") == cell and "begun" in message["content"].get("text", ""):
                break
        begin = time.perf_counter()
        self.manager.interrupt_kernel()
        while self.client.get_shell_msg(timeout=60)["parent_header"].get("msg_id") != cell:
            pass
        return 1e3 * (time.perf_counter() - begin)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--output", type=Path, help="write the table there (.md) and the raw numbers beside it (.json)")
    options = parser.parse_args()
    kernel = Kernel()
    try:
        kernel.run(PREPARE)
        rounds = json.loads(kernel.run(MEASURE.format(rounds=options.rounds)))
        stops = [kernel.time_to_stop() for _ in range(options.rounds)]
    finally:
        kernel.run("shoal.shutdown()")
        kernel.manager.shutdown_kernel(now=True)
    raw = {"bare_ms": [bare for bare, _ in rounds], "cell_ms": [cell for _, cell in rounds], "stop_ms": stops}
    table = render(raw)
    print(table)
    if options.output is not None:
        options.output.with_suffix(".md").write_text(table)
        options.output.with_suffix(".json").write_text(json.dumps(raw, indent=1) + "\n")


def render(raw: dict[str, list[float]]) -> str:
    over = [cell - bare for bare, cell in zip(raw["bare_ms"], raw["cell_ms"], strict=True)]
    rows = [
        ("a bare task, `shoal.get(f.remote())`", raw["bare_ms"], None),
        ("an empty `%%remote` cell", raw["cell_ms"], None),
        ("what the cell costs over the task", over, OVERHEAD_BAR),
        ("stop button to a free notebook, Python code", raw["stop_ms"], STOP_BAR),
    ]
    lines = [
        "# `make bench-notebook`",
        "",
        f"{time.strftime('%Y-%m-%d')}, commit {commit()}, {platform.system()}, {os.cpu_count()} CPUs, "
        f"Python {platform.python_version()}; medians of rounds of 50, with the range of the rounds.",
        "",
        "| what | ms | bar | reached |",
        "|---|---|---|---|",
    ]
    for what, values, bar in rows:
        middle = statistics.median(values)
        reached = "" if bar is None else ("yes" if middle <= bar else "no")
        bar_text = "" if bar is None else f"{bar:g}"
        lines.append(f"| {what} | {middle:.2f} ({min(values):.2f}-{max(values):.2f}) | {bar_text} | {reached} |")
    return "\n".join(lines) + "\n"


def commit() -> str:
    found = subprocess.run(["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True, check=False)
    return found.stdout.strip() or "unknown"


if __name__ == "__main__":
    main()
