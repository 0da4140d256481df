"""shoal beside Ray on one machine, in one run, row by row; and how long each takes to come up.

Run ``make bench-core`` on a quiet machine. The rows are those of Ray's own microbenchmark. Each system has a process of
its own that stays warm; within a round every row is measured for one system and then for the other, the order changing
from round to round, so that a slow moment touches both alike. Only one is ever at work.
"""

from __future__ import annotations

import argparse
import dataclasses
import statistics
import sys
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE.parent))
from comparing import BUILD, System, header, number, write  # noqa: E402
from startup import start_once  # noqa: E402


@dataclasses.dataclass(frozen=True)
class Row:
    name: str
    title: str
    #: Operations in one measurement, of shoal and of Ray: about a second's worth each.
    counts: tuple[int, int]
    #: How many times Ray's rate is to be reached.
    bar: float
    #: What one operation is worth in the unit shown.
    scale: float = 1.0
    unit: str = "/s"
    #: The rate to reach where that, and not the ratio, is the bar.
    bar_rate: float = 0.0


ROWS = [
    Row("get_small", "get, small", (50_000, 10_000), 10),
    Row("put_small", "put, small", (20_000, 2_000), 10),
    Row("get_with_10k_refs", "get of an object that holds 10,000 refs", (5, 5), 1),
    Row("wait_1k_refs", "wait, one by one, over 1,000 refs", (5, 1), 20),
    Row("tasks_sync", "tasks, one by one", (2_000, 700), 2.5),
    Row("tasks_async", "tasks, 1,000 in flight", (20_000, 2_000), 10),
    Row("tasks_from_4_actors", "tasks from four actors", (20_000, 2_000), 8),
    Row("calls_sync", "actor calls, one by one", (3_000, 1_500), 1.3),
    Row("calls_async", "actor calls in flight", (20_000, 4_000), 7),
    Row("calls_concurrent", "calls of a concurrent actor in flight", (20_000, 4_000), 7),
    Row("async_calls_sync", "async actor calls, one by one", (2_000, 1_000), 1.3),
    Row("async_calls_async", "async actor calls in flight", (20_000, 2_000), 7),
    Row("calls_n_to_n", "n:n actor calls", (20_000, 4_000), 5),
    Row("calls_n_to_n_with_ref", "n:n actor calls with a ref", (10_000, 2_000), 5),
    Row("async_calls_n_to_n", "n:n async actor calls", (20_000, 4_000), 5),
    Row("new_actor", "new actors, each to its first call", (10, 2), 1, bar_rate=25.0),
    Row("placement_groups", "placement groups made and removed", (200, 50), 5),
]

#: Rows of shoal alone: name, title, operations, seconds that Ray publishes for a far larger machine.
LIMITS = [
    ("task_with_10k_refs", "one task with 10,000 refs as arguments", 1, 17.2),
    ("task_with_3k_returns", "one task with 3,000 returns", 1, 5.7),
    ("get_10k_objects", "get of 10,000 objects", 1, 23.5),
]
#: Numbers of tasks, the last of them one of Ray's limits: title and seconds as above.
GROWTH = (1_000, 10_000, 100_000, 1_000_000)
MANY_TASKS = ("1,000,000 tasks queued, run and let go", 184.0)
#: Numbers that are not ratios: megabytes and seconds to stay under.
START_BAR, IDLE_BAR, TASK_BYTES_BAR = 2.0, 250.0, 2_048.0


def compare(rows: list[Row], rounds: int, systems: dict[str, System]) -> dict[str, dict[str, Any]]:
    """Return the rates of each row and system, or why there are none."""
    found: dict[str, dict[str, Any]] = {row.name: {"shoal": [], "ray": []} for row in rows}
    for turn in range(-1, rounds):  # the first round only warms up
        for row in rows:
            for system in ("shoal", "ray") if turn % 2 else ("ray", "shoal"):
                count = row.counts[system == "ray"]
                answer = systems[system].run(row.name, max(1, count // 10) if turn < 0 else count)
                if "error" in answer:
                    found[row.name][f"{system} error"] = answer["error"]
                elif turn >= 0:
                    found[row.name][system].append(count * row.scale / answer["seconds"])
        print(f"round {turn + 1} of {rounds}", file=sys.stderr, flush=True)
    return found


def table(rows: list[Row], found: dict[str, dict[str, Any]]) -> list[str]:
    lines = ["| row | shoal | Ray | ratio | bar | reached |", "|---|---|---|---|---|---|"]
    for row in rows:
        cells, medians = [], []
        for system in ("shoal", "ray"):
            rates = found[row.name][system]
            if rates:
                medians.append(statistics.median(rates))
                cells.append(f"{number(medians[-1])}{row.unit} ({number(min(rates))}-{number(max(rates))})")
            else:
                cells.append(f"not available: {found[row.name].get(f'{system} error', '')[:80]}")
        if len(medians) == 2:
            ratio = medians[0] / medians[1]
            reached = medians[0] >= row.bar_rate if row.bar_rate else ratio >= row.bar
            bar = f"{row.bar_rate:g}/s" if row.bar_rate else f"{row.bar:g}x"
            verdict = f"{ratio:.1f}x | {bar} | {'yes' if reached else 'no'}"
        else:
            verdict = f"- | {row.bar:g}x | -"
        lines.append(f"| {row.title} | {' | '.join(cells)} | {verdict} |")
    return lines


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--ray-python", required=True, help="interpreter of the environment that has Ray")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--rows", default="", help="only rows whose name contains this")
    parser.add_argument("--quick", action="store_true", help="two rounds, no start-up, no large rows")
    parser.add_argument("--output", type=Path, help="write the table there (.md) and the raw numbers beside it (.json)")
    options = parser.parse_args()
    rounds = 2 if options.quick else options.rounds
    rows = [row for row in ROWS if options.rows in row.name]
    lines = [header(options.ray_python), ""]
    raw: dict[str, Any] = {"header": lines[0]}
    pythons = {"shoal": sys.executable, "ray": options.ray_python, "dask": sys.executable}
    whole = not options.rows and not options.quick

    if whole:
        raw["start"] = {system: [start_once(python, system) for _ in range(3)] for system, python in pythons.items()}
    BUILD.mkdir(exist_ok=True)
    with open(BUILD / "bench-errors.log", "w") as errors:
        systems = {
            "shoal": System(sys.executable, HERE / "rows_shoal.py", errors),
            "ray": System(options.ray_python, HERE / "rows_ray.py", errors),
        }
        raw["rows"] = compare(rows, rounds, systems)
        systems["ray"].close()
        if whole:
            raw["limits"] = {name: systems["shoal"].run(name, count) for name, _, count, _ in LIMITS}
        systems["shoal"].close()
        if whole:
            # A process that has not held a million objects before, whose memory it would use again.
            fresh = System(sys.executable, HERE / "rows_shoal.py", errors)
            raw["memory"] = fresh.run("memory_per_queued_task", 1_000_000)
            raw["growth"] = {count: fresh.run("many_tasks", count) for count in GROWTH}
            fresh.close()

    lines += table(rows, raw["rows"])
    if whole:
        lines += ["", *_start_lines(raw)]
        lines += ["", *_limit_lines(raw)]
    write(options.output, "make bench-core", lines, raw)


def _start_lines(raw: dict[str, Any]) -> list[str]:
    lines = ["| fresh process | shoal | Ray | Dask | bar | reached |", "|---|---|---|---|---|---|"]

    def median(system: str, what: str) -> float:
        return statistics.median(run[what] for run in raw["start"][system])

    for title, what, bar in (
        ("import and start to the first result, s", "seconds", START_BAR),
        ("memory of the idle cluster (PSS), MiB", "mebibytes", IDLE_BAR),
    ):
        values = [median(system, what) for system in ("shoal", "ray", "dask")]
        reached = "yes" if values[0] < bar else "no"
        lines.append(f"| {title} | {' | '.join(map(number, values))} | < {bar:g} | {reached} |")
    counts = [f"{median(system, 'processes'):.0f}" for system in ("shoal", "ray", "dask")]
    lines.append(f"| its processes | {' | '.join(counts)} | | |")
    return lines


def _limit_lines(raw: dict[str, Any]) -> list[str]:
    lines = ["| shoal alone | seconds | Ray publishes (64 cores) | reached |", "|---|---|---|---|"]
    rows = [(title, published, raw["limits"][name]) for name, title, _, published in LIMITS]
    for title, published, answer in [*rows, (*MANY_TASKS, raw["growth"][GROWTH[-1]])]:
        seconds = answer.get("seconds")
        shown = f"{seconds:.2f}" if seconds is not None else answer["error"]
        reached = "yes" if seconds is not None and seconds < published else "no"
        lines.append(f"| {title} | {shown} | {published:g} | {reached} |")
    growth = ", ".join(
        f"{count:,}: " + (f"{answer['seconds'] / count * 1e6:.0f} µs" if "seconds" in answer else answer["error"])
        for count, answer in raw["growth"].items()
    )
    lines += ["", f"Time per task as the number of tasks grows: {growth}."]
    memory = raw["memory"]
    said = f"{memory['bytes']:,.0f} bytes (bar: {TASK_BYTES_BAR:,.0f})" if "bytes" in memory else memory["error"]
    return [*lines, "", f"Memory of one of 1,000,000 queued tasks in the driver: {said}."]


if __name__ == "__main__":
    main()
