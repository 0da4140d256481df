"""Many models with ``fit_many``, joblib, Ray, Dask, and one after the other, in turns.

Run ``make bench-many`` on a quiet machine. It writes the table to ``benchmarks/results/many.md``.
"""

from __future__ import annotations

import argparse
import statistics
import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent.parent))
from comparing import BUILD, System, header, number, write

HERE = Path(__file__).parent
SYSTEMS = ("shoal", "joblib", "ray", "dask", "serial")
#: What is fitted: name, title, and how many times the rates of joblib and of Ray are to be reached.
ROWS = {"ridge": ("Ridge", 1.0, 2.8), "boosting": ("HistGradientBoosting, 10 rounds", 1.0, 0.0)}
#: How many times joblib's first pass is to be reached by ours, in fresh processes.
COLD_BAR = 1.3
COUNT, SHORT_FITS = 500, 20_000


def measure(ray_python: str, rounds: int, errors: Any) -> dict[str, Any]:
    found: dict[str, Any] = {row: {name: [] for name in SYSTEMS} for row in ROWS}
    systems = {}
    try:
        for name in SYSTEMS:
            python = ray_python if name == "ray" else sys.executable
            systems[name] = System(python, HERE / f"rows_{name}.py", errors)
        for turn in range(-1, rounds):  # the first only warms up
            for row in ROWS:
                for name in SYSTEMS if turn % 2 else SYSTEMS[::-1]:
                    answer = systems[name].run(row, COUNT)
                    if "error" in answer:
                        raise RuntimeError(f"{name}: {answer['error']}")
                    if turn >= 0:
                        found[row][name].append(COUNT / answer["seconds"])
        found["short"] = systems["shoal"].run("many_short_fits", SHORT_FITS)
    finally:
        for system in systems.values():
            system.close()
    return found


def cold(ray_python: str, rounds: int, errors: Any) -> dict[str, list[float]]:
    """Return models per second of the first pass in fresh processes, for each system."""
    rates: dict[str, list[float]] = {name: [] for name in SYSTEMS}
    for turn in range(rounds):
        for name in SYSTEMS if turn % 2 else SYSTEMS[::-1]:
            system = System(ray_python if name == "ray" else sys.executable, HERE / f"rows_{name}.py", errors)
            rates[name].append(COUNT / system.run("boosting", COUNT)["seconds"])
            system.close()
    return rates


def report(ray_python: str, found: dict[str, Any]) -> list[str]:
    lines = [
        header(ray_python),
        "",
        f"Models per second, {COUNT} groups of 200 rows: medians and ranges of rounds in which the systems took turns.",
        "",
        f"| fit | {' | '.join(SYSTEMS)} | beside joblib | bar | beside Ray | bar | reached |",
        "|---|" + "---|" * (len(SYSTEMS) + 5),
    ]
    titles = {**ROWS, "cold": ("HistGradientBoosting, the first pass of a fresh process", COLD_BAR, 0.0)}
    for row, (title, joblib_bar, ray_bar) in titles.items():
        rates = found[row]
        middle = {name: statistics.median(values) for name, values in rates.items()}
        cells = [f"{number(middle[name])} ({number(min(rates[name]))}-{number(max(rates[name]))})" for name in SYSTEMS]
        to_joblib, to_ray = middle["shoal"] / middle["joblib"], middle["shoal"] / middle["ray"]
        reached = "yes" if to_joblib >= joblib_bar and to_ray >= ray_bar else "no"
        bar = f"{ray_bar}x" if ray_bar else ""
        lines.append(
            f"| {title} | {' | '.join(cells)} | {to_joblib:.2f}x | {joblib_bar}x | {to_ray:.2f}x | {bar} | {reached} |"
        )
    short = found["short"]
    lines += [
        "",
        f"{SHORT_FITS:,} fits of a millisecond: {short['seconds']:.1f} s, and the driver's largest size has grown by "
        f"{short['grown']:.0f} MiB. `fit_many` keeps every model in a catalog on disk; the others keep them in memory.",
    ]
    return lines


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--ray-python", default=str(BUILD / "bench-env/bin/python"))
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--output", type=Path)
    args = parser.parse_args()
    BUILD.mkdir(exist_ok=True)
    with open(BUILD / "bench-errors.log", "w") as errors:
        found = measure(args.ray_python, args.rounds, errors)
        found["cold"] = cold(args.ray_python, min(3, args.rounds), errors)
    write(args.output, "make bench-many", report(args.ray_python, found), found)


if __name__ == "__main__":
    main()
