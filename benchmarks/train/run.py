"""Training on two ranks with ``TorchTrainer``, torchrun and Ray Train, in turns.

Run ``make bench-train`` on a quiet machine. It writes the table to ``benchmarks/results/train.md``.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent.parent))
from comparing import BUILD, System, header, write

HERE = Path(__file__).parent
#: Times of torchrun's epoch, seconds beyond the epochs, times of torchrun's and of Ray's whole.
EPOCH_BAR, BEYOND_BAR, TORCHRUN_BAR, RAY_BAR = 1.05, 3.0, 0.65, 0.15


def torchrun(num_epochs: int) -> dict[str, Any]:
    """Train by torchrun; processes and all start anew, as they do for whoever uses it."""
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    began = time.perf_counter()
    done = subprocess.run(
        [*command, str(HERE / "loop.py"), str(num_epochs)], capture_output=True, text=True, check=True
    )
    return {**json.loads(done.stdout.splitlines()[-1]), "seconds": time.perf_counter() - began}


def measure(systems: tuple[str, ...], ray_python: str, rounds: int, num_epochs: int, errors: Any) -> dict[str, Any]:
    found: dict[str, Any] = {name: [] for name in systems}
    running = {}
    try:
        for name in systems:
            if name != "torchrun":
                python = ray_python if name == "ray" else sys.executable
                running[name] = System(python, HERE / f"rows_{name}.py", errors)
        for turn in range(-1, rounds):  # the first only warms up
            for name in systems if turn % 2 else systems[::-1]:
                answer = torchrun(num_epochs) if name == "torchrun" else running[name].run("digits", num_epochs)
                if "error" in answer:
                    raise RuntimeError(f"{name}: {answer['error']}")
                if turn >= 0:
                    found[name].append(answer)
    finally:
        for system in running.values():
            system.close()
    return found


def report(ray_python: str, found: dict[str, Any], num_epochs: int, note: str) -> list[str]:
    lines = [
        header(ray_python) + (f" {note}" if note else ""),
        "",
        f"A convolutional network on digits, two ranks (DDP, gloo), {num_epochs} epochs: medians and ranges of rounds "
        "in which the systems took turns. shoal and Ray have their clusters; torchrun starts its processes.",
        "",
        "| | an epoch, s | beyond the epochs, s | whole, s | last loss |",
        "|---|---|---|---|---|",
    ]
    middle = {}
    for name, runs in found.items():
        epochs = [statistics.median(run["epochs"][1:]) for run in runs]
        beyond = [run["seconds"] - sum(run["epochs"]) for run in runs]
        whole = [run["seconds"] for run in runs]
        middle[name] = [statistics.median(values) for values in (epochs, beyond, whole)]
        cells = [_cell(values) for values in (epochs, beyond, whole)]
        lines.append(f"| {name} | {' | '.join(cells)} | {', '.join(sorted({run['loss'] for run in runs}))} |")
    shoal, other = middle["shoal"], middle["torchrun"]
    same = {run["loss"] for run in found["shoal"]} == {run["loss"] for run in found["torchrun"]}
    rows = [
        ("the same loss as torchrun to the bit", "yes" if same else "no", "yes", same),
        ("an epoch beside torchrun", f"{shoal[0] / other[0]:.3f}x", f"{EPOCH_BAR}x", shoal[0] <= EPOCH_BAR * other[0]),
        ("beyond the epochs", f"{shoal[1]:.2f} s", f"{BEYOND_BAR} s", shoal[1] <= BEYOND_BAR),
        (
            "whole beside torchrun",
            f"{shoal[2] / other[2]:.2f}x",
            f"{TORCHRUN_BAR}x",
            shoal[2] <= TORCHRUN_BAR * other[2],
        ),
    ]
    if "ray" in middle:
        ray = middle["ray"][2]
        rows.append(("whole beside Ray Train", f"{shoal[2] / ray:.2f}x", f"{RAY_BAR}x", shoal[2] <= RAY_BAR * ray))
    lines += ["", "| | measured | bar | reached |", "|---|---|---|---|"]
    lines += [f"| {what} | {value} | {bar} | {'yes' if reached else 'no'} |" for what, value, bar, reached in rows]
    return lines


def _cell(values: list[float]) -> str:
    return f"{statistics.median(values):.3f} ({min(values):.3f}-{max(values):.3f})"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--ray-python", default=str(BUILD / "bench-env/bin/python"))
    parser.add_argument("--systems", nargs="+", default=["shoal", "torchrun", "ray"])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--epochs", type=int, default=10)
    parser.add_argument("--note", default="", help="what else is to be known of the machine")
    parser.add_argument("--output", type=Path)
    args = parser.parse_args()
    BUILD.mkdir(exist_ok=True)
    with open(BUILD / "bench-errors.log", "w") as errors:
        found = measure(tuple(args.systems), args.ray_python, args.rounds, args.epochs, errors)
    write(args.output, "make bench-train", report(args.ray_python, found, args.epochs, args.note), found)


if __name__ == "__main__":
    main()
