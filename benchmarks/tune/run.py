"""Tuning with shoal beside Optuna by itself, in turns.

Run ``make bench-tune`` on a quiet machine. It writes the table to ``benchmarks/results/tune.md``.
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
INSTANT, MANY, TRIALS = 200, 10_000, 32
#: Trials a second to reach, and seconds for ASHA on a warm cluster.
RATE_BAR, ASHA_BAR = 300.0, 12.0


def measure(rounds: int, errors: Any) -> dict[str, Any]:
    systems = {name: System(sys.executable, HERE / f"rows_{name}.py", errors) for name in ("shoal", "optuna")}
    found: dict[str, Any] = {name: {"instant": [], "asha": [], "best": []} for name in systems}
    try:
        for turn in range(-1, rounds):  # the first only warms up
            for name in list(systems) if turn % 2 else list(systems)[::-1]:
                for row, count in (("instant", INSTANT), ("asha", TRIALS)):
                    answer = systems[name].run(row, count)
                    if "error" in answer:
                        raise RuntimeError(f"{name}: {answer['error']}")
                    if turn >= 0:
                        found[name][row].append(answer["seconds"])
                        if row == "asha":
                            found[name]["best"].append(answer["best"])
        found["many"] = systems["shoal"].run("instant", MANY)
    finally:
        for system in systems.values():
            system.close()
    return found


def report(found: dict[str, Any]) -> list[str]:
    def row(title: str, values: dict[str, list[float]], bar: str, reached: bool) -> str:
        cells = [f"{number(statistics.median(one))} ({number(min(one))}-{number(max(one))})" for one in values.values()]
        return f"| {title} | {' | '.join(cells)} | {bar} | {'yes' if reached else 'no'} |"

    names = ("shoal", "optuna")
    rates = {name: [INSTANT / seconds for seconds in found[name]["instant"]] for name in names}
    asha = {name: found[name]["asha"] for name in names}
    best = {name: found[name]["best"] for name in names}
    middle = {name: statistics.median(best[name]) for name in names}
    many = found["many"]
    return [
        header(sys.executable).replace(", Ray ,", ","),
        "",
        "| | shoal, with its journal | Optuna by itself | bar | reached |",
        "|---|---|---|---|---|",
        row(f"{INSTANT} trials that return at once, trials/s (Optuna: two threads, SQLite)", rates,
            f"{RATE_BAR:g}", statistics.median(rates["shoal"]) >= RATE_BAR),
        row(f"{TRIALS} trials with successive halving up to 16 epochs, s (Optuna: one after the other)", asha,
            f"{ASHA_BAR:g} s", statistics.median(asha["shoal"]) <= ASHA_BAR),
        row("their best accuracy", best, "Optuna's", middle["shoal"] >= middle["optuna"] - 0.005),
        "",
        f"{MANY:,} trials that return at once: {many['seconds']:.1f} s, {MANY / many['seconds']:,.0f} trials/s; the "
        f"driver's largest size has grown by {many['grown']:.0f} MiB.",
    ]  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--output", type=Path)
    args = parser.parse_args()
    BUILD.mkdir(exist_ok=True)
    with open(BUILD / "bench-errors.log", "w") as errors:
        found = measure(args.rounds, errors)
    write(args.output, "make bench-tune", report(found), found)


if __name__ == "__main__":
    main()
